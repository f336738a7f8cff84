#!/usr/bin/env bash
# Makes .venv beside pyproject.toml and installs nasrecon into it; quickstart.sh and tests/run.sh source it.
# Use: source examples/setup.sh [extras], from the top of the checkout.
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nasrecon needs Python 3.11 or newer; set PYTHON" >&2; exit 1; }
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint examples/constraints.txt --editable ".${1:-}"

# Open3D loads a few system libraries that a bare Debian or Ubuntu does not have.
LIBRARIES="libegl1 libgl1 libx11-6 libusb-1.0-0 libgomp1"
if ! .venv/bin/python -c 'import open3d' 2>/dev/null; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get update && apt-get install -y --no-install-recommends $LIBRARIES; } >/dev/null || true # what is missing is said below
  fi
  .venv/bin/python -c 'import open3d' 2>/dev/null || {
    echo "Open3D cannot be loaded. On Debian or Ubuntu: sudo apt-get install $LIBRARIES" >&2
    .venv/bin/python -c 'import open3d'
    exit 1
  }
fi
