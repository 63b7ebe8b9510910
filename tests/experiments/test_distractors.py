"""Other people in the gallery: which images, embedded how, and what they cost."""

import numpy as np
import pytest

from reidlib import cli
from reidlib.data.datasets import origin
from reidlib.data.images import read_images
from reidlib.evaluation.embeddings import Embeddings, embed
from reidlib.experiments import distractors
from reidlib.experiments.prepare import prepare_study
from reidlib.utils.paths import Workspace


def test_scores_with_distractors_by_hand(make_embeddings):
    """A distractor between query and match costs it half of its precision."""
    test = make_embeddings([0, 20], ["a", "a"], ["1", "2"])
    others = make_embeddings([10, 90], ["x", "y"], ["1", "1"], sha256=["x", "y"])
    nobody = test.take(np.array([], dtype=int))
    table = distractors.score(test, Embeddings(**vars(nobody)), others, "none")
    assert table.groupby("distractors")["AP"].mean().tolist() == [1.0, 0.5]


@pytest.mark.parametrize("name, others, people", [
    ("cuhk03-np", "cuhk03-np-detected", "cuhk03"), ("market1501", "market1501-dev", "market1501"),
    ("cuhk03-np-pair1", "cuhk03-np", "cuhk03")])
def test_versions_of_a_data_set_show_the_same_people(name, others, people):
    assert origin(name) == origin(others) == people
    assert origin("images") == origin("synthetic") == "" != origin("pku-reid")


def test_distractors_are_training_images_block_by_block(tmp_path, monkeypatch, make_model, study):
    drawn = prepare_study(study, Workspace("smoke", tmp_path))
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    drawn.root.rename(tmp_path / "mine")
    drawn.manifest.to_csv(tmp_path / "mine" / "mine.csv", index=False)
    people = distractors.distractor_images("mine/mine.csv")
    train = drawn.manifest[drawn.manifest["split"] == "train"]
    assert people.manifest["path"].tolist() == train["path"].tolist()
    assert people.manifest["id"].tolist() == [f"mine {i}" for i in train["id"]]
    model = make_model().eval()
    monkeypatch.setattr(distractors, "BLOCK", 40)  # 48 images: the last block is short
    found = distractors.embed_distractors(model, people, "distractors")
    images = read_images([people.root / path for path in train["path"]], 32)
    np.testing.assert_allclose(found.emb, embed(model, images)[0], atol=1e-5)
    assert found.paths.tolist() == train["path"].tolist()


def test_distractors_command_names_what_is_missing(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    arguments = ["distractors", "--study", "smoke", "--device", "cpu", "--workspace",
                 str(lab.workspace.root)]
    assert cli.main(arguments) == 1
    assert "market1501" in capsys.readouterr().err
    assert cli.main(["distractors", "--study", "smok"]) == 1
    assert "unknown study 'smok'" in capsys.readouterr().err
