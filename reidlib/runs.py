"""All runs of a study that has no notebooks of its own: another schedule, folds, candidates."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import joblib

from reidlib.experiment import Experiment, prepare_study
from reidlib.paths import ROOT, Workspace
from reidlib.progress import say
from reidlib.results import forget_runs
from reidlib.studies import Study, load_study


def parts(study: Study, root: Path) -> list[tuple[Study, Workspace]]:
    """A study and its workspace; of one in folds one of each a fold."""
    if not study.folds or study.fold is not None:
        return [(study, Workspace(study.name, root))]
    return [(replace(study, fold=fold), Workspace(f"{study.name}/{fold}", root))
            for fold in range(study.folds)]


def run_all(study: Study, root: Path, device: str = "auto", jobs: int = 1,
            again: bool = False) -> list[dict]:
    """The records of a study's presets, in all seeds and folds; ``jobs`` runs at a time.

    ``again``: forget the runs that are finished. Raises ValueError for a study that leaves to the
    notebooks what is run.
    """
    presets = (*study.presets, *study.candidates)
    if not presets:
        raise ValueError(f"study {study.name!r} names no presets and no candidates; its notebooks "
                         f"say what is run: make report STUDY={study.name}")
    labs = []
    for part, workspace in parts(study, root):
        prepare_study(part, workspace)
        labs.append(Experiment(workspace, device))
    say(f"{study.name}: {len(presets)} presets, {len(study.seeds)} seeds, {len(labs)} data splits")
    for lab in labs:
        if again:
            forget_runs(lab.workspace)
        if not all(lab.finished(preset, seed) for preset in presets for seed in study.seeds):
            lab.decode()
    return joblib.Parallel(jobs)(joblib.delayed(lab.run)(preset, seed) for lab in labs
                                 for seed in study.seeds for preset in presets)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; a stopped one goes on where it was."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.runs", description=__doc__)
    parser.add_argument("--study", required=True, help="a file of notebooks/params, without .yaml")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, default=ROOT, help="write reports/ and artifacts/"
                        " below this folder (default: this repository)")
    parser.add_argument("--again", action="store_true", help="train finished runs anew")
    args = parser.parse_args(argv)
    try:
        run_all(load_study(args.study), args.workspace.resolve(), args.device, args.jobs,
                args.again)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells have it; training has said how to go on
    return 0


if __name__ == "__main__":
    sys.exit(main())
