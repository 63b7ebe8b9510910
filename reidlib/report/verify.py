"""Are the tracked reports and READMEs what the tracked run records say? Changes nothing."""

from itertools import zip_longest
from pathlib import Path

from reidlib.report import page
from reidlib.report.study_results import StudyResults
from reidlib.utils.paths import ROOT, Workspace


def differences(workspace: Workspace) -> list[str]:
    """The files of a study's report that its records would write otherwise, and where."""
    texts = page.render_all(StudyResults(workspace))
    found = [f"{workspace.reports.relative_to(workspace.root) / name}: no run says so any more"
             for name in page.outdated(workspace, texts)]
    wanted = {workspace.reports / name: text for name, text in texts.items()}
    return found + _compare(wanted, workspace.root)


def readme_differences(root: Path = ROOT) -> list[str]:
    """The same for the generated parts of the READMEs."""
    return _compare(page.current_readmes(root), root)


def check_all() -> str:
    """A sentence that says that all is current; ValueError, with each difference, where it is not.
    """
    found = readme_differences()
    for name in page.README_STUDIES:
        found += differences(Workspace(name))
    if found:
        raise ValueError("\n".join([
            "these pages are older than the runs or were changed by hand; make report STUDY=... "
            "writes them from the finished runs", *found]))
    return f"reports of {', '.join(page.README_STUDIES)} and the READMEs are what the runs say"


def _compare(wanted: dict[Path, str], root: Path) -> list[str]:
    found = []
    for path, want in wanted.items():
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text != want:
            found.append(f"{path.relative_to(root)}: {_first(text, want)}")
    return found


def _first(text: str, want: str) -> str:
    pairs = zip_longest(text.splitlines(), want.splitlines(), fillvalue="(nothing)")
    return next((f"line {i} is {a[:80]!r}, the runs say {b[:80]!r}"
                 for i, (a, b) in enumerate(pairs, 1) if a != b), "another end of the file")
