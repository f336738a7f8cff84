#!/usr/bin/env bash
# Environment, installation, all tests. Arguments go to pytest: bash tests/run.sh tests/nas -k golden
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/setup.sh "[test]"
# The pages' tests open a browser; without one they are skipped, and say so.
if ! command -v chromium chromium-browser google-chrome >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null || true
fi
# Two threads: more than a shared machine has only make each other wait.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
exec .venv/bin/python -m pytest "$@"
