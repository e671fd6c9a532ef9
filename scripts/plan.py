"""Say what a training run would cost before it runs: `python scripts/plan.py attention=full data.length=8192`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
