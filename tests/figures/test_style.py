"""One look for all figures; a figure and its data are saved completely or not at all."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from reidlib.experiments.study import load_study
from reidlib.figures import style
from reidlib.figures.curves import protocol_gap
from reidlib.figures.style import MODELS, save_figure
from reidlib.report import arms
from tests.figures.conftest import bars


def test_unknown_rows_get_looks_of_their_own():
    names = ["baseline", "larger backbone", "no flip"]
    assert len(set(style.looks(names).values())) == 3
    assert style.looks(names)["baseline"] == MODELS["baseline"]
    with pytest.raises(ValueError, match="row 29"):
        style.looks([f"row {i}" for i in range(30)])


def test_the_arms_of_a_report_have_looks_of_their_own():
    study = load_study("pku-reid-arms")
    names = {preset.rpartition("-")[0] for preset in study.all_presets} | {arms.FLIPPED}
    assert len(names) == 7 and len(set(style.looks(sorted(names)).values())) == 7


def test_the_style_ends_with_the_figure(scores):
    before = dict(matplotlib.rcParams)
    protocol_gap(scores)
    assert dict(matplotlib.rcParams) == before


def test_the_csv_beside_the_picture_holds_its_data(scores, tmp_path):
    path = save_figure(bars(scores), tmp_path / "new" / "ablation.png", scores)
    assert path.read_bytes().startswith(b"\x89PNG") and b"Software" not in path.read_bytes()
    read = pd.read_csv(path.with_suffix(".csv"))
    pd.testing.assert_frame_equal(read, scores, rtol=1e-15)


def test_the_same_data_gives_the_same_bytes(scores, tmp_path):
    first, second = (save_figure(bars(scores), tmp_path / f"{i}.png") for i in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert not first.with_suffix(".csv").exists()


@pytest.mark.parametrize("fails", ["picture", "data"])
def test_a_failing_save_leaves_the_old_files(scores, tmp_path, monkeypatch, fails):
    path = save_figure(protocol_gap(scores), tmp_path / "gap.png", scores)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert {p.name for p in before} == {"gap.png", "gap.csv"}
    owner, name = {"picture": (matplotlib.figure.Figure, "savefig"),
                   "data": (Path, "write_text")}[fails]

    def break_halfway(self, target, **kwargs):
        (self if fails == "data" else target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(owner, name, break_halfway)
    with pytest.raises(OSError, match="disk full"):
        save_figure(protocol_gap(scores), path, scores.iloc[:6])
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_only_png_is_saved(scores, tmp_path):
    with pytest.raises(ValueError, match="gap.pdf"):
        save_figure(protocol_gap(scores), tmp_path / "gap.pdf")
