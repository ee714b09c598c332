"""`python -m regen_hf.cli` is `regen`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
