"""The runs of a study: data -> training -> embeddings -> scores -> record; finds finished ones."""

import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from torch import Tensor

from reidlib.data.images import Size, load_picture, open_images, size_text
from reidlib.evaluation.embeddings import Embeddings, embed_people
from reidlib.evaluation.ranking import Ranking, rank_gallery
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.prepare import open_dataset, prepare_study, saved_or_new
from reidlib.experiments.presets import COMPARED, ResultRow
from reidlib.experiments.records import (
    RUN_FILES,
    check_scores,
    device_name,
    largest_gap,
    maker,
    publish_run,
    read_run,
)
from reidlib.experiments.scores import (
    damaged,
    embeddings_in,
    lacking,
    same_rules,
    save_stripes,
    score_run,
)
from reidlib.experiments.study import load_study, read_study
from reidlib.experiments.train import backbone_hash, check_backbone, describe_model, train
from reidlib.models.aligned_reid import AlignedReID
from reidlib.models.base import ReidModel
from reidlib.models.files import load, save
from reidlib.utils import reproducibility
from reidlib.utils.console import log
from reidlib.utils.distributed import is_main, join_processes, n_processes, wait_for_all
from reidlib.utils.paths import ROOT, Workspace, write_csv
from reidlib.utils.text import percent


def _is_complete(folder: Path) -> bool:
    """Are a run's record, weights and embeddings here?"""
    return all((folder / name).is_file() for name in
               ("run.json", "weights.safetensors", "query.npz", "gallery.npz"))


