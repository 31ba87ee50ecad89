# shellcheck shell=bash
# Sourced by scripts/test, after setup.sh: the WhatsApp tests with another version of the library.

LIBRARY=neonize
LIBRARY_VENV=$ROOT/.venv-library
LIBRARY_TESTS=(
    tests/unit/whatsapp tests/unit/whatsapp_server
    tests/integration/whatsapp tests/integration/whatsapp_server
    tests/acceptance/test_whatsapp_*.py
    tests/acceptance/test_cli_pairing.py tests/acceptance/test_cli_sessions.py tests/acceptance/test_visits.py
    tests/acceptance/test_inbox.py tests/acceptance/test_opt_out_persons.py
)

_library_version() { "$1/bin/python" -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' "$LIBRARY"; }

# _newest_library: the newest version on the package index; nothing if the index cannot be reached.
_newest_library() {
    "$VENV/bin/python" -m pip index versions "$LIBRARY" --disable-pip-version-check --retries 1 --timeout 15 2> /dev/null |
        sed -n "s/^$LIBRARY (\(.*\))\$/\1/p" || true
}

_no_index() {
    die "the package index does not answer: $1." \
        "This needs the index that pip uses (pip config list); see whether it can be reached, then run $0 again."
}

# _install_library VERSION: all locked packages but the library, then that version of the library.
_install_library() {
    local version=$1 stamp=$LIBRARY_VENV/.installed wanted others=$LIBRARY_VENV/others.txt
    # The functions of setup.sh then work on this environment.
    VENV=$LIBRARY_VENV
    wanted="$(cat "$ROOT/pyproject.toml" "$ROOT/requirements.build.txt" "$ROOT/requirements.dev.txt" | sha256sum)"
    if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
        _find_python
        say "creating a virtual environment in $VENV; this may take a minute or two"
        "$PYTHON" -m venv --clear "$VENV" || die "the virtual environment $VENV could not be created; see above."
        awk -v library="$LIBRARY==" '/^[^ #]/ { skip = index($0, library) == 1 } !skip' "$ROOT/requirements.dev.txt" > "$others"
        (cd "$ROOT" && _pip --require-hashes --only-binary :all: -r requirements.build.txt -r "$others" &&
            _pip --no-index --no-deps --no-build-isolation --editable .) ||
            die "pip could not install the locked packages; see above." "Check that the package index is reachable, then run $0 again."
        "$VENV/bin/python" -m pip freeze --exclude-editable | grep -v "^$LIBRARY==" > "$VENV/constraints.txt"
        printf '%s' "$wanted" > "$stamp"
    fi
    [ "$(_library_version "$VENV" 2> /dev/null)" = "$version" ] && return
    _pip --retries 1 --only-binary :all: --constraint "$VENV/constraints.txt" "$LIBRARY==$version" && return
    [ -n "$(_newest_library)" ] || _no_index "$LIBRARY $version cannot be installed"
    die "$LIBRARY $version could not be installed beside the locked packages; see above." \
        "Either there is no such version, or it needs other versions of its own dependencies: then change pyproject.toml" \
        "and run ./scripts/lock first."
}

# _most_failed FILE: whether half of its tests failed.
_most_failed() {
    local all bad
    all=$(grep -o '<testcase ' "$1" | wc -l)
    bad=$(grep -oE '<(failure|error) ' "$1" | wc -l)
    [ $((2 * bad)) -ge "$all" ]
}

# test_library VERSION [ARGUMENT…]: run the WhatsApp tests with this version, and report what is different.
test_library() {
    local wanted=$1 version locked results failed=0
    shift
    [[ $wanted == latest || $wanted =~ ^[0-9][0-9A-Za-z.]*$ ]] ||
        die "--library: '$wanted' is not a version." "Write ./scripts/test --library latest, or a version such as 0.5.2."
    prepare_venv requirements.dev.txt
    locked=$(_library_version "$VENV")
    version=$wanted
    if [ "$wanted" = latest ]; then
        version=$(_newest_library)
        [ -n "$version" ] || _no_index "the newest version of $LIBRARY is unknown ($locked is locked)"
    fi
    (_install_library "$version") || exit 1

    results=$(mktemp -d)
    trap 'rm -rf "$results"' EXIT
    cd "$ROOT"
    # with VENV NAME ARGUMENT…: run the tests; the result goes to NAME.xml.
    with() {
        local venv=$1 name=$2
        shift 2
        "$venv/bin/pytest" -q --no-header --tb=line -o cache_dir="$results/cache" --junitxml="$results/$name.xml" "$@"
    }
    say "== $LIBRARY $version (locked: $locked)"
    with "$LIBRARY_VENV" first -n 2 --dist loadfile "${LIBRARY_TESTS[@]}" "$@" || failed=1
    if [ $failed = 1 ] && _most_failed "$results/first.xml"; then
        say "== most of them failed, which no other run would change"
        failed=3
    fi
    if [ $failed = 1 ]; then
        say "== what failed, once more, one after the other"
        with "$LIBRARY_VENV" again -n 0 --last-failed "${LIBRARY_TESTS[@]}" "$@" || failed=2
    fi
    if [ $failed = 2 ]; then
        say "== what failed again, with $LIBRARY $locked"
        with "$VENV" locked -n 0 --last-failed "${LIBRARY_TESTS[@]}" "$@" || true
    fi
    "$VENV/bin/python" "$ROOT/scripts/lib/library_report.py" "$LIBRARY" "$locked" "$version" "$results"
}
