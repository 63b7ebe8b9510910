"""The command line: ``reidlib <command>`` or ``python -m reidlib <command>``.

Here, and nowhere else, errors become messages and exit codes: 0 done, 1 failed with a message, 2 a
wrong command line, 130 stopped with Ctrl-C, 143 with SIGTERM. Libraries are imported by the
command that needs them, so that help and tab completion answer at once.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from reidlib.utils.commands import STOPPED_CODE, TERMINATED_CODE, Commands, Terminated
from reidlib.utils.console import log
from reidlib.utils.errors import NotebookError, check_choice
from reidlib.utils.paths import PARAMS, ROOT, open_workspace

STOPPED = ("stopped; finished runs and finished epochs are kept: the same command goes on from "
           "there (without --again, which would forget them)")


app = typer.Typer(name="reidlib", cls=Commands, no_args_is_help=True, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]})


def study_names() -> list[str]:
    """For tab completion."""
    return sorted(path.stem for path in PARAMS.glob("*.yaml"))


def data_names() -> list[str]:
    """For tab completion."""
    return sorted({"pku-reid", "market1501", "cuhk03-np", "cuhk03-np-detected", "cuhk03-np-pair1",
                   *study_names()})


def preset_names() -> list[str]:
    """For tab completion."""
    from reidlib.experiments.presets import PRESETS

    return list(PRESETS)


def numbers(text: str) -> list[int]:
    """``0,1,2`` as whole numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter("expected whole numbers separated by commas, such as 0,1,2; "
                                 f"got {text!r}", param_hint="--seeds") from error


Study = Annotated[str, typer.Option(help="a file of notebooks/params, without .yaml",
                                    autocompletion=study_names)]
Device = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu, cuda or cuda:<n>")]
Folder = Annotated[Path, typer.Option("--workspace", help="write reports/ and artifacts/ below "
                                      "this folder", show_default="this repository")]
Again = Annotated[bool, typer.Option("--again", help="train finished runs again")]
Tracker = Annotated[str | None, typer.Option(help="follow the training, such as tensorboard (pip "
                                             "install -e '.[tensorboard]')")]


def show_version(asked: bool | None) -> None:
    if asked:
        log(version("reidlib"))
        raise typer.Exit


@app.callback()
def options(shown: Annotated[bool | None, typer.Option(
                "--version", callback=show_version, is_eager=True, help="Show the version.")
            ] = None) -> None:
    """Person re-identification: train, score and report, under named protocols."""


@app.command()
def report(study: Study = "synthetic", device: Device = "auto", workspace: Folder = ROOT,
           epochs: Annotated[int | None, typer.Option(help="instead of the study's")] = None,
           seeds: Annotated[str | None, typer.Option(metavar="0,1,2",
                                                     help="instead of the study's")] = None,
           jobs: Annotated[int | None, typer.Option(
               min=1, help="runs at a time",
               show_default="2 on a CPU of several cores, else 1")] = None,
           again: Again = False) -> None:
    """Run a study's notebooks and write its report."""
    from reidlib.experiments.study import load_study
    from reidlib.experiments.train import check_starts
    from reidlib.report.notebooks import run_notebooks
    from reidlib.report.study_results import check_presets
    from reidlib.utils.reproducibility import pick_device

    chosen = None if seeds is None else numbers(seeds)
    on_cpu = pick_device(device).type == "cpu"
    jobs = jobs or (2 if on_cpu and (os.cpu_count() or 1) > 1 else 1)
    os.environ["REIDLIB_HEADLESS"] = "1"
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # of workers whose kernel has ended
    plan, place = load_study(study, epochs, chosen), open_workspace(study, workspace)
    check_presets(plan)
    check_starts(plan, place)
    given = {"epochs": epochs, "seeds": chosen, "device": device, "jobs": jobs}
    run_notebooks(plan, place, given, again)


@app.command()
def run(preset: Annotated[str, typer.Option(
            help="one of reidlib.experiments.presets, or a candidate of the study",
            autocompletion=preset_names)], study: Study = "synthetic",
        seed: Annotated[int, typer.Option(help="of this run")] = 0, device: Device = "auto",
        workspace: Folder = ROOT, tracker: Tracker = None) -> None:
    """Train and score one run of a study.

    With `accelerate launch -m reidlib run ...` several processes, on one or more machines, work on
    it together.
    """
    from reidlib.experiments.runner import run_one
    from reidlib.utils.distributed import is_main

    record = run_one(open_workspace(study, workspace), preset, seed, device, tracker)
    if is_main():
        score = record["scores"][0]
        log(f"{record['run_id']}: {score['protocol']} mAP {score['mAP']:.3f}, rank-1 "
            f"{score['rank1']:.3f}; record in {record['folder']}")


@app.command("study")
def run_study(study: Study = "synthetic", device: Device = "auto", workspace: Folder = ROOT,
              jobs: Annotated[int, typer.Option(min=1, help="runs at a time")] = 1,
              again: Again = False) -> None:
    """Train and score all runs of a study.

    Its presets or candidates, in all seeds and folds; finished runs are not trained again.
    """
    from reidlib.experiments.batch import run_all
    from reidlib.experiments.prepare import saved_or_new

    place = open_workspace(study, workspace)
    run_all(saved_or_new(place), place.root, device, jobs, again)


@app.command()
def table1(workspace: Folder = ROOT) -> None:
    """Write the page of the paper's Table 1 from its finished runs.

    The studies table1-market1501, table1-cuhk03 and table1-published make them; nothing is trained
    here.
    """
    from reidlib.report.table1_page import NAME, write_page

    log(f"{write_page(open_workspace(NAME, workspace).root)} and report.html next to it")


