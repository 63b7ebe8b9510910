"""Are the tracked reports and the README what the tracked run records say? Changes nothing."""

import sys
from itertools import zip_longest

from reidlib import report
from reidlib.findings import Findings
from reidlib.paths import ROOT, Workspace
from reidlib.progress import say


def differences(workspace: Workspace) -> list[str]:
    """The files of a study's report that its records would write otherwise, and where."""
    texts = report.render(Findings(workspace))
    found = [f"{workspace.reports.relative_to(workspace.root) / name}: no run says so any more"
             for name in report.stale(workspace, texts)]
    for name, want in texts.items():
        path = workspace.reports / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text != want:
            found.append(f"{path.relative_to(workspace.root)}: {_first(text, want)}")
    return found


def readme_differences(root=ROOT) -> list[str]:
    """The same for the README's results."""
    text = (root / "README.md").read_text(encoding="utf-8")
    want = report.replace_block(text, "results", report.readme_block(root))
    return [] if text == want else [f"README.md: {_first(text, want)}"]


def _first(text: str, want: str) -> str:
    pairs = zip_longest(text.splitlines(), want.splitlines(), fillvalue="(nothing)")
    return next((f"line {i} is {a[:80]!r}, the runs say {b[:80]!r}"
                 for i, (a, b) in enumerate(pairs, 1) if a != b), "another end of the file")


def main() -> int:
    """Command line; returns 1 where something differs."""
    try:
        found = readme_differences()
        for name in report.README_STUDIES:
            found += differences(Workspace(name))
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for line in found:
        sys.stderr.write(f"differs: {line}\n")
    if found:
        sys.stderr.write("These pages are older than the runs or were changed by hand; make report "
                         "STUDY=... writes them anew from the finished runs\n")
        return 1
    say(f"reports of {', '.join(report.README_STUDIES)} and the README are what the runs say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
