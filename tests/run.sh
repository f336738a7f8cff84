#!/usr/bin/env bash
# Environment, installation, all tests. Arguments go to pytest: bash tests/run.sh tests/nas -k golden
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/setup.sh "[test]"
# Two threads: more than a shared machine has only make each other wait.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
exec .venv/bin/python -m pytest "$@"
