"""The runs of a study: data -> training -> embeddings -> scores -> record; finds finished ones.

From the command line one run, in one process or in several on one or more machines:
accelerate launch -m reidlib.experiment --study pku-reid --preset improved --seed 0
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from torch import Tensor

from reidlib import repro
from reidlib.audit import check_scorable
from reidlib.composition import model_arguments, train
from reidlib.config import PRESETS, VARIANTS, TrainConfig, check_keys
from reidlib.drawing import SyntheticSpec
from reidlib.folds import deal
from reidlib.images import load_picture, open_images
from reidlib.manifest import Dataset, load_manifest, write_manifest
from reidlib.matching import RERANKING, cosine
from reidlib.models import LATransformer, save
from reidlib.paths import ROOT, Workspace
from reidlib.processes import is_main, make_accelerator, n_processes, wait_for_all
from reidlib.progress import say
from reidlib.protocols import PROTOCOLS
from reidlib.readers import locate, read_dataset
from reidlib.results import (
    RUN_FILES,
    percent,
    publish_run,
    read_run,
    read_study,
    write_csv,
    write_run,
    write_study,
)
from reidlib.retrieval import FLIPS, Embedded, Ranking, embed_people, rank_gallery
from reidlib.scoring import evaluate, true_positive_rates
from reidlib.studies import Study, load_study
from reidlib.synthetic import write_dataset

RULES = {"protocols": [asdict(protocol) for protocol in PROTOCOLS.values()],
         "reranking": dict(zip(("k1", "k2", "lambda"), RERANKING, strict=True))}
RERANKED_FLIPS = tuple(dict.fromkeys(v.flip for v in VARIANTS if v.reranked))


def _largest_gap(run: dict, other: dict) -> float:
    """The largest difference of mAP between two records of one configuration.

    An older record may lack a way of retrieval that today's has: what both have is compared.
    """
    both = pd.DataFrame(run["scores"]).merge(pd.DataFrame(other["scores"]),
                                             on=["protocol", "flip", "reranked"])
    return float((both["mAP_x"] - both["mAP_y"]).abs().max())


def _same_rules(record: dict) -> bool:
    """Was this run scored by today's protocols?"""
    return all(record.get(name) == rules for name, rules in RULES.items())


def prepare_study(study: Study, workspace: Workspace) -> Dataset:
    """Read (or draw) and check the study's data; write its manifest, then fix the study."""
    root = _drawn(study, workspace)
    if root:
        check_keys("parameter of the drawings", study.synthetic, SyntheticSpec)
        write_dataset(root, SyntheticSpec(**study.synthetic))
    dataset = read_dataset(study.dataset, root)
    if study.folds and study.fold is None:
        raise ValueError(f"study {study.name!r} is dealt to {study.folds} folds, each of which is "
                         f"a study: python -m reidlib.runs --study {study.name} runs them all")
    if study.folds:
        dealt = deal(dataset.manifest, study.folds, study.fold, study.people)
        dataset = replace(dataset, manifest=dealt)
    check_scorable(dataset.manifest)
    n_gallery = int(dataset.counts().loc["gallery", "images"])
    if not 0 < study.perplexity < n_gallery:
        raise ValueError(f"perplexity is {study.perplexity}; t-SNE of {n_gallery} gallery images "
                         "needs it above 0 and below their number")
    write_manifest(dataset.manifest, workspace.reports / "manifest.csv")
    write_study(replace(study, checksum=dataset.checksum), workspace)
    return dataset


def open_dataset(study: Study, workspace: Workspace) -> Dataset:
    """The data that 01_data checked; FileNotFoundError, naming it, where it has not."""
    manifest = load_manifest(workspace.reports / "manifest.csv")
    root = locate(study.dataset, _drawn(study, workspace))[1]
    if not root.is_dir():
        raise FileNotFoundError(f"no images at {root}: run notebook 01_data (or make report) for "
                                f"study {study.name!r} first")
    return Dataset(*locate(study.dataset, _drawn(study, workspace)), manifest)


def _drawn(study: Study, workspace: Workspace) -> Path | None:
    """Where a study's own drawings are; None for data from outside."""
    return workspace.artifacts / "data" if study.dataset == "synthetic" else None


