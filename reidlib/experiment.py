"""Composition root: study -> data -> model -> fit -> evaluate -> record; finds finished runs."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from reidlib import repro, training
from reidlib.audit import check_scorable
from reidlib.config import Study, TrainConfig, check_keys
from reidlib.data import (
    Batches,
    IdentitySampler,
    ShuffleSampler,
    load_images,
    load_picture,
    number_ids,
)
from reidlib.drawing import SyntheticSpec
from reidlib.losses import ReidLoss
from reidlib.manifest import Dataset, load_manifest, write_manifest
from reidlib.matching import RERANKING, cosine
from reidlib.models import LATransformer, build_backbone
from reidlib.paths import Workspace, whole_file
from reidlib.progress import say
from reidlib.protocols import PROTOCOLS
from reidlib.readers import locate, read_dataset
from reidlib.results import (
    publish_run,
    read_run,
    read_study,
    write_csv,
    write_run,
    write_study,
)
from reidlib.retrieval import FLIPS, Embedded, Ranking, embed, rank_gallery
from reidlib.scoring import evaluate, true_positive_rates
from reidlib.synthetic import write_dataset

RULES = {"protocols": [asdict(protocol) for protocol in PROTOCOLS.values()],
         "reranking": dict(zip(("k1", "k2", "lambda"), RERANKING, strict=True))}


def prepare_study(study: Study, workspace: Workspace) -> Dataset:
    """Read (or draw) and check the study's data; write its manifest, then fix the study."""
    root = _drawn(study, workspace)
    if root:
        check_keys("parameter of the drawings", study.synthetic, SyntheticSpec)
        write_dataset(root, SyntheticSpec(**study.synthetic))
    dataset = read_dataset(study.dataset, root)
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
    return Dataset(*locate(study.dataset, _drawn(study, workspace)), manifest)


def _drawn(study: Study, workspace: Workspace) -> Path | None:
    """Where a study's own drawings are; None for data from outside."""
    return workspace.artifacts / "data" if study.dataset == "synthetic" else None


def build_model(config: TrainConfig, n_identities: int) -> LATransformer:
    """The model of a run, freshly initialised from its seed (backbone weights where asked for)."""
    repro.seed_globals(config.seed)
    backbone = build_backbone(config.backbone, config.image_size, config.pretrained,
                              config.backbone_args)
    return LATransformer(backbone, n_identities, y_pooling=config.y_pooling,
                         global_weight=config.global_weight, feature=config.feature,
                         cosine=config.am_margin is not None)


def train(config: TrainConfig, images: Tensor, ids: Sequence[str], device: torch.device,
          checkpoint: Path | None = None, key: str = "") -> tuple[LATransformer, list[dict]]:
    """Train one model on uint8 images and their identities; returns it and its history."""
    labels, names = number_ids(ids)
    model = build_model(config, len(names)).to(device)
    optimiser = training.make_optimiser(model, config.lr, config.backbone_lr, config.weight_decay)
    release = {}
    if config.schedule == "blockwise":
        release = {"on_epoch_start": training.blockwise(model, optimiser, config.release_every,
                                                        config.lr_decay)}
    if config.images_per_identity:
        sampler = IdentitySampler(labels.numpy(), config.batch_size // config.images_per_identity,
                                  config.images_per_identity, config.seed)
    else:
        sampler = ShuffleSampler(len(labels), config.batch_size, config.seed)
    loss = ReidLoss(config.am_margin, config.am_scale, config.triplet_margin)
    history = training.fit(model, Batches(images, labels, sampler, device).epoch, loss, optimiser,
                           config.epochs, checkpoint=checkpoint, key=key, name=config.run_id,
                           **release)
    return model, history


