"""Train a mutation detector: `python scripts/train.py attention=linear`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
