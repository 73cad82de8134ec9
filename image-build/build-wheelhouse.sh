#!/bin/bash
# Collect everything that a box without internet needs to install the appliance, and prove that it is enough.
#
#   build-wheelhouse.sh OUT [PYTHON]
#
# OUT/wheels/           wheels of every locked dependency and of the appliance itself, for PYTHON's version
# OUT/requirements.txt  the lock, and the appliance with the hash of its wheel
# OUT/SHA256SUMS        of all of these
#
# PYTHON is one with the packages of requirements-build.txt; .venv/bin/python after `make demo` is.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
python=$(realpath -s "${2:-$root/.venv/bin/python}")
pip=("$python" -m pip --disable-pip-version-check --quiet)

if [ -n "$(ls -A "$out")" ]; then
    echo "$out is not empty; name a new folder, so that nothing old is taken along." >&2
    exit 2
fi

"${pip[@]}" download --require-hashes --only-binary=:all: --no-deps --dest "$out/wheels" \
    --requirement "$root/requirements.txt"

# The same sources give the same bytes.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 315532800)}"
"${pip[@]}" wheel --no-deps --no-build-isolation --wheel-dir "$out/wheels" "$root"

cd "$out"
wheel=$(ls wheels/appliance-*.whl)
version=$(basename "$wheel" | cut -d- -f2)
{
    cat "$root/requirements.txt"
    printf 'appliance==%s \\\n    --hash=sha256:%s\n' "$version" "$(sha256sum "$wheel" | cut -d' ' -f1)"
} > requirements.txt
sha256sum requirements.txt wheels/*.whl > SHA256SUMS

proof=$(mktemp -d)
trap 'rm -rf "$proof"' EXIT
"$root/image-build/install-from-wheelhouse.sh" "$out" "$proof/appliance" "$python"
echo "$out: $(wc -l < SHA256SUMS) files, $(du -sh . | cut -f1); installed from it alone: $("$proof/appliance/bin/appliance" --version)"
