"""``python -m reidlib``."""

import sys

from reidlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
