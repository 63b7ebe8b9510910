"""Write the notebooks with the smoke parameters for nbval: ``-m tests.smoke_notebooks FOLDER``.

All in one process: papermill takes longer to import than to write them.
"""

import shutil
import sys
from pathlib import Path

import papermill

from reidlib.report.notebooks import NOTEBOOKS


def write(workspace: Path) -> None:
    """``workspace``, emptied, with ``notebooks/``; the study's runs will go there, too."""
    shutil.rmtree(workspace, ignore_errors=True)
    (workspace / "notebooks").mkdir(parents=True)
    for source in NOTEBOOKS:
        papermill.execute_notebook(str(source), str(workspace / "notebooks" / source.name),
                                   {"study": "smoke", "workspace": str(workspace)},
                                   prepare_only=True, progress_bar=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
