"""The systems of Table 1 through studies: the same loop, records, scorer and files as ours."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from reidlib.evaluation.embeddings import embed, embed_people
from reidlib.evaluation.scoring import evaluate
from reidlib.experiments.batch import run_all
from reidlib.experiments.records import check_scores, read_tables
from reidlib.experiments.runner import Experiment
from reidlib.losses import aligned_distance
from reidlib.models.aligned_reid import AlignedReID
from reidlib.models.deep_cosine import DeepCosine
from reidlib.models.transreid import TransReID
from reidlib.utils.paths import Workspace

SMALL = {"epochs": 1, "batch_size": 16, "warmup_epochs": None}
VIT = {**SMALL, "image_size": [64, 32],
       "backbone_args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}
CANDIDATES = {
    "cameras": {**VIT, "preset": "transreid", "stride": 4, "pad": 2},
    "no-cameras": {**VIT, "preset": "transreid-no-cameras", "stride": None},
    "aligned": {**VIT, "preset": "aligned-reid"},
    "cosine": {**SMALL, "preset": "deep-cosine", "scale_lr": 0.1},
    "rectangle": {**VIT, "preset": "improved", "schedule": "end-to-end"},
}
TERMS = {"cameras": {"identity", "triplet"}, "no-cameras": {"identity", "triplet"},
         "aligned": {"identity", "triplet", "local"}, "cosine": {"identity", "scale"},
         "rectangle": {"identity", "triplet"}}


@pytest.fixture(scope="module")
def systems(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("systems")
    train = {"pretrained": False, "backbone": "vit_tiny_patch16_224"}
    ours = replace(study, name="systems", train=train, presets=(), candidates=CANDIDATES,
                   protocols=("standard", "lat-top10"), flips=("none",))
    run_all(ours, root, "cpu")
    return Experiment(Workspace("systems", root), "cpu")


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_system_leaves_what_every_run_leaves(systems, name):
    record = systems.run(name, 0)
    check_scores(record)
    assert {(s["protocol"], s["flip"], s["reranked"]) for s in record["scores"]} == {
        ("standard", "none", False), ("lat-top10", "none", False)}
    history = read_tables([record], "history")
    assert len(history) == 1 and TERMS[name] <= set(history)
    assert history["loss"][0] == pytest.approx(history[list(TERMS[name])].sum(axis=1)[0], rel=1e-4)


@pytest.mark.parametrize("name, kind", [("cameras", TransReID), ("no-cameras", TransReID),
                                        ("aligned", AlignedReID), ("cosine", DeepCosine)])
def test_its_weights_give_its_embeddings(systems, name, kind):
    model, rows = systems.model(name, 0), systems._split("query")
    assert isinstance(model, kind)
    images = systems._images("query", model.image_size)
    np.testing.assert_allclose(embed_people(model, images, rows).emb,
                               systems.embeddings(name, 0)[0].emb, atol=1e-5)


def test_cameras_are_an_input_and_unknown_ones_get_the_mean(systems, capsys):
    model, rows = systems.model("cameras", 0), systems._split("query")
    images = systems._images("query", model.image_size)
    assert model.cameras == tuple(sorted(systems._split("train")["cam"].unique()))
    other = rows.assign(cam=rows["cam"].map(lambda cam: model.cameras[cam == model.cameras[0]]))
    known, swapped = (embed_people(model, images, r).emb for r in (rows, other))
    assert np.abs(known - swapped).max() > 1e-6
    mean = embed_people(model, images, rows.assign(cam="c99")).emb
    assert "training never saw camera c99" in capsys.readouterr().out
    unknown = torch.full((len(rows),), -1)
    np.testing.assert_array_equal(mean, embed(model, images, cams=unknown)[0])
    assert systems.model("no-cameras", 0).cameras == ()


def test_aligned_reid_is_scored_by_both_distances(systems):
    record = systems.run("aligned", 0)
    local = [s for s in record["scores"] if s["local"]]
    assert len(local) == 2 and len(record["scores"]) == 4
    query, gallery = systems.embeddings("aligned", 0)
    folder = systems.weights("aligned", 0).parent
    stripes = [torch.from_numpy(np.load(folder / f"{split}-stripes.npy").astype(np.float32))
               for split in ("query", "gallery")]
    both = (torch.cdist(*(torch.from_numpy(side.emb) for side in (query, gallery)))
            + aligned_distance(*stripes)).numpy()
    # by hand: the standard rule's average precision of every query
    found = []
    for i, line in enumerate(both):
        counts = (query.ids[i] != gallery.ids) | (query.cams[i] != gallery.cams)
        right = (gallery.ids == query.ids[i])[counts][np.argsort(line[counts], kind="stable")]
        if right.any():
            hits = np.flatnonzero(right) + 1
            found.append(np.mean(np.arange(1, len(hits) + 1) / hits))
    standard, = (s for s in local if s["protocol"] == "standard")
    assert standard["mAP"] == pytest.approx(np.mean(found), abs=1e-6)
    curves = pd.concat([evaluate(query, gallery, ("none",), ("standard",), ())[0]])
    usual, = (s for s in record["scores"] if not s["local"] and s["protocol"] == "standard")
    assert usual["mAP"] == curves["mAP"].iloc[0] and usual["mAP"] != standard["mAP"]
