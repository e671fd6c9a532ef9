"""Score the variants of a VCF: `python scripts/score.py checkpoint=… fasta=… vcf=… out=…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
