"""All runs of a study without its notebooks: another schedule, folds, candidates."""

from dataclasses import replace
from pathlib import Path

import joblib

from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.records import forget_runs
from reidlib.experiments.runner import Experiment, run_parallel
from reidlib.experiments.study import Study
from reidlib.experiments.train import build_loss
from reidlib.utils.console import log
from reidlib.utils.paths import Workspace


def parts(study: Study, root: Path) -> list[tuple[Study, Workspace]]:
    """A study and its workspace; of one in folds one of each a fold."""
    if not study.folds or study.fold is not None:
        return [(study, Workspace(study.name, root))]
    return [(replace(study, fold=fold), Workspace(f"{study.name}/{fold}", root))
            for fold in range(study.folds)]


def run_all(study: Study, root: Path, device: str = "auto", jobs: int = 1,
            again: bool = False) -> list[dict]:
    """The records of a study's presets, in all seeds and folds; ``jobs`` runs at a time.

    ``again``: forget the runs that are finished.
    """
    presets, labs = study.all_presets, []
    for part, workspace in parts(study, root):
        prepare_study(part, workspace)
        labs.append(Experiment(workspace, device))
    log(f"{study.name}: {len(presets)} presets, {len(study.seeds)} seeds, {len(labs)} data splits")
    for lab in labs:
        if again:
            forget_runs(lab.workspace)
        missing = [preset for preset in presets
                   if not all(lab.finished(preset, seed) for seed in study.seeds)]
        for preset in missing:  # what cannot be trained is said first
            build_loss(lab.study.config(preset, study.seeds[0]))
        if missing:
            lab.decode()
    return run_parallel((joblib.delayed(lab.run)(preset, seed) for lab in labs
                         for seed in study.seeds for preset in presets), jobs)
