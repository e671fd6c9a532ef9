#!/usr/bin/env bash
# Collects into .wheels/ what a machine with torch, triton, lightning and numpy lacks for the check (about 10 MB), for
# Python 3.12 on x86-64 Linux, in the versions of requirements-dev.lock: bash benchmarks/gpu/wheels.sh [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
NAMES=${*:-omegaconf hydra-core biopython pysam beartype pydantic pydantic-core annotated-types typing-inspection}
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any)
mkdir -p .wheels
for name in $NAMES; do
  version=$(grep -im1 "^${name}==" requirements-dev.lock | sed 's/[ ;\\].*//')
  "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 \
    --abi abi3 --abi none "${platforms[@]}" --dest .wheels "$version"
done
# Only its source is published.
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir .wheels "$(grep -m1 '^antlr4-python3-runtime==' requirements-dev.lock | sed 's/[ ;\\].*//')"
du -sh .wheels
