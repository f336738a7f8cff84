#!/usr/bin/env bash
# Environment, installation, all tests. Arguments go to pytest: bash tests/run.sh tests/nas -k golden
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/setup.sh "[test]"
# The pages' tests open a browser; without one they are skipped, and say so.
if ! command -v chromium chromium-browser google-chrome >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null || true
fi
# Without arguments two processes of one thread each share the files of tests.
if [ $# = 0 ]; then
  set -- -n 2 --dist loadfile
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
exec .venv/bin/python -m pytest "$@"
