#!/bin/bash
# Install the appliance from a wheelhouse, without any network.
#
#   install-from-wheelhouse.sh WHEELHOUSE TARGET [PYTHON]
#
# TARGET becomes a virtual environment, on a box /opt/appliance; PYTHON must be the version that the wheelhouse is for.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
wheelhouse=$(cd "$1" && pwd)
target=$2
python=${3:-python3}

(cd "$wheelhouse" && sha256sum --check --strict --quiet SHA256SUMS)
"$python" -m venv "$target"
# Neither a configuration file nor the environment may name another source of packages.
env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
    "$target/bin/python" -m pip --disable-pip-version-check --quiet install --no-index --no-cache-dir \
    --find-links "$wheelhouse/wheels" --require-hashes --requirement "$wheelhouse/requirements.txt"
