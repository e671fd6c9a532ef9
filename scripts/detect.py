"""Call the mutations between two assemblies: `python scripts/detect.py checkpoint=… reference=… sample=… out=…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["detect", *sys.argv[1:]]))
