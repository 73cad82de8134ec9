#!/bin/bash
# Install what a fresh Debian or Ubuntu machine lacks, and only that.
#
#   prepare-machine.sh venv FOLDER   a Python 3.11 to 3.13 and a virtual environment in FOLDER
#   prepare-machine.sh tools         what the tests talk to and call: dcmtk, dicom3tools, Orthanc, mosquitto, a browser, a Chinese font, …
set -euo pipefail

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# The tests start their own brokers and archives on free ports; the daemons that come with the packages must not start.
forbid_daemons() {
    local policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && return
    # shellcheck disable=SC2064
    trap "[ \$(id -u) -eq 0 ] && rm -f $policy || sudo rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "This machine has no apt-get. Install what corresponds to these Debian packages, then call make again: $*" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "Not root and no sudo. As root: apt-get install $*; then call make again." >&2
        exit 1
    fi
    echo "Installing with apt: $*"
    forbid_daemons
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0)
    as_root "${apt[@]}" install --no-install-recommends "$@" >/dev/null 2>&1 && return
    # The lists of a fresh machine are empty or old.
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install --no-install-recommends "$@" >/dev/null
}

# Debian 12 ships 3.11, on which the tests run most often; hence the order.
find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python version
    if ! python=$(find_python); then
        install_packages python3 python3-venv
        python=$(find_python) || {
            echo "Python 3.11, 3.12 or 3.13 is needed and this machine's packages offer none of them. Install one, then call make again." >&2
            exit 1
        }
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install_packages "python$version-venv"
    fi
    "$python" -m venv "$1"
}

install_tools() {
    local missing=()
    command -v storescu >/dev/null || missing+=(dcmtk)
    command -v dciodvfy >/dev/null || missing+=(dicom3tools)
    [ -e /usr/share/fonts/truetype/wqy/wqy-microhei.ttc ] || missing+=(fonts-wqy-microhei)
    command -v openssl >/dev/null || missing+=(openssl)
    # Daemons live in sbin, which an ordinary user's PATH may lack.
    [ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || missing+=(mosquitto)
    command -v mosquitto_sub >/dev/null || missing+=(mosquitto-clients)
    [ -x /usr/sbin/Orthanc ] || command -v Orthanc >/dev/null || missing+=(orthanc)
    [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    install_packages "${missing[@]}"
}

case "${1:-}" in
    venv) make_venv "${2:?the folder of the virtual environment}" ;;
    tools) install_tools ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
