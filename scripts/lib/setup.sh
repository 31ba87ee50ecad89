# shellcheck shell=bash
# Sourced by the scripts: finds a Python, creates the clone's virtual environment, installs packages.
# Everything can be repeated; what is up to date is not touched.

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv

say() { printf '%s\n' "$*" >&2; }

die() {
    say "${0##*/}: $1"
    shift
    for line in "$@"; do say "  $line"; done
    exit 1
}

# asks_for_help ARGUMENT…: whether one is -h or --help.
asks_for_help() {
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) return 0 ;;
        esac
    done
    return 1
}

# help_if_asked ARGUMENT…: for -h or --help, print the comment at the top of the script and exit.
help_if_asked() {
    asks_for_help "$@" || return 0
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
}

# help_or_prepare REQUIREMENTS ARGUMENT…: prepare_venv, but who asks for help waits for no installation: they get the help of the program,
# if the environment is there, and otherwise the comment at the top of the script.
help_or_prepare() {
    local requirements=$1
    shift
    if ! asks_for_help "$@"; then
        prepare_venv "$requirements"
    elif [ ! -x "$VENV/bin/python" ]; then
        help_if_asked "$@"
    fi
}

# _one_at_a_time FILE COMMAND…: run COMMAND while no other script of this clone holds FILE of scripts/: two may start together.
_one_at_a_time() {
    local file=$ROOT/scripts/$1
    shift
    if command -v flock > /dev/null; then
        # Not inherited: a service that an installation starts would hold it.
        (flock 9 && "$@" 9<&-) 9< "$file" || exit 1
    else
        ("$@") || exit 1
    fi
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; }

_install_missing() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2> /dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get --option DPkg::Lock::Timeout=300 install --yes --quiet --no-install-recommends "${missing[@]}")
    { "${install[@]}" || { apt-get update --quiet && "${install[@]}"; }; } > /dev/null ||
        die "apt-get could not install: ${missing[*]}"
}

# install_packages NAME…: install Debian packages, except those that are installed already.
install_packages() { _one_at_a_time lib/setup.sh _install_missing "$@"; }

_is_there() {
    case $1 in
        # Debian installs servers outside an ordinary user's PATH.
        bin:*) PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "${1#bin:}" > /dev/null ;;
        lib:*) "$VENV/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "${1#lib:}" 2> /dev/null ;;
    esac
}

# need_packages "WHAT PACKAGE"…: what must be on the system (bin:PROGRAM, lib:FILE), and the Debian package that has it. Installs what is
# missing, where that is possible. After prepare_venv.
need_packages() {
    local entry what package missing=()
    for entry in "$@"; do
        read -r what package <<< "$entry"
        _is_there "$what" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    can_install || die "more system packages are needed." "As root: apt-get install ${missing[*]}"
    install_packages "${missing[@]}"
}

_take_programs() {
    local package=$1 program
    shift
    command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null ||
        die "these programs are needed on the PATH: $*." "Debian and Ubuntu have them in the package $package."
    # Not local: the trap runs when the function has ended, at the end of its shell.
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    say "taking from the Debian package $package, without installing it: $*"
    # As root, apt would download as a user who cannot write to the folder.
    local download=(apt-get --option APT::Sandbox::User=root download --quiet "$package")
    (cd "$folder" && { "${download[@]}" || { can_install && apt-get update --quiet && "${download[@]}"; }; } > /dev/null) ||
        die "apt-get could not download $package; see above." "If its lists are old or missing, as root: apt-get update"
    dpkg-deb --extract "$folder/$package"_*.deb "$folder/tree"
    for program in "$@"; do install --mode=755 "$folder"/tree/usr/*bin/"$program" "$VENV/bin/$program"; done
}

# take_programs PACKAGE PROGRAM…: have programs of a Debian package in the virtual environment, unless they are on the PATH. They are
# taken out of the package, because to install it would start a service: Prometheus would listen on port 9090 of every address. So
# this needs no root. After prepare_venv.
take_programs() {
    local package=$1 program missing=()
    shift
    for program in "$@"; do
        [ -x "$VENV/bin/$program" ] || command -v "$program" > /dev/null || missing+=("$program")
    done
    [ ${#missing[@]} -eq 0 ] || _one_at_a_time lib/setup.sh _take_programs "$package" "${missing[@]}"
}

_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null; }
_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }
_makes_venvs() { "$1" -c 'import ensurepip, venv' 2> /dev/null; }

# Sets PYTHON to an interpreter that can create virtual environments.
_find_python() {
    local candidate version seen="" bare=""
    local candidates=${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3}
    for candidate in $candidates; do
        version=$(_version "$candidate") || continue
        seen="${seen:+$seen, }$candidate is $version"
        _is_new_enough "$candidate" || continue
        if _makes_venvs "$candidate"; then
            PYTHON=$candidate
            return
        fi
        bare=${bare:-$candidate}
    done
    if [ -z "$bare" ]; then
        die "Python 3.11 or newer is required, and was not found (${seen:-tried $candidates})." \
            "Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv" \
            "If it is elsewhere: PYTHON=/path/to/python3.12 $0"
    fi
    version=$(_version "$bare")
    if can_install; then
        install_packages "python$version-venv"
        PYTHON=$bare
        _makes_venvs "$bare" && return
    fi
    die "$bare ($version) cannot create virtual environments: its modules venv and ensurepip are missing." \
        "Debian, Ubuntu: apt-get install python$version-venv      (as root)" \
        "Or use another Python: PYTHON=/path/to/python3.12 $0"
}

_check_machine() {
    [ "$(uname -s)" = Linux ] || die "shardd runs on Linux, but this is $(uname -s)."
    if ldd --version 2>&1 | grep -qi musl; then
        die "this system uses musl, for which the WhatsApp library has no build: use a system with glibc (Debian, Ubuntu, Fedora)."
    fi
    [ -w "$ROOT" ] || die "$(id -un) cannot write to $ROOT: clone the project into a folder of your own."
}

_pip() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

_install() {
    local file=$1 wanted stamp=$VENV/.installed-$1
    if ! { "$VENV/bin/python" -m pip --version > /dev/null 2>&1 && _is_new_enough "$VENV/bin/python"; }; then
        _find_python
        say "creating a virtual environment in $VENV ($("$PYTHON" --version))"
        "$PYTHON" -m venv --clear "$VENV" || die "the virtual environment $VENV could not be created; see above."
    fi
    wanted="$("$VENV/bin/python" -VV) $(cd "$ROOT" && cat pyproject.toml requirements.build.txt "$file" | sha256sum)"
    [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ] || return 0
    say "installing the packages of $file; the first time this may take a minute or two"
    # Exactly the files that are locked by hash, and only wheels; then the project itself.
    (cd "$ROOT" && _pip --require-hashes --only-binary :all: -r requirements.build.txt -r "$file" &&
        _pip --no-index --no-deps --no-build-isolation --editable .) ||
        die "pip could not install the project; see above." "Check that the package index is reachable, then run $0 again: it continues where it stopped."
    printf '%s' "$wanted" > "$stamp"
}

# prepare_venv FILE: create or update the clone's virtual environment with the project and the locked packages of FILE.
prepare_venv() {
    _check_machine
    _one_at_a_time test _install "$@"
}
