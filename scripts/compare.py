"""Compare attention layers: `python scripts/compare.py layers=[full,window,linear] task=paired`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
