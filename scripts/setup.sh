# Sourced by the other scripts: an environment for each requirement file, installed once.
# Tests have one of their own, as pytest-sanic needs an older websockets than the proxy runs with.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

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

# install NAME FOLDER: make FOLDER hold scripts/requirements/NAME.txt and this package, and set $venv to it.
# Does nothing the second time.
install() {
    local name=$1 wanted stamp
    venv="$root/$2"
    stamp="$venv/.installed"
    wanted=$(cat "$root/scripts/requirements/$name.txt" "$root/scripts/requirements/build.txt" "$root/pyproject.toml" | cksum)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    mkdir -p "$venv"
    (
        # Two first starts at once: the second waits, and finds the work done.
        if command -v flock >/dev/null; then flock 9; fi
        if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
            exit 0
        fi
        echo "installing scripts/requirements/$name.txt into ${venv##*/}" >&2
        if [[ ! -x $venv/bin/pip ]]; then
            "$(find_python)" -m venv "$venv"
        fi
        pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
        "${pip[@]}" --require-hashes -r "$root/scripts/requirements/$name.txt"
        "${pip[@]}" --require-hashes -r "$root/scripts/requirements/build.txt"
        "${pip[@]}" --no-deps --no-build-isolation --editable "$root"
        echo "$wanted" >"$stamp"
    ) 9>"$venv/.lock"
}
