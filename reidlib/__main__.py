"""``python -m reidlib``."""

import sys

try:
    from reidlib.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}: {sys.executable} does not have what reidlib needs; in the project's "
             f"folder, {sys.executable} -m pip install -e '.[notebooks,test]' brings it")

sys.exit(main())
