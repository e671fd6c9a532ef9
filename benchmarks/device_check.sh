#!/usr/bin/env bash
# What one short hold of a GPU is used for, in less than ten minutes: are the kernels right there, and how fast is all
# of it. From the root of the checkout:
#   bash benchmarks/device_check.sh [FOLDER]                  rows.jsonl, logs and run folders in FOLDER
#   GENOATTN_DRY=1 bash benchmarks/device_check.sh [FOLDER]   the same code on tiny shapes, without a GPU
# Packages that the machine lacks are taken from .wheels/, which benchmarks/gpu/wheels.sh fills; nothing is fetched.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-${OUT:-runs/device_check}}
PYTHON=${PYTHON:-python3}
SITE=${TMPDIR:-/tmp}/genoattn-site
mkdir -p "$OUT"
rm -f "$OUT/rows.jsonl"
if compgen -G '.wheels/*.whl' >/dev/null; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .wheels/*.whl
fi
export PYTHONPATH=$PWD:$SITE PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONDONTWRITEBYTECODE=1
export GENOATTN_CACHE=${GENOATTN_CACHE:-${TMPDIR:-/tmp}/genoattn-genomes} TOKENIZERS_PARALLELISM=false
if [ "${GENOATTN_DRY:-}" = 1 ]; then
  export TRITON_INTERPRET=1
else
  export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/genoattn-triton}
  export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/genoattn-inductor}
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,memory.total --format=csv,noheader | tee "$OUT/device.txt"
fi
exec "$PYTHON" -m benchmarks.gpu check --out "$OUT"
