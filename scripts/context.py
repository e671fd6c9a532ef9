"""Tell how far a saved model sees: `python scripts/context.py checkpoint=runs/train/…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["context", *sys.argv[1:]]))
