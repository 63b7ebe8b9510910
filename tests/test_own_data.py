"""A user's own images, from the CSV to the report: the README's section, in a copy of the project.

The notebooks' asserts run too: one that holds on drawn people alone would stop the report.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from reidlib.data.datasets import read_dataset
from reidlib.data.synthetic.dataset import write_dataset
from reidlib.data.synthetic.spec import SyntheticSpec
from reidlib.utils.paths import ROOT

PEOPLE = {"001": "anna", "002": "ben", "003": "007", "004": "NA", "005": "eve, B.", "006": "zoë"}
CAMS = {"01": "front door", "02": "hall"}
STUDY = """
dataset: mine/images.csv
seeds: [1, 4]
presets: [untrained, baseline, ypool, amtriplet, improved]
perplexity: 3.0
train:
  backbone: vit_tiny_patch16_224
  backbone_args: {patch_size: 16, embed_dim: 32, depth: 1, num_heads: 2}
  pretrained: false
  image_size: 32
  schedule: end-to-end
  epochs: 1
candidates:
  circle: {images_per_identity: 4, loss: {function: mylosses.circle, weight: 0.1}}
"""
LOSSES = """
from pytorch_metric_learning.losses import CircleLoss

metric = CircleLoss()


def circle(logits, embedding, ids):
    return metric(embedding, ids)
"""


def own_images(folder: Path) -> None:
    """``images.csv`` and its pictures. Ben has one picture; Zoë's gallery is all of one camera."""
    spec = SyntheticSpec(train_ids=3, test_ids=3, n_query=6, n_query_copies=0, orientations=3)
    drawn = read_dataset("synthetic", write_dataset(folder / "images", spec))
    table = drawn.manifest[["path", "id", "cam", "split"]]
    table = table.assign(path="images/" + table["path"], id=table["id"].map(PEOPLE),
                         cam=table["cam"].map(CAMS))
    again = (table["id"] == "ben") & table["id"].duplicated()
    of_zoe, asked = table["id"] == "zoë", table["split"] == "query"
    elsewhere = of_zoe & ~asked & (table["cam"] != table[of_zoe & asked]["cam"].iloc[0])
    table[~again & ~elsewhere].to_csv(folder / "images.csv", index=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project with a study ``mine``, after ``reidlib report --study mine``."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("reidlib", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data" / "mine").mkdir(parents=True)
    own_images(root / "data" / "mine")
    (root / "notebooks" / "params" / "mine.yaml").write_text(STUDY)
    (root / "notebooks" / "params" / "mylosses.py").write_text(LOSSES)
    variables = {name: value for name, value in os.environ.items()
                 if name not in ("REIDLIB_DATA", "REIDLIB_WEIGHTS")}
    # one run at a time: a worker takes longer to start than a run to train
    done = subprocess.run(
        [sys.executable, "-m", "reidlib", "report", "--study", "mine", "--jobs", "1"], cwd=root,
        env={**variables, "PYTHONPATH": str(root)}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def test_the_report_is_about_his_people(clone):
    text = (clone / "reports" / "mine" / "report.md").read_text()
    assert "# Report: study `mine`" in text and "Scores under `standard` or" in text
    assert "make report STUDY=mine EPOCHS=1 SEEDS=1,4" in text
    assert re.search(r"^\| \+ flipped query \| .* ± .* \|$", text, re.M)
    page = (clone / "reports" / "mine" / "report.html").read_text()
    assert "<title>reidlib report: mine</title>" in page
    assert "What to believe?" in page and "data:image/png;base64" in page


def test_his_candidate_with_his_own_loss_is_a_row_of_it(clone):
    text = (clone / "reports" / "mine" / "report.md").read_text()
    assert "- `circle`: loss + 0.1 x mylosses.circle, images_per_identity 4\n" in text
    assert re.search(r"^\| circle \| baseline \| standard \| .* ± .* \|$", text, re.M)
    assert (clone / "reports" / "mine" / "tables" / "candidates.csv").is_file()
    history = pd.read_csv(clone / "reports" / "mine" / "runs/circle-s1/history.csv")
    assert (history["circle"] > 0).all()


def test_nothing_in_it_is_about_the_papers_people(clone):
    """The paper's model is there; its numbers, its images and ``best``, ours for them, are not."""
    folder = clone / "reports" / "mine"
    ablations = (folder / "executed" / "04_ablations.ipynb").read_text()
    for text in ((folder / "report.md").read_text(), (folder / "report.html").read_text(),
                 ablations.partition('"outputs"')[2]):
        assert not re.search(r"paper (mAP|rank-1)|published( |<|$)\b|[Pp][Kk][Uu]-?[Rr]eid", text)
        assert "paper's score" not in text and "| paper |" not in text
    assert not re.search(r"`best`|\| best", (folder / "report.md").read_text())
    assert not [*folder.glob("runs/best-*")]


def test_his_names_are_in_the_tables_as_he_wrote_them(clone):
    folder = clone / "reports" / "mine"
    given = pd.read_csv(clone / "data" / "mine" / "images.csv", dtype=str, na_filter=False)
    queries = pd.read_csv(folder / "runs/improved-s4/per_query.csv", dtype=str, na_filter=False)
    worst = pd.read_csv(folder / "tables" / "worst.csv", dtype=str, na_filter=False)
    asked = queries[(queries["protocol"] == "standard") & (queries["flip"] == "query")
                    & (queries["reranked"] == "False")]
    assert set(asked["id"]) == {"NA", "eve, B.", "zoë"} and set(worst["id"]) <= set(asked["id"])
    assert set(queries["path"]) <= set(given["path"]) and set(queries["cam"]) == {*CAMS.values()}
    unseen = asked[asked["AP"] == ""]  # no other camera has Zoë in the gallery
    assert set(unseen["id"]) == {"zoë"}
    assert (folder / "figures" / "people" / "sample.png").is_file()  # where git does not look
    assert not (folder / "figures" / "sample.png").exists()
