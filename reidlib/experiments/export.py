"""Trained models to take away: safetensors and a model card, from finished runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import timm

from reidlib.experiments.presets import COMPARED
from reidlib.experiments.records import device_name, read_run
from reidlib.experiments.runner import Experiment
from reidlib.report.statements import setting_of
from reidlib.report.tables import SHOWN
from reidlib.utils.paths import Workspace, atomic_write, write_text
from reidlib.utils.text import percent, to_markdown

TERMS = {
    "synthetic": "drawn by this project: no terms",
    "pku-reid": "PKU-Reid, CC BY-NC-SA 4.0 (Ma, Liu, Hu, Wang, Sun): not commercial, share alike",
    "market1501": "Market-1501, for research (Zheng et al., ICCV 2015)",
}
PURPOSE = ("Made to reproduce a paper on public test data. Not for tracking, singling out or "
           "profiling anybody; a score here says nothing about other cameras and people.")


def export(lab: Experiment, preset: str, seed: int) -> Path:
    """Copy a run's weights to ``artifacts/<study>/weights/`` and write its card beside them.

    The run is trained now if it is not finished. Returns the path of the weights.
    """
    lab.run(preset, seed)
    lab.train_missing_weights([preset], seed)
    source = lab.weights(preset, seed)
    target = lab.workspace.artifacts / "weights" / f"{preset}.safetensors"
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)
    write_text(target.with_suffix(".md"), card(read_run(source.parent)))
    return target


def card(record: dict) -> str:
    """What somebody who finds the weights has to know."""
    config, data, scores = record["config"], record["data"], pd.DataFrame(record["scores"])
    shown = scores[scores["protocol"].isin(SHOWN) & ~scores["reranked"]]
    table = pd.DataFrame({"protocol": shown["protocol"], "flip": shown["flip"],
                          "mAP": shown["mAP"].map(percent), "rank-1": shown["rank1"].map(percent)})
    licence = timm.get_pretrained_cfg(config["backbone"]).license if config["pretrained"] else None
    name = data["name"].removesuffix("-dev")
    return "\n\n".join([
        f"# {record['preset']}, seed {record['seed']}, trained on {data['name']}",
        f"LA-Transformer on {config['backbone']}, {config['image_size']} pixels, for person "
        f"re-identification. {PURPOSE}",
        "```python\nfrom reidlib import models\n\n"
        f'model = models.load("{record["preset"]}.safetensors")\n```',
        "## Scores", f"{setting_of(record)} Percent; rules: the project's README.",
        to_markdown(table),
        "## Training", f"On {device_name(record)}, {record['cost']['train_seconds'] / 60:.0f} "
        f"minutes, commit {record['cost']['commit']}. Parameters:",
        to_markdown(pd.DataFrame({"parameter": config.keys(),
                                  "value": map(str, config.values())})),
        "## Terms", f"- Data: {TERMS.get(name, 'those of its owner')}. Checksum "
        f"`{data['checksum'][:16]}`.\n- Backbone: "
        f"{f'timm weights, {licence}' if licence else 'from scratch'}.\n- Code: MIT."]) + "\n"


def export_all(workspace: Workspace, device: str = "auto") -> Iterator[Path]:
    """Export the models of a study's first seed that are compared everywhere, one by one."""
    lab = Experiment(workspace, device)
    for model in COMPARED:
        if model.preset in lab.study.all_presets:
            yield export(lab, model.preset, lab.study.seeds[0])