@app.command()
def distractors(study: Study = "synthetic", device: Device = "auto", workspace: Folder = ROOT,
                images: Annotated[str, typer.Option(help="data set whose training images are "
                                                    "added to the gallery")] = "market1501"
                ) -> None:
    """Score models with more and more other people.

    Images of other people are added to the gallery of the models that are compared everywhere; a
    run that is not finished is trained first. The study's notebook 01_data has been run before.
    """
    from reidlib.experiments.distractors import run_all
    from reidlib.experiments.study import load_study

    load_study(study)
    run_all(open_workspace(study, workspace), images, device)


@app.command()
def download(name: Annotated[str, typer.Argument(
                 help="pku-reid, market1501, cuhk03-np (or -detected, -pair1), a study, or the "
                 "path of a CSV of your own data",
                 autocompletion=data_names)],
             url: Annotated[str | None, typer.Option(
                 help="another git copy of PKU-Reid's split, an address or a folder")] = None,
             root: Annotated[Path | None, typer.Option(
                 help="folder of the data set", show_default="REIDLIB_DATA/NAME or data/NAME")
             ] = None) -> None:
    """Download a data set, or say where to ask; check it."""
    from reidlib.data.download import download_dataset
    from reidlib.experiments.prepare import check_perplexity
    from reidlib.experiments.study import load_study

    if not name.endswith(".csv"):
        check_choice("data set or study", name, data_names())
    study = load_study(name) if name in study_names() else None
    name = study.dataset if study else name  # what it runs on
    if name == "synthetic" and not url:
        log("synthetic is drawn when it is needed; there is nothing to download")
        return
    dataset = download_dataset(name, root, url)
    log(f"{dataset.name} in {dataset.root} is complete and readable\n{dataset.counts()}\n"
        f"checksum {dataset.checksum}")
    if study and not study.folds:  # folds have galleries of their own
        check_perplexity(study, dataset)


@app.command()
def export(study: Study = "synthetic", device: Device = "auto", workspace: Folder = ROOT) -> None:
    """Write trained models and their model cards.

    They go to artifacts/STUDY/weights; a run that is not finished is trained first.
    """
    from reidlib.experiments.export import export_all
    from reidlib.experiments.study import load_study

    load_study(study)
    for path in export_all(open_workspace(study, workspace), device):
        log(f"{path} and its card next to it")


@app.command()
def score(features: Annotated[Path, typer.Argument(help="an .npz, a folder with one .npy and one "
                                                   "CSV, or a run's folder in artifacts/")],
          against: Annotated[Path | None, typer.Option(help="other features of the same images: "
                                                       "how far are these ahead?")] = None,
          flip: Annotated[str, typer.Option(help="average image and mirror: none, query, both")
                          ] = "none",
          quick: Annotated[bool, typer.Option(
              "--quick", help="without re-ranking, which takes the longest")] = False,
          form: Annotated[str, typer.Option("--format", help="text, markdown or csv")] = "text",
          out: Annotated[Path | None, typer.Option(help="write, do not print")] = None) -> None:
    """Score features of any model under every protocol.

    Cosine and Euclidean distance, with and without re-ranking, with 95 % intervals over people.
    """
    from reidlib.experiments.feature_scores import score_file
    from reidlib.report.feature_scores import check_format, render_scores
    from reidlib.utils.paths import check_target, write_text

    check_format(form)
    check_target(out)
    scored = score_file(features, flip, not quick, against)
    text = render_scores(str(features), scored[0], str(against), scored[1], form)
    log(text.rstrip("\n") if out is None else f"scores in {write_text(out, text)}")


@app.command()
def rank(model: Annotated[Path, typer.Option(help="a .safetensors of make weights or of a run")],
         query: Annotated[list[Path], typer.Option(help="an image or a folder; may be repeated")],
         gallery: Annotated[Path, typer.Option(help="folder of the images to rank")],
         html: Annotated[Path | None, typer.Option(help="page of the pictures to write")] = None,
         top: Annotated[int, typer.Option(min=1, help="images a query")] = 20,
         device: Device = "auto") -> None:
    """Rank photos by how similar they are to a query.

    The cosine of a trained model's features; images of the gallery that cannot be read are named
    and left out.
    """
    from reidlib.experiments.rank import rank_photos, thumbnail
    from reidlib.report.ranked_page import ranked_text, write_ranked_page
    from reidlib.utils.paths import check_target

    check_target(html)
    ranked, left_out = rank_photos(model, query, gallery, top, device)
    log(ranked_text(ranked, left_out, gallery))
    if html:
        log(f"page in {write_ranked_page(html, ranked, left_out, model, gallery, thumbnail)}")


@app.command()
def verify() -> None:
    """Compare the tracked pages with the tracked runs.

    Tables, reports, READMEs, figures' data (but of t-SNE, separation, maps); changes nothing.
    """
    from reidlib.report.verify import check_all

    log(check_all())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        app(args=argv, prog_name="reidlib")
    except (ValueError, OSError, FloatingPointError, MemoryError, NotebookError) as error:
        return _fail(f"error: {str(error) or type(error).__name__}", 1)
    except ImportError as error:
        return _fail(f"error: {error}; pip install -e '.[notebooks]' brings what reports need", 1)
    except SystemExit as end:  # typer ends with it, whatever happened
        stopped = end.code in (STOPPED_CODE, TERMINATED_CODE)
        return _fail(STOPPED, end.code) if stopped else end.code
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_):
    raise Terminated


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code
