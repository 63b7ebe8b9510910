"""Runs the notebooks in order with papermill and turns the last one into ``report.html``."""

import logging
import re
import sys
import time
from pathlib import Path

import nbformat
import papermill
from jinja2 import FileSystemLoader
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from reidlib.experiments.records import forget_runs
from reidlib.experiments.study import Study
from reidlib.report.page import TEMPLATES, anchor
from reidlib.utils.console import log
from reidlib.utils.errors import NotebookError
from reidlib.utils.paths import ROOT, Workspace, atomic_write, write_text

INJECTED = "injected-parameters"  # papermill's tag
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
DATA = "01_data"  # reads and checks the data, and saves the study


def run_notebook(source: Path, target: Path, parameters: dict) -> None:
    """Execute one notebook with those of the parameters that it declares, completely or not at all.

    Raises:
        PapermillExecutionError: a cell failed; ``target`` is left as it was.
    """
    declared = papermill.inspect_notebook(str(source))
    given = {name: value for name, value in parameters.items() if name in declared}
    with atomic_write(target) as partial:
        # CRITICAL: being interrupted, as every kernel is at its end, is no error to print;
        # not captured: what processes of a kernel print would be printed twice;
        # quiet: what asyncio in the kernel says of being interrupted is none, either
        quiet = '__import__("logging").getLogger("asyncio").setLevel("CRITICAL")'
        papermill.execute_notebook(str(source), str(partial), given, kernel_name="python3",
                                   progress_bar=False, stdout_file=sys.stdout,
                                   extra_arguments=["--log-level=CRITICAL",
                                                    f"--IPKernelApp.exec_lines={quiet}",
                                                    "--IPKernelApp.capture_fd_output=False"])
        write_text(partial, nbformat.writes(_without_papermill(nbformat.read(partial, 4))))


def write_html(executed: Path, target: Path) -> None:
    """The executed report as one self-contained page: no code cells, nothing from elsewhere."""
    write_text(target, _html(nbformat.read(executed, 4), target.parent))


def html_page(markdown: str, folder: Path) -> str:
    """The report of a ``folder`` as such a page, with the figures that its text links to."""
    cell = nbformat.v4.new_markdown_cell(markdown, id="report")
    return _html(nbformat.v4.new_notebook(cells=[cell]), folder)


def _html(notebook: nbformat.NotebookNode, folder: Path) -> str:
    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, embed_images=True,
                            exclude_output_prompt=True, template_file="page.html.j2",
                            extra_loaders=[FileSystemLoader(TEMPLATES)])
    notebook.metadata["title"] = f"reidlib report: {folder.name}"
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(folder)}})
    # links in a page are GitHub's anchors, nbconvert's headings have others
    own = {anchor(found): found for found in re.findall(r'<h\d id="([^"]+)"', page)}
    return re.sub(r'href="#([^"]+)"', lambda link: f'href="#{own.get(link[1], link[1])}"', page)


def run_notebooks(study: Study, workspace: Workspace, parameters: dict, again: bool) -> None:
    """Run a study's notebooks in their order, then write ``report.html`` from the last one.

    The study has passed ``study_results.check_presets``. ``parameters``: epochs, seeds, device and
    jobs, for the notebooks that declare them. ``again``: train finished runs again.

    Raises:
        NotebookError: a notebook failed; finished runs are kept.
    """
    for name in ("asyncio", "papermill"):  # errors of a kernel that ended, as late as at exit
        logging.getLogger(name).setLevel(logging.CRITICAL)
    parameters = {**parameters, "study": study.name}
    if workspace.root != ROOT:
        parameters["workspace"] = str(workspace.root)
    for number, source in enumerate(NOTEBOOKS, 1):
        log(f"[{number}/{len(NOTEBOOKS)}] {source.stem}")
        start = time.perf_counter()
        try:
            run_notebook(source, workspace.reports / "executed" / source.name, parameters)
        except (PapermillExecutionError, DeadKernelError, OSError) as error:
            raise NotebookError(_advice(error, source, workspace)) from error
        log(f"      {time.perf_counter() - start:.0f} s")
        if again and source.stem == DATA:  # the data is there and complete
            forget_runs(workspace)
    write_html(workspace.reports / "executed" / NOTEBOOKS[-1].name,
               workspace.reports / "report.html")
    log(f"report: {workspace.reports / 'report.html'} and report.md")


def _advice(error: Exception, source: Path, workspace: Workspace) -> str:
    """What went wrong in a notebook, and what to do about it."""
    if not isinstance(error, PapermillExecutionError):
        return (f"{source.name}: {error or 'the kernel died'}\nIf the memory or the disk is full, "
                "make room; finished runs and finished epochs are kept: the same command goes on "
                "from there")
    if error.ename in ("ValueError", "FileNotFoundError"):  # they say what to do
        return f"{source.name}: {error.evalue}"
    return (f"{source.name}: {error.ename}: {error.evalue}\nTo look into it open "
            f"notebooks/{source.name} (make lab), with study = \"{workspace.study}\" in its first "
            "cell of code")


def _without_papermill(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop papermill's times, paths and ids, so that a re-run differs only where results do."""
    for part in [notebook, *notebook.cells]:
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
        if INJECTED in part.metadata.get("tags", []):
            part["id"] = INJECTED
    return notebook


def old_copies(workspace: Workspace) -> list[str]:
    """The executed notebooks whose cells are not those of their sources."""
    found = []
    for source in NOTEBOOKS:
        copy = workspace.reports / "executed" / source.name
        if copy.is_file():
            cells = [cell.source for cell in nbformat.read(copy, 4).cells
                     if INJECTED not in cell.metadata.get("tags", [])]
            if cells != [cell.source for cell in nbformat.read(source, 4).cells]:
                found.append(f"{copy.relative_to(workspace.root)}: other cells than "
                             f"notebooks/{source.name}")
    return found
