"""Audit a tokenizer: `python scripts/tokenizer.py tokenizer=kmer tokenizer.k=6`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["tokenizer", *sys.argv[1:]]))
