"""Runs the notebooks in order with papermill and turns the last one into ``report.html``."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
from jinja2 import DictLoader
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from reidlib.paths import ROOT, Workspace, whole_file, write_text
from reidlib.progress import say
from reidlib.repro import pick_device
from reidlib.results import forget_runs
from reidlib.studies import load_study

# nbconvert's page without the scripts that it would load from the network, with the pictures'
# descriptions, at a reader's width
PAGE = """{% extends "lab/index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block data_png scoped %}<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | replace("\n", "") }}"
 alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}"
 width="{{ output | get_metadata('width', 'image/png') }}"></div>{% endblock %}
{% block html_head_css %}<style>
main { max-width: 60rem; margin: auto; }
.jp-RenderedHTMLCommon table { font-size: 0.85em; margin-left: 0; }
</style>{% endblock %}"""
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))


def run_notebook(source: Path, target: Path, parameters: dict) -> None:
    """Execute one notebook with those of the parameters that it declares, whole or not at all.

    Raises:
        PapermillExecutionError: a cell failed; ``target`` is left as it was.
    """
    declared = papermill.inspect_notebook(str(source))
    given = {name: value for name, value in parameters.items() if name in declared}
    with whole_file(target) as partial:
        papermill.execute_notebook(str(source), str(partial), given, kernel_name="python3",
                                   progress_bar=False, stdout_file=sys.stdout,
                                   extra_arguments=["--log-level=ERROR"])
        write_text(partial, nbformat.writes(_without_papermill(nbformat.read(partial, 4))))


def write_html(executed: Path, target: Path) -> None:
    """The executed report as one self-contained page: no code cells, nothing from elsewhere."""
    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, embed_images=True,
                            exclude_output_prompt=True, template_file="report.html.j2",
                            extra_loaders=[DictLoader({"report.html.j2": PAGE})])
    notebook = nbformat.read(executed, 4)
    notebook.metadata["title"] = f"reidlib report: {target.parent.name}"
    write_text(target, exporter.from_notebook_node(notebook)[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 when all notebooks ran, else 1 with the failing cell's error."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.pipeline", description=__doc__)
    parser.add_argument("--study", default="synthetic", help="a file of notebooks/params, without "
                        "its .yaml (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of the study's")
    parser.add_argument("--seeds", type=_numbers, help="such as 0,1,2, instead of the study's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> "
                        "(default: %(default)s)")
    parser.add_argument("--workspace", type=Path, default=ROOT, help="write reports/ and artifacts/"
                        " below this folder (default: this repository)")
    parser.add_argument("--again", action="store_true", help="train finished runs anew")
    args = parser.parse_args(argv)
    try:
        study = load_study(args.study, args.epochs, args.seeds)
        if study.folds or study.candidates:
            raise ValueError(f"study {study.name!r} has no notebooks of its own: "
                             f"python -m reidlib.runs --study {study.name}")
        pick_device(args.device)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    os.environ["REIDLIB_HEADLESS"] = "1"
    workspace = Workspace(args.study, args.workspace.resolve())
    parameters = {"study": args.study, "epochs": args.epochs, "seeds": args.seeds,
                  "device": args.device}
    if workspace.root != ROOT:
        parameters["workspace"] = str(workspace.root)
    try:
        return _run_all(workspace, parameters, args.again)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; finished runs and the last epoch are kept, and make report goes "
                         "on from there\n")
        return 130  # as shells have it


def _run_all(workspace: Workspace, parameters: dict, again: bool) -> int:
    executed = workspace.reports / "executed"
    for number, source in enumerate(NOTEBOOKS, 1):
        say(f"[{number}/{len(NOTEBOOKS)}] {source.stem}")
        start = time.perf_counter()
        try:
            run_notebook(source, executed / source.name, parameters)
        except PapermillExecutionError as error:
            if error.ename in ("ValueError", "FileNotFoundError"):  # they say what to do
                sys.stderr.write(f"error in {source.name}: {error.evalue}\n")
            else:
                sys.stderr.write(f"error in {source.name}: {error.ename}: {error.evalue}\n"
                                 f"To look into it open notebooks/{source.name} (make lab), with "
                                 f"study = \"{workspace.study}\" in its first cell of code.\n")
            return 1
        except (DeadKernelError, OSError) as error:
            sys.stderr.write(f"error in {source.name}: {error or 'the kernel died'}\n"
                             "If the memory or the disk is full, make room; finished runs and the "
                             "last epoch are kept, and make report goes on from there.\n")
            return 1
        say(f"      {time.perf_counter() - start:.0f} s")
        if again and number == 1:  # the data is there and whole
            forget_runs(workspace)
    write_html(executed / NOTEBOOKS[-1].name, workspace.reports / "report.html")
    say(f"report: {workspace.reports / 'report.html'} and report.md beside it")
    return 0


def _without_papermill(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop papermill's times and paths, so that a re-run differs only where results do."""
    for part in [notebook, *notebook.cells]:
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    return notebook


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers separated by commas, such as 0,1,2; got {text!r}") from error


if __name__ == "__main__":
    sys.exit(main())