class Experiment:
    """The runs of one study in one workspace: trained once, found again afterwards.

    ``tracker``: one of accelerate's, such as "tensorboard", to follow a training by; its files
    are in the run's folder below ``artifacts/``.
    """

    def __init__(self, workspace: Workspace, device: str = "auto", tracker: str | None = None):
        self.workspace = workspace
        self.study = read_study(workspace)
        self.dataset = open_dataset(self.study, workspace)
        self.device = repro.pick_device(device)
        self.tracker = tracker

    def run(self, preset: str, seed: int) -> dict:
        """The record of one run, trained now unless it is finished.

        Finished is one whose record and tables are among the reports, also where its weights are
        not here: ``embeddings`` and ``weights`` make them anew. Where several processes train it
        together, all call this and the main one writes.
        """
        config = self.study.config(preset, seed)
        folder, target = self._folder(config), self.workspace.runs / config.run_id
        published = self._published(config)
        trained = (folder / "run.json").is_file()
        wait_for_all()  # all have looked before one writes
        if published:
            if is_main():
                say(f"{config.run_id}: finished before, not trained again")
            return read_run(target)
        if not trained:
            self._train(config, folder)
        elif is_main() and not _same_rules(record := read_run(folder)):
            say(f"{config.run_id}: protocols have changed, saved embeddings scored again")
            self._score(config, folder, record["cost"])
        if is_main():
            publish_run(folder, target)
        wait_for_all()
        return read_run(target)

    def runs(self, presets: Iterable[str]) -> list[dict]:
        """Records of all presets in all seeds of the study, one after the other.

        Within ``joblib.parallel_config(n_jobs=...)`` as many at a time, in processes of their own;
        with ``backend="dask"`` or ``"ray"`` on a cluster that shares this workspace's folder.
        """
        self.decode()
        return joblib.Parallel()(joblib.delayed(self.run)(preset, seed) for preset in presets
                                 for seed in self.study.seeds)

    def decode(self) -> None:
        """Decode all images now, once, for runs that are about to start side by side."""
        for split in ("train", "query", "gallery"):
            self._images(split)

    def embeddings(self, preset: str, seed: int, notebook: str) -> tuple[Embedded, Embedded]:
        """Query and gallery embeddings of a finished run; else an error naming ``notebook``."""
        folder = self._with_weights(self.study.config(preset, seed), notebook)
        return tuple(Embedded.load(folder / f"{split}.npz") for split in ("query", "gallery"))

    def ranking(self, preset: str, seed: int, notebook: str, protocol: str = "standard",
                flip: str = "none") -> Ranking:
        """A finished run's gallery ranked for each query; see ``embeddings``."""
        return rank_gallery(*self.embeddings(preset, seed, notebook), protocol, flip)

    def pictures(self, paths: Iterable[str]) -> list[np.ndarray]:
        """Images as they are stored, uint8 (height, width, 3), for figures."""
        return [load_picture(self.dataset.root / path) for path in paths]

    def weights(self, preset: str, seed: int, notebook: str) -> Path:
        """The weights of a finished run, for ``reidlib.models.load``; else an error."""
        return self._with_weights(self.study.config(preset, seed), notebook) / "weights.safetensors"

    def _with_weights(self, config: TrainConfig, notebook: str) -> Path:
        """Folder of a finished run's weights and embeddings; made anew where its record alone is
        here. The published record stays as it is."""
        folder = self._folder(config)
        if not (folder / "run.json").is_file():
            if not self._published(config):
                raise FileNotFoundError(f"run {config.run_id} has no weights in {folder}: run "
                                        f"notebook {notebook} first")
            say(f"{config.run_id}: its record is here, its weights are not: trained again for them")
            self._train(config, folder)
            gap = _largest_gap(read_run(folder), read_run(self.workspace.runs / config.run_id))
            say(f"{config.run_id}: trained again, its mAP is within {percent(gap)} points of the "
                "record's, which stays")
        return folder

    def finished(self, preset: str, seed: int) -> bool:
        """Is this very run among the reports, whole and scored by today's rules?"""
        return self._published(self.study.config(preset, seed))

    def _published(self, config: TrainConfig) -> bool:
        target = self.workspace.runs / config.run_id
        if not all((target / name).is_file() for name in RUN_FILES):
            return False
        record = read_run(target)
        return (record["fingerprint"] == config.fingerprint(self.dataset.checksum)
                and _same_rules(record))

    def _folder(self, config: TrainConfig) -> Path:
        fingerprint = config.fingerprint(self.dataset.checksum)
        return self.workspace.artifacts / f"{config.run_id}-{fingerprint[:8]}"

    def _images(self, split: str) -> Tensor:
        size = self.study.config("baseline", 0).image_size
        cache = self.workspace.artifacts / "images" / f"{split}-{size}.npy"
        return open_images(self.dataset.root, self._split(split), size, cache)

    def _split(self, split: str) -> pd.DataFrame:
        return self.dataset.manifest[self.dataset.manifest["split"] == split]

    def _train(self, config: TrainConfig, folder: Path) -> None:
        checkpoint = folder / "checkpoint.pt"
        if is_main():
            self._images("train")  # made by one process, mapped by all
        wait_for_all()
        key = {"configuration": config.fingerprint(""), "data set": self.dataset.checksum}
        model, history = train(config, self._images("train"), self._split("train"), self.device,
                               checkpoint, key, self.tracker)
        if not is_main():
            return
        start = time.perf_counter()
        for split in ("query", "gallery"):
            self._embed(model, split, folder)
        cost = {"train_seconds": sum(row["seconds"] for row in history),
                "embed_seconds": time.perf_counter() - start, "processes": n_processes(),
                **repro.provenance(self.device)}
        save(model, folder / "weights.safetensors",
             *model_arguments(config, model.classifiers.classify.shape[2]))
        names = None if history else ["epoch", "loss", "accuracy", "images", "seconds"]
        write_csv(folder / "history.csv", pd.DataFrame(history, columns=names))
        self._score(config, folder, cost)
        checkpoint.unlink(missing_ok=True)

    def _score(self, config: TrainConfig, folder: Path, cost: dict) -> None:
        """Score a run's saved embeddings and write its record, which says that it is finished."""
        query, gallery = (Embedded.load(folder / f"{split}.npz") for split in ("query", "gallery"))
        cuda = self.device if self.device.type == "cuda" else None
        protocols = ("standard-all",) if self.study.folds else tuple(PROTOCOLS)
        scores, per_query, cmc = evaluate(query, gallery, protocols=protocols, device=cuda,
                                          reranked_flips=RERANKED_FLIPS)
        rates = [true_positive_rates(query, gallery, cosine(query, gallery, flip)).assign(flip=flip)
                 for flip in FLIPS]
        write_run(folder, {
            "run_id": config.run_id, "study": self.study.name, "preset": config.preset,
            "seed": config.seed, "config": asdict(config),
            "fingerprint": config.fingerprint(self.dataset.checksum),
            "data": {"name": self.dataset.name, "checksum": self.dataset.checksum,
                     "counts": self.dataset.counts().to_dict("index")},
            **RULES, "cost": cost,
            "scores": scores.astype(object).where(scores.notna(), None).to_dict("records"),
            "verification": pd.concat(rates).to_dict("records"),
        }, {"per_query": per_query, "cmc": cmc})

    def _embed(self, model: LATransformer, split: str, folder: Path) -> None:
        embedded = embed_people(model, self._images(split), self._split(split))
        embedded.save(folder / f"{split}.npz")


