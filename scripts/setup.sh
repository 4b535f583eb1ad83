# Sourced by the other scripts, with their arguments: `--help`, and an environment for each requirement file,
# installed once. Tests have one of their own, as pytest-sanic needs an older websockets than the proxy runs with.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# print_help FILE: the comment at its beginning.
print_help() { sed -n -e 1d -e '/^#/!q' -e 's/^# \{0,1\}//p' "$1"; }

for argument in "$@"; do
    if [[ $argument == --help || $argument == -h ]]; then
        print_help "$0"
        exit
    fi
done

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "sanic-proxy needs Python 3.11 or newer on the PATH (or in \$PYTHON)" >&2
    return 1
}

# step TEXT COMMAND...: run it; one line on standard error with the time it took.
step() {
    local text=$1 started=$SECONDS code=0
    shift
    printf '%s ... ' "$text" >&2
    "$@" || code=$?
    if ((code)); then
        echo "failed after $((SECONDS - started)) s" >&2
    else
        echo "$((SECONDS - started)) s" >&2
    fi
    return "$code"
}

# pins_in FILE: how many packages a requirement file pins.
pins_in() { grep -c '^[A-Za-z0-9].*==' "$1"; }

# install NAME FOLDER: make FOLDER hold scripts/requirements/NAME.txt and this package, and set $venv to it.
# Does nothing the second time.
install() {
    local wanted stamp python
    local packages="$root/scripts/requirements/$1.txt" build="$root/scripts/requirements/build.txt"
    venv="$root/$2"
    stamp="$venv/.installed"
    wanted=$(cat "$packages" "$build" "$root/pyproject.toml" | cksum)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    python=$(find_python)
    mkdir -p "$venv"
    (
        # Two first starts at once: the second waits, and finds the work done.
        if command -v flock >/dev/null && ! flock -n 9; then
            step "waiting for another installation into $2" flock 9
        fi
        if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
            exit 0
        fi
        if [[ ! -x $venv/bin/pip ]]; then
            step "creating $2 with $("$python" --version)" "$python" -m venv "$venv"
        fi
        pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
        step "installing scripts/requirements/$1.txt ($(pins_in "$packages")) into $2" \
            "${pip[@]}" --require-hashes -r "$packages"
        step "installing scripts/requirements/build.txt ($(pins_in "$build"))" \
            "${pip[@]}" --require-hashes -r "$build"
        step "installing sanic-proxy" "${pip[@]}" --no-deps --no-build-isolation --editable "$root"
        echo "$wanted" >"$stamp"
    ) 9>"$venv/.lock"
}
