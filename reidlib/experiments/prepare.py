"""A study's data: read or drawn, checked, and written down for all that runs on them."""

from dataclasses import fields, replace
from pathlib import Path

from reidlib.data.audit import check_scorable
from reidlib.data.cross_validation import split_identities
from reidlib.data.datasets import locate, read_dataset
from reidlib.data.manifest import Dataset, load_manifest
from reidlib.data.synthetic.dataset import write_dataset
from reidlib.data.synthetic.spec import make_spec
from reidlib.experiments.study import Study, load_study, read_study, write_study
from reidlib.utils.console import log
from reidlib.utils.paths import Workspace, write_csv


def prepare_study(study: Study, workspace: Workspace) -> Dataset:
    """Read (or draw) and check the study's data; write its manifest, then save the study."""
    root = _drawn(study, workspace)
    if root:
        write_dataset(root, make_spec(study.synthetic))
    dataset = read_dataset(study.dataset, root)
    study.check_one_split()
    if study.folds:
        split = split_identities(dataset.manifest, study.folds, study.fold, study.people)
        dataset = replace(dataset, manifest=split)
    check_scorable(dataset.manifest)
    check_perplexity(study, dataset)
    write_csv(workspace.reports / "manifest.csv", dataset.manifest)
    write_study(replace(study, checksum=dataset.checksum), workspace)
    return dataset


def check_perplexity(study: Study, dataset: Dataset) -> None:
    """ValueError where the gallery is too small for the study's t-SNE."""
    n_gallery = int(dataset.counts().loc["gallery", "images"])
    if study.perplexity >= n_gallery:
        raise ValueError(f"perplexity is {study.perplexity}, but there are only {n_gallery} "
                         f"gallery images for t-SNE: set `perplexity: {max(1, n_gallery // 4)}` in "
                         "the study's parameter file")


def open_dataset(study: Study, workspace: Workspace) -> Dataset:
    """The data that 01_data checked; FileNotFoundError, naming it, where it has not.

    Raises ValueError if the manifest is not the one that it wrote for this study.
    """
    path = workspace.reports / "manifest.csv"
    manifest = load_manifest(path)
    name, root = locate(study.dataset, _drawn(study, workspace))
    if not root.is_dir():
        raise FileNotFoundError(f"no images at {root}: run notebook 01_data (or make report) for "
                                f"study {study.name!r} first")
    dataset = Dataset(name, root, manifest)
    if dataset.checksum != study.checksum:
        raise ValueError(f"{path} has the checksum {dataset.checksum}, but study.json next to it "
                         f"{study.checksum}: one of them was changed; run notebook 01_data again")
    return dataset


def saved_or_new(workspace: Workspace) -> Study:
    """The study as it was saved in this workspace, else as its file says."""
    study, path = load_study(workspace.study), workspace.reports / "study.json"
    if not path.is_file():
        return study
    saved = read_study(workspace)
    differing = [f"{name} {before} instead of {now}" for name, now, before in
                 ((f.name, getattr(study, f.name), getattr(saved, f.name)) for f in fields(Study))
                 if name != "checksum" and now != before]
    if differing:
        log(f"{study.name} as {path} has it, not as its parameter file says: "
            f"{'; '.join(differing)}. Delete that file, or run 01_data, to take the new values")
    return saved


def _drawn(study: Study, workspace: Workspace) -> Path | None:
    """Where a study's own drawings are; None for data from outside."""
    return workspace.artifacts / "data" if study.dataset == "synthetic" else None