def _fixed_or_new(workspace: Workspace) -> Study:
    """The study as it was fixed for this workspace, else as its file says."""
    study, path = load_study(workspace.study), workspace.reports / "study.json"
    if not path.is_file():
        return study
    fixed = read_study(workspace)
    differing = [f"{name} {before} instead of {now}" for name, now, before in
                 ((f.name, getattr(study, f.name), getattr(fixed, f.name)) for f in fields(Study))
                 if name != "checksum" and now != before]
    if differing:
        say(f"{study.name} as {path} fixed it, not as its parameter file says: "
            f"{'; '.join(differing)}. Delete that file, or run 01_data, to take the new values")
    return fixed


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: one run of a study; its record is written by the main process."""
    parser = argparse.ArgumentParser(
        prog="python -m reidlib.experiment", description="Train and score one run. With "
        "`accelerate launch -m reidlib.experiment ...` several processes, on one or more machines, "
        "work on it together.")
    parser.add_argument("--study", required=True, help="a file of notebooks/params, without .yaml")
    parser.add_argument("--preset", required=True, help=", ".join(PRESETS) + ", or a candidate of "
                        "the study")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--tracker", help="follow the training, such as tensorboard "
                        "(pip install -e '.[tensorboard]')")
    parser.add_argument("--workspace", type=Path, default=ROOT, help="write reports/ and artifacts/"
                        " below this folder (default: this repository)")
    args = parser.parse_args(argv)
    workspace = Workspace(args.study, args.workspace.resolve())
    try:
        load_study(args.study).config(args.preset, args.seed)
        device = repro.pick_device(args.device)
        make_accelerator(device)  # joins the processes, where there are several
        if is_main():
            prepare_study(_fixed_or_new(workspace), workspace)
        wait_for_all()
        record = Experiment(workspace, args.device, args.tracker).run(args.preset, args.seed)
    except (ValueError, FileNotFoundError, FloatingPointError, MemoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells have it; training has said how to go on
    if is_main():
        score = record["scores"][0]
        say(f"{record['run_id']}: {score['protocol']} mAP {score['mAP']:.3f}, rank-1 "
            f"{score['rank1']:.3f}; record in {record['folder']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
