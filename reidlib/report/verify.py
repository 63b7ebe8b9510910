"""Are the tracked reports and the README what the tracked run records log? Changes nothing."""

from itertools import zip_longest

from reidlib.report import page
from reidlib.report.study_results import StudyResults
from reidlib.utils.paths import ROOT, Workspace


def differences(workspace: Workspace) -> list[str]:
    """The files of a study's report that its records would write otherwise, and where."""
    texts = page.render(StudyResults(workspace))
    found = [f"{workspace.reports.relative_to(workspace.root) / name}: no run says so any more"
             for name in page.stale(workspace, texts)]
    for name, want in texts.items():
        path = workspace.reports / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text != want:
            found.append(f"{path.relative_to(workspace.root)}: {_first(text, want)}")
    return found


def readme_differences(root=ROOT) -> list[str]:
    """The same for the README's results."""
    text = (root / "README.md").read_text(encoding="utf-8")
    want = page.replace_block(text, "results", page.readme_block(root))
    return [] if text == want else [f"README.md: {_first(text, want)}"]


def _first(text: str, want: str) -> str:
    pairs = zip_longest(text.splitlines(), want.splitlines(), fillvalue="(nothing)")
    return next((f"line {i} is {a[:80]!r}, the runs log {b[:80]!r}"
                 for i, (a, b) in enumerate(pairs, 1) if a != b), "another end of the file")


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
    return f"reports of {', '.join(page.README_STUDIES)} and the README are what the runs say"
