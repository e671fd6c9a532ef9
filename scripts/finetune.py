"""Fine-tune a saved model: `python scripts/finetune.py checkpoint=runs/train/…`."""

import sys

from genoattn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
