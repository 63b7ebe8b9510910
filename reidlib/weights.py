"""Trained models to take away: safetensors and a model card, from finished runs."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import timm

from reidlib.config import MODELS
from reidlib.experiment import Experiment
from reidlib.paths import ROOT, Workspace, whole_file, write_text
from reidlib.progress import say
from reidlib.results import percent, read_run, to_markdown
from reidlib.studies import load_study
from reidlib.tables import SHOWN, device_name
from reidlib.verdicts import setting_of

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
    source = lab.weights(preset, seed, "01_data")
    target = lab.workspace.artifacts / "weights" / f"{preset}.safetensors"
    with whole_file(target) as partial:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the models of a study's first seed."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.weights", description=__doc__)
    parser.add_argument("--study", default="synthetic", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, default=ROOT, help="default: this repository")
    args = parser.parse_args(argv)
    try:
        load_study(args.study)
        lab = Experiment(Workspace(args.study, args.workspace.resolve()), args.device)
        for model in MODELS:
            say(f"{export(lab, model.preset, lab.study.seeds[0])} and its card beside it")
    except (ValueError, FileNotFoundError, FloatingPointError, MemoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
