#!/bin/sh
# Prints a Python that edgekit can be set up with: $PYTHON if given, else the first fit of those on the PATH.
# Locked are 3.11 to 3.13; a newer one is used only when nothing else is there.
fits() { "$1" -c "import ensurepip, sys, venv; sys.exit(not $2)" >/dev/null 2>&1; }

if [ -n "$PYTHON" ]; then
    fits "$PYTHON" "sys.version_info >= (3, 11)" && { echo "$PYTHON"; exit 0; }
    echo "edgekit: PYTHON=$PYTHON is not a Python 3.11 or newer with venv and pip" >&2
    exit 1
fi
for range in "(3, 11) <= sys.version_info < (3, 14)" "sys.version_info >= (3, 14)"; do
    for candidate in python3 python3.12 python3.11 python3.13 python3.14 python; do
        fits "$candidate" "$range" && { echo "$candidate"; exit 0; }
    done
done
echo "edgekit: no Python 3.11 or newer with venv and pip was found on the PATH;" >&2
echo "         install one (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2
exit 1
