"""Compile the kernels and print what the compiler says of them: `python scripts/kernels.py family=sm_90`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["kernels", *sys.argv[1:]]))