class Experiment:
    """The runs of one study in one workspace: trained once, found again afterwards.

    ``tracker``: one of accelerate's, such as "tensorboard", to follow a training by; its files
    are in the run's folder below ``artifacts/``.
    """

    def __init__(self, workspace: Workspace, device: str = "auto", tracker: str | None = None):
        self.workspace = workspace
        self.study = read_study(workspace)
        self.dataset = open_dataset(self.study, workspace)
        self.device = reproducibility.pick_device(device)
        self.tracker = tracker

    def run(self, preset: str, seed: int) -> dict:
        """The record of one run, trained now unless it is finished.

        Finished is one whose record and tables are among the reports, also where its weights are
        not here: ``train_missing_weights`` makes those. Where several processes train it
        together, all call this and the main one writes.
        """
        config = self.study.config(preset, seed)
        folder, target = self._folder(config), self.workspace.runs / config.run_id
        published = record = self._published(config)
        if _is_complete(folder) and (not published or lacking(published, self.study)):
            published, record = None, read_run(folder)
        if record:
            check_backbone(config, record)
        wait_for_all()  # all have looked before one writes
        if published:
            check_scores(record)
            if is_main():
                lacks = ", ".join(lacking(record, self.study))
                log(f"{config.run_id}: finished before, not trained again"
                    + f" (no scores with {lacks})" * bool(lacks))
            return record
        if not record:
            self._train(config, folder)
        elif is_main() and (not same_rules(record) or lacking(record, self.study)):
            log(f"{config.run_id}: protocols or flips have changed, saved embeddings scored "
                "again")
            self._score(config, folder, record["cost"])
        if is_main():
            publish_run(folder, target)
        wait_for_all()
        return read_run(target)

    def train_all(self, presets: Iterable[str], jobs: int | None = None) -> list[dict]:
        """Records of all presets in all seeds of the study, each trained now unless it is finished.

        ``jobs`` at a time, in processes of their own; None: one after the other, or as
        ``joblib.parallel_config`` says, which with ``backend="dask"`` or ``"ray"`` takes a cluster
        that shares this workspace's folder.
        """
        self.decode()
        return run_parallel((joblib.delayed(self.run)(preset, seed) for preset in presets
                             for seed in self.study.seeds), jobs)

    def decode(self) -> None:
        """Decode all images now, once, before several runs start at a time."""
        configs = [self.study.config(preset, 0) for preset in self.study.all_presets]
        for size in dict.fromkeys(config.image_size for config in configs):
            for split in ("train", "query", "gallery"):
                self._images(split, size)

    def embeddings(self, preset: str, seed: int) -> tuple[Embeddings, Embeddings]:
        """Query and gallery embeddings of a finished run; see ``weights`` for errors."""
        return embeddings_in(self._saved(preset, seed))

    def ranking(self, preset: str, seed: int, protocol: str = "standard", flip: str = "none"
                ) -> Ranking:
        """A finished run's gallery ranked for each query; see ``weights`` for errors."""
        return rank_gallery(*self.embeddings(preset, seed), protocol, flip)

    def pictures(self, paths: Iterable[str]) -> list[np.ndarray]:
        """Images as they are stored, uint8 (height, width, 3), for figures."""
        return [load_picture(self.dataset.root / path) for path in paths]

    def weights(self, preset: str, seed: int) -> Path:
        """The weights of a finished run, for ``reidlib.models.files.load``.

        Raises:
            FileNotFoundError: the run is not finished (names what to run), or its record alone is
                here (``train_missing_weights`` makes the rest).
        """
        return self._saved(preset, seed) / "weights.safetensors"

    def model(self, preset: str, seed: int) -> ReidModel:
        """A finished run's model, ready to embed; ValueError where its weights are damaged."""
        with damaged(self._saved(preset, seed)):
            return load(self.weights(preset, seed))

    def _saved(self, preset: str, seed: int) -> Path:
        """Folder of a finished run's weights and embeddings."""
        config = self.study.config(preset, seed)
        folder = self._folder(config)
        if not _is_complete(folder):
            cure = ("its record is here, its weights are not: train_missing_weights makes them"
                    if self.finished(preset, seed) else
                    f"run {maker(self.study, preset, seed)} first")
            raise FileNotFoundError(f"run {config.run_id} has no weights in {folder}: {cure}")
        return folder

    def train_missing_weights(self, presets: Iterable[str], seed: int) -> list[dict]:
        """Train finished runs again of which only the record is here; the record stays as it is.

        Does nothing for a run that is not finished at all, or has its weights.

        Returns the records of the weights that are here now. Another processor rounds otherwise,
        so where a run was trained again they are not quite what the reports say.
        """
        records = []
        for preset in presets:
            config = self.study.config(preset, seed)
            folder = self._folder(config)
            record = None if _is_complete(folder) else self._published(config)
            wait_for_all()  # all have looked before one writes
            if record:
                self._train_again(config, folder, record)
            if _is_complete(folder):
                records.append(read_run(folder))
        return records

    def _train_again(self, config: TrainConfig, folder: Path, record: dict) -> None:
        check_backbone(config, record)
        log(f"{config.run_id}: its record is here, its weights are not: trained again for them")
        self._train(config, folder)
        wait_for_all()
        own = read_run(folder)
        there, here = device_name(record), device_name(own)
        why = f". It was made on {there};\n    on {here} results can differ" * (there != here)
        log(f"{config.run_id}: trained again, its mAP is within "
            f"{percent(largest_gap(own, record))} points of the record's under each protocol that "
            f"both have;\n    the record stays{why}")

    def compared(self) -> list[ResultRow]:
        """The models that are compared everywhere; ValueError where the study runs none of them."""
        rows = [row for row in COMPARED if row.preset in self.study.all_presets]
        if not rows:
            raise ValueError(f"study {self.study.name!r} runs none of "
                             f"{', '.join(row.preset for row in COMPARED)}; take one that does")
        return rows

    def finished(self, preset: str, seed: int) -> bool:
        """Is this very run among the reports, complete and scored by today's rules?"""
        return self._published(self.study.config(preset, seed)) is not None

    def _published(self, config: TrainConfig) -> dict | None:
        """The record of such a run, None without one."""
        target = self.workspace.runs / config.run_id
        if not all((target / name).is_file() and (target / name).stat().st_size
                   for name in RUN_FILES):
            return None
        record = read_run(target)
        same = record["fingerprint"] == self._fingerprint(config) and same_rules(record)
        return record if same else None

    def _fingerprint(self, config: TrainConfig) -> str:
        return config.fingerprint(self.dataset.checksum)

    def _folder(self, config: TrainConfig) -> Path:
        return self.workspace.artifacts / f"{config.run_id}-{self._fingerprint(config)[:8]}"

    def _images(self, split: str, size: Size) -> Tensor:
        cache = self.workspace.artifacts / "images" / f"{split}-{size_text(size)}.npy"
        return open_images(self.dataset.root, self._split(split), size, cache)

    def _split(self, split: str) -> pd.DataFrame:
        return self.dataset.manifest[self.dataset.manifest["split"] == split]

    def _train(self, config: TrainConfig, folder: Path) -> None:
        checkpoint = folder / "checkpoint.pt"
        if is_main():
            self._images("train", config.image_size)  # made by one process, mapped by all
        wait_for_all()
        if config.epochs and (names := self.study.overruled(config.preset)):
            log(f"{config.run_id}: {', '.join(names)} as its preset has it, not as `train` has it")
        made_of = {"reidlib": version("reidlib"), "backbone_sha256": backbone_hash(config)}
        key = {"configuration": config.fingerprint(""), "data set": self.dataset.checksum}
        if made_of["backbone_sha256"]:
            key["backbone"] = made_of["backbone_sha256"]
        model, history = train(config, self._images("train", config.image_size),
                               self._split("train"), self.device, checkpoint, key, self.tracker)
        if not is_main():
            return
        start = time.perf_counter()
        for split in ("query", "gallery"):
            images = self._images(split, config.image_size)
            embedded = embed_people(model, images, self._split(split),
                                    mirrors={*self.study.flips} != {"none"})
            embedded.save(folder / f"{split}.npz")
            if isinstance(model, AlignedReID):
                save_stripes(model, images, folder, split)
        cost = {"train_seconds": sum(row["seconds"] for row in history),
                "embed_seconds": time.perf_counter() - start, "processes": n_processes(),
                "parameters": sum(p.numel() for p in model.parameters()), **made_of,
                **reproducibility.provenance(self.device)}
        description = describe_model(config, self._split("train"))
        save(model, folder / "weights.safetensors",
             {**description, "trained_on": self.dataset.name})
        names = None if history else ["epoch", "loss", "accuracy", "images", "seconds"]
        write_csv(folder / "history.csv", pd.DataFrame(history, columns=names))
        self._score(config, folder, cost)
        for file in folder.glob(f"*{checkpoint.name}"):  # of each member, where there are several
            file.unlink()

    def _score(self, config: TrainConfig, folder: Path, cost: dict) -> None:
        score_run(folder, config, self.study, self.dataset, cost, self.device)


def run_parallel(runs: Iterable, jobs: int | None = None) -> list[dict]:
    """The records of delayed runs, ``jobs`` at a time."""
    # one run at a time to a worker: joblib learns from finished ones to hand out many at once
    return joblib.Parallel(jobs, batch_size=1)(runs)


def open_study(name: str, workspace: Path | str | None = None, device: str = "auto") -> Experiment:
    """The runs of a study whose data notebook 01_data has checked.

    ``workspace``: folder below which reports/ and artifacts/ are (default: this repository).
    """
    return Experiment(Workspace(name, Path(workspace or ROOT)), device)


def run_one(workspace: Workspace, preset: str, seed: int, device: str = "auto",
            tracker: str | None = None) -> dict:
    """The record of one run of a study, whose data are checked first; all processes call it."""
    load_study(workspace.study).config(preset, seed)
    join_processes(reproducibility.pick_device(device))
    if is_main():
        prepare_study(saved_or_new(workspace), workspace)
    wait_for_all()
    return Experiment(workspace, device, tracker).run(preset, seed)
