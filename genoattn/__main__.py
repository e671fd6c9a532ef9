"""`python -m genoattn train attention=linear` is `genoattn train attention=linear`."""

import sys

from genoattn.cli.main import main

sys.exit(main())