class Experiment:
    """The runs of one study in one workspace: trained once, found again afterwards."""

    def __init__(self, workspace: Workspace, device: str = "auto"):
        self.workspace = workspace
        self.study = read_study(workspace)
        self.dataset = open_dataset(self.study, workspace)
        self.device = repro.pick_device(device)

    def run(self, preset: str, seed: int) -> dict:
        """The record of one run, trained now unless it is finished."""
        config = self.study.config(preset, seed)
        folder = self._folder(config)
        record = read_run(folder) if (folder / "run.json").is_file() else None
        if record is None:
            self._train(config, folder)
        elif any(record.get(name) != rules for name, rules in RULES.items()):
            say(f"{config.run_id}: protocols have changed, saved embeddings scored again")
            self._score(config, folder, record["cost"])
        else:
            say(f"{config.run_id}: finished before, not trained again")
        target = self.workspace.runs / config.run_id
        publish_run(folder, target)
        return read_run(target)

    def runs(self, presets: Iterable[str]) -> list[dict]:
        """Records of all presets in all seeds of the study."""
        return [self.run(preset, seed) for preset in presets for seed in self.study.seeds]

    def embeddings(self, preset: str, seed: int, notebook: str) -> tuple[Embedded, Embedded]:
        """Query and gallery embeddings of a finished run; else an error naming ``notebook``."""
        folder = self._folder(self.study.config(preset, seed))
        if not (folder / "run.json").is_file():
            raise FileNotFoundError(f"run {preset}-s{seed} has no embeddings in {folder}: run "
                                    f"notebook {notebook} first")
        return tuple(Embedded.load(folder / f"{split}.npz") for split in ("query", "gallery"))

    def ranking(self, preset: str, seed: int, notebook: str, protocol: str = "standard",
                flip: str = "none") -> Ranking:
        """A finished run's gallery ranked for each query; see ``embeddings``."""
        return rank_gallery(*self.embeddings(preset, seed, notebook), protocol, flip)

    def pictures(self, paths: Iterable[str]) -> list[np.ndarray]:
        """Images as they are stored, uint8 (height, width, 3), for figures."""
        return [load_picture(self.dataset.root / path) for path in paths]

    def _folder(self, config: TrainConfig) -> Path:
        fingerprint = config.fingerprint(self.dataset.checksum)
        return self.workspace.artifacts / f"{config.run_id}-{fingerprint[:8]}"

    @cached_property
    def _images(self) -> dict[str, Tensor]:
        size = self.study.config("baseline", 0).image_size
        return {split: load_images(self.dataset.root, part["path"].tolist(), size)
                for split, part in self.dataset.manifest.groupby("split")}

    def _split(self, split: str) -> pd.DataFrame:
        return self.dataset.manifest[self.dataset.manifest["split"] == split]

    def _train(self, config: TrainConfig, folder: Path) -> None:
        checkpoint = folder / "checkpoint.pt"
        key = config.fingerprint(self.dataset.checksum)
        model, history = train(config, self._images["train"], self._split("train")["id"].tolist(),
                               self.device, checkpoint, key)
        start = time.perf_counter()
        for split in ("query", "gallery"):
            self._embed(model, split, folder)
        cost = {"train_seconds": sum(row["seconds"] for row in history),
                "embed_seconds": time.perf_counter() - start,
                "hardware": repro.hardware(self.device), "versions": repro.versions(),
                "commit": repro.git_commit()}
        with whole_file(folder / "weights.safetensors") as partial:
            save_file(model.state_dict(), partial)
        names = None if history else ["epoch", "loss", "accuracy", "images", "seconds"]
        write_csv(folder / "history.csv", pd.DataFrame(history, columns=names))
        self._score(config, folder, cost)
        checkpoint.unlink(missing_ok=True)

    def _score(self, config: TrainConfig, folder: Path, cost: dict) -> None:
        """Score a run's saved embeddings and write its record, which says that it is finished."""
        query, gallery = (Embedded.load(folder / f"{split}.npz") for split in ("query", "gallery"))
        cuda = self.device if self.device.type == "cuda" else None
        scores, per_query, cmc = evaluate(query, gallery, device=cuda)
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
        part = self._split(split)
        emb, mirrored = embed(model, self._images[split])
        text = {name: part[name].to_numpy(str) for name in ("id", "cam", "path", "sha256")}
        embedded = Embedded(emb, mirrored, text["path"], text["id"], text["cam"], text["sha256"])
        embedded.save(folder / f"{split}.npz")
