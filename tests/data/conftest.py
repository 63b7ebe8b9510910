import pandas as pd
import pytest

from reidlib.data.manifest import LISTING
from tests.data.made_up import ROWS, draw


@pytest.fixture
def own(tmp_path):
    """Four images, and a function that writes their CSV: ``own(path=[...])`` replaces a column."""
    for seed, (name, *_) in enumerate(ROWS):
        draw(tmp_path / name, seed)

    def write(rows=ROWS, **columns):
        table = pd.DataFrame(rows, columns=LISTING).assign(**columns)
        table.to_csv(tmp_path / "people.csv", index=False)
        return tmp_path / "people.csv"
    return write


@pytest.fixture
def pku(tmp_path):
    root = tmp_path / "pku"
    for seed, name in enumerate(["train/007/01_1.png", "train/003/02_8.png",
                                 "val/query/001/01_1.png", "val/gallery/001/02_3.png"]):
        draw(root / name, seed)
    return root
