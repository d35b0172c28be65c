# Sourced by the scripts in the root: makes .venv and installs what the lock files in requirements/ name.
# Does nothing where that is done already. $PYTHON chooses the Python; else the newest one that will do is taken.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints a Python >= 3.11 that can make virtual environments.
find_python() {
    local candidate without_venv=""
    for candidate in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12 python3.11 python3 python; do
        is_new_enough "$candidate" || {
            [ "$candidate" = "${PYTHON:-}" ] && die "PYTHON=$PYTHON is not a Python of version 3.11 or newer."
            continue
        }
        if can_make_venv "$candidate"; then
            command -v "$candidate"
            return
        fi
        without_venv="${without_venv:-$candidate}"
    done
    [ -z "$without_venv" ] || die "$without_venv cannot make virtual environments: its modules venv and ensurepip are missing.
On Debian and Ubuntu:  apt-get install $("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    die "HeartGuard needs Python 3.11 or newer, and none was found.
Install one (Debian, Ubuntu: apt-get install python3 python3-venv; Fedora: dnf install python3), or name yours: PYTHON=/path/to/python3"
}

# setup_venv NAME: install requirements/NAME.txt (with hashes) and HeartGuard itself, unless that is done.
setup_venv() {
    local requirements="$ROOT/requirements/$1.txt" stamp="$VENV/.installed-$1" wanted python
    [ -r "$requirements" ] || die "$requirements is missing: this is not a complete checkout."
    exec 9<"$ROOT"
    flock -n 9 || { say "Another set-up is at work here; waiting for it …"; flock -w 900 9 || die "It did not end."; }
    if [ "$(cat "$VENV/.made-for" 2>/dev/null)" != "$ROOT" ] || ! is_new_enough "$VENV/bin/python"; then
        python="$(find_python)" || exit 1
        say "Making a virtual environment in .venv with $("$python" -V) …"
        "$python" -m venv --clear "$VENV" || die "The virtual environment could not be made."
        printf '%s' "$ROOT" >"$VENV/.made-for"
    fi
    wanted="$({ "$VENV/bin/python" -VV; cat "$requirements" "$ROOT/pyproject.toml"; } | sha256sum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        install_locked "$requirements"
        printf '%s' "$wanted" >"$stamp"
    fi
    exec 9<&-
}

install_locked() {
    local log="$VENV/install.log" total pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --no-input)
    total="$(grep -c '==' "$1")"
    say "Installing $total packages into .venv (only the first time) …"
    : >"$log"
    # The list is whole. Left to look for what its packages need, pip stumbles over versions that came out after it.
    { "${pip[@]}" --require-hashes --no-deps -r "$1" 2>&1 && "${pip[@]}" --no-build-isolation --no-deps -e "$ROOT" 2>&1; } |
        tee "$log" | show_progress "$total" || {
        tail -n 25 "$log" >&2
        die "Installing failed; all of it is in $log."
    }
    # pip has compiled what it installed, but not the checkout. Should this fail, it is compiled when it is run.
    "$VENV/bin/python" -m compileall -q "$ROOT/heartguard" "$ROOT/services" >>"$log" 2>&1 || true
}

# Reads what pip says and shows, on a terminal, how far it is.
show_progress() {
    local line count=0
    while IFS= read -r line; do
        [ -t 1 ] || continue
        case "$line" in
            Collecting* | "Requirement already satisfied"*)
                count=$((count + 1))
                printf '\r\033[K  %d of %d' "$((count > $1 ? $1 : count))" "$1"
                ;;
            "Installing collected packages"*) printf '\r\033[K  unpacking …' ;;
        esac
    done
    [ ! -t 1 ] || printf '\r\033[K'
}
