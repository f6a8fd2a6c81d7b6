#!/bin/sh
# Install a wheel into an empty environment outside this folder and follow the README's first five minutes with it.
#
#   deploy/check_install.sh [--dependencies VENV] [WHEEL]
#
# Without WHEEL one is built. With --dependencies nothing is downloaded or compiled: everything but mixcli comes from that environment, such as
# .venv. Without it pip installs all of it, and compiles llama.cpp (minutes), except where its cache has the wheel.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
dependencies="" wheel=""
while [ $# -gt 0 ]; do
    case "$1" in
    --dependencies) dependencies=$(cd "$2" && pwd) && shift 2 ;;
    -*) sed -n '2,8p' "$0" >&2 && exit 2 ;;
    *) wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") && shift ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH MIXCLI_HOME MIXCLI_MODEL MIXCLI_PROFILE MIXCLI_API_KEY
if [ -n "$dependencies" ]; then
    PYTHON=$dependencies/bin/python
fi
if [ -z "$wheel" ]; then
    isolation=""
    if "$PYTHON" -c 'import hatchling' 2>/dev/null; then isolation=--no-build-isolation; fi
    "$PYTHON" -m pip wheel --quiet --no-deps $isolation --wheel-dir "$work/dist" "$root"
    wheel=$(ls "$work"/dist/mixcli-*.whl)
fi
"$PYTHON" -m venv --without-pip "$work/venv"
if [ -n "$dependencies" ]; then
    "$PYTHON" -m pip --python "$work/venv/bin/python" install --quiet --no-deps --no-index "$wheel"
    # a line of a .pth file only lengthens sys.path: the editable mixcli of that environment is not seen
    "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
else
    "$PYTHON" -m pip --python "$work/venv/bin/python" install --quiet "${wheel}[demo,fast]"
fi
cp "$root/README.md" "$root/deploy/first_minutes.py" "$work"
cd "$work"
PATH="$work/venv/bin:$PATH"
export PATH
place=$(python -P -c 'import mixcli; print(mixcli.__file__)')
case "$place" in "$work"/venv/*) ;; *) echo "mixcli was imported from $place" >&2 && exit 1 ;; esac
echo "$(mixcli --version) from $(basename "$wheel")"
python -P first_minutes.py README.md "${FIRST_MINUTES:---strict}"
