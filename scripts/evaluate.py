"""Report how good a checkpoint is: `python scripts/evaluate.py checkpoint=…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
