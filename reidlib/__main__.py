"""``python -m reidlib``."""

import sys

from reidlib.cli import main

sys.exit(main())
