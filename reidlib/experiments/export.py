"""Trained models to take away: safetensors and a model card, from finished runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import timm

from reidlib.data.datasets import CUHK03
from reidlib.evaluation.protocols import SHOWN
from reidlib.experiments.records import device_name, read_run
from reidlib.experiments.runner import Experiment
from reidlib.utils.paths import Workspace, atomic_write, write_text
from reidlib.utils.text import percent, render

TERMS = {
    "synthetic": "drawn by this project: no terms",
    "pku-reid": "PKU-Reid, CC BY-NC-SA 4.0 (Ma, Liu, Hu, Wang, Sun): not commercial, share alike",
    "market1501": "Market-1501, for research (Zheng et al., ICCV 2015)",
    **dict.fromkeys(CUHK03, "CUHK03, for research (Li et al., CVPR 2014; split: Zhong et al., "
                            "CVPR 2017)"),
}
CARD = Path(__file__).with_name("model_card.md.j2")


def export(lab: Experiment, preset: str, seed: int) -> Path:
    """Copy a run's weights to ``artifacts/<study>/weights/`` and write its card next to them.

    The run is trained now if it is not finished. Returns the path of the weights.
    """
    lab.run(preset, seed)
    lab.train_missing_weights([preset], seed)
    lab.model(preset, seed)  # can it be loaded?
    source = lab.weights(preset, seed)
    target = lab.workspace.artifacts / "weights" / f"{preset}.safetensors"
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)
    write_text(target.with_suffix(".md"), card(read_run(source.parent)))
    return target


def card(record: dict) -> str:
    """What a person who finds the weights has to know."""
    config, scores = record["config"], pd.DataFrame(record["scores"])
    shown = scores[scores["protocol"].isin(SHOWN) & ~scores["reranked"]]
    table = pd.DataFrame({"protocol": shown["protocol"], "flip": shown["flip"],
                          "mAP": shown["mAP"].map(percent), "rank-1": shown["rank1"].map(percent)})
    backbone = "from scratch"
    if config["pretrained"]:
        known = timm.get_pretrained_cfg(config["backbone"])
        backbone = f"timm weights, {known and known.license or 'licence not stated'}"
    name = record["data"]["name"].removesuffix("-dev")
    parameters = pd.DataFrame({"parameter": config.keys(), "value": map(str, config.values())})
    return render(CARD, record=record, scores=table, parameters=parameters, backbone=backbone,
                  terms=TERMS.get(name, "those of its owner"), device=device_name(record))


def export_all(workspace: Workspace, device: str = "auto") -> Iterator[Path]:
    """Export the models of a study's first seed that are compared everywhere, one by one."""
    lab = Experiment(workspace, device)
    for model in lab.compared():
        yield export(lab, model.preset, lab.study.seeds[0])
