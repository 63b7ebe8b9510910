"""Trained models to take away, with a card that says where they come from."""

from dataclasses import replace

import numpy as np
import pytest

from reidlib import cli
from reidlib.evaluation.embeddings import embed
from reidlib.experiments import export
from reidlib.models import files


def test_exported_weights_and_their_card(lab, capsys):
    assert cli.main(["export", "--study", "smoke", "--device", "cpu",
                         "--workspace", str(lab.workspace.root)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "card next to it" in line]
    folder = lab.workspace.artifacts / "weights"
    assert len(said) == 3 and sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{kind}" for name in ("baseline", "best", "improved")
        for kind in ("md", "safetensors")]
    card, record = (folder / "improved.md").read_text(), lab.run("improved", 0)
    score = next(s for s in record["scores"] if s["protocol"] == "standard")
    assert f"| standard | none | {100 * score['mAP']:.1f} |" in card
    assert "drawn by this project" in card and "from scratch" in card and "y_pooling | True" in card
    query, _ = lab.embeddings("improved", 0)
    model = files.load(folder / "improved.safetensors")
    assert model.trained_on == "synthetic"  # `reidlib rank` says so
    images = lab._images("query", model.image_size)
    np.testing.assert_array_equal(embed(model, images)[0], query.emb)
    pretrained = {**record["config"], "pretrained": True,
                  "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k"}
    card = export.card({**record, "config": pretrained,
                         "data": {**record["data"], "name": "market1501-dev"}})
    assert "timm weights, apache-2.0" in card and "Market-1501, for research" in card
    unlisted = {**pretrained, "backbone": "vit_base_patch16_224.bamboo"}
    assert "Backbone: timm weights, licence not stated." in export.card(
        {**record, "config": unlisted})


def test_a_study_without_models_to_take_away_says_so(lab, tmp_path, capsys, monkeypatch):
    """In folds, each of which has weights of its own; and of candidates alone."""
    for command in ("export", "distractors"):
        assert cli.main([command, "--study", "pku-reid-folds", "--workspace", str(tmp_path)]) == 1
        assert "'pku-reid-folds' has 6 folds, each with data and runs" in capsys.readouterr().err
    candidates = replace(lab.study, presets=(), candidates={"quick": {"epochs": 1}})
    monkeypatch.setattr(lab, "study", candidates)
    with pytest.raises(ValueError, match="study 'smoke' runs none of baseline, improved, best"):
        lab.compared()


def test_damaged_weights_are_not_taken_away(copied, capsys):
    path = copied.weights("baseline", 0)
    path.write_bytes(path.read_bytes()[:2000])
    target = copied.workspace.artifacts / "weights" / "baseline.safetensors"
    target.unlink(missing_ok=True)  # of the test above
    assert cli.main(["export", "--study", "smoke", "--device", "cpu",
                     "--workspace", str(copied.workspace.root)]) == 1
    said = capsys.readouterr().err
    assert str(path) in said and f"Delete {path.parent}: then the run is trained again" in said
    assert not target.exists()
