#!/usr/bin/env bash
# What the GPU of a bare machine gives: installs wheels beside its torch, and measures (benchmarks/gpu.py).
#
#   benchmarks/gpu.sh OUT [WHEELS]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 wheels=${2:-}
if [ -n "$wheels" ]; then
    python3 -m pip install -q --no-index --find-links "$wheels" --no-deps "$wheels"/*.whl
fi
PYTHONPATH=. python3 benchmarks/gpu.py "$out"
