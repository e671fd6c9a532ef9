"""Score every mutant of a region: `python scripts/scan.py checkpoint=… fasta=… region=chr1:1000-2000 out=…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["scan", *sys.argv[1:]]))
