"""Are the tracked reports and READMEs what the tracked run records say? Changes nothing."""

from itertools import zip_longest
from pathlib import Path

import pandas as pd

from reidlib.experiments import presets
from reidlib.experiments.records import by_row, read_tables, score_table
from reidlib.report import page, table1, table1_page, tables
from reidlib.report.notebooks import old_copies
from reidlib.report.study_results import StudyResults
from reidlib.utils.paths import ROOT, Workspace, csv_text

# drawn from images or weights, so the records alone cannot tell what they show
UNCHECKED = {"sample", "tsne", "maps"}


def differences(workspace: Workspace) -> list[str]:
    """The files of a study's report that its records would write otherwise, and where.

    Of a figure its CSV is compared.
    """
    results, folder = StudyResults(workspace), workspace.reports
    texts, examples = page.render_all(results), shown_queries(results)
    shown = figure_tables(results) | ({} if results.study.shows_people else examples)
    texts |= {f"tables/{name}.csv": csv_text(table) for name, table in examples.items()}
    texts |= {f"figures/{name}.csv": csv_text(table) for name, table in shown.items() if len(table)}
    old = {f"figures/{path.name}" for path in workspace.figures.glob("*.csv")
           if path.stem not in UNCHECKED}
    gone = sorted({*page.outdated(workspace, texts), *(old - set(texts))})
    stale = [f"{folder.relative_to(workspace.root) / name}: no run says so any more"
             for name in gone]
    return stale + _compare({folder / name: text for name, text in texts.items()}, workspace.root)


def figure_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """Name -> what each figure shows that is drawn from the records alone, as the notebooks do."""
    trained = list(presets.NOTEBOOKS)  # in this order
    records = sorted(results.records, key=lambda record: trained.index(record["preset"]))
    first, second = ([r for r in records if presets.NOTEBOOKS[r["preset"]] == name]
                     for name in ("02_baseline", "03_improved"))
    scores = by_row(score_table(records))
    found = {name: what[0] for name, what in page.drawn(results).items()}
    dots = tables.shown(results.queries)[["row", "path", "seed", "protocol", "AP"]]
    found |= {"ablation": tables.shown(scores), "cmc": tables.mean_cmc(records), "ap_scatter": dots}
    for name, compared, learnt in (("", records, records), ("_baseline", first, first),
                                   ("_improved", first + second, second)):
        found[f"protocol_gap{name}"] = by_row(score_table(compared))
        found[f"learning_curves{name}"] = read_tables(learnt, "history")
    return found


def shown_queries(results: StudyResults) -> dict[str, pd.DataFrame]:
    """The queries that 06_retrieval shows, by its rules."""
    own = results.queries[(results.queries["protocol"] == "standard")
                          & (results.queries["seed"] == results.study.seeds[0])]
    before, after = (own[own["row"] == row] for row in ("baseline", "+ flipped query"))
    return {"corrected": tables.largest_gains(before, after, 3),
            "worst": tables.worst_queries(after, 3)}


def readme_differences(root: Path = ROOT) -> list[str]:
    """The same for the generated parts of the READMEs."""
    return _compare(page.current_readmes(root), root)


def table1_differences(root: Path = ROOT) -> list[str]:
    """The same for the page of Table 1; without any finished run there is none to compare."""
    folder = Workspace(table1_page.NAME, root).reports
    try:
        groups = table1.read_groups(root)
    except FileNotFoundError as error:
        return [f"{path.relative_to(root)}: {error}" for path in folder.glob("report.md")]
    texts = table1_page.render_all(groups, table1.scores(groups), table1.rates(root))
    return _compare({folder / name: text for name, text in texts.items()}, root)


def check_all() -> str:
    """A sentence that says that all is current; ValueError, with each difference, where it is not.
    """
    found = readme_differences() + table1_differences()
    for name in page.README_STUDIES:
        found += differences(Workspace(name)) + old_copies(Workspace(name))
    if found:
        raise ValueError("\n".join([
            "these pages are older than the runs or were changed by hand; make report STUDY=... "
            "and reidlib table1 write them from the finished runs", *found]))
    return (f"reports of {', '.join(page.README_STUDIES)}, Table 1 and the READMEs are what the "
            "runs say")


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
