"""Put the laws to an attention layer: `python scripts/doctor.py attention=window`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
