"""Results -> pages: report.md, what the HTML report shows, the generated parts of the READMEs."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import pyplot as plt

from reidlib.evaluation.protocols import PROTOCOLS, Protocol
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.records import by_row, device_name, score_table
from reidlib.figures.dots import change_dots, score_dots
from reidlib.figures.style import save_figure
from reidlib.report import arms, statements, supplementary, tables
from reidlib.report.study_results import StudyResults, a_block_every, count_epochs, epochs
from reidlib.utils.console import log
from reidlib.utils.paths import Workspace, csv_text, write_text
from reidlib.utils.text import percent, render, to_markdown

TEMPLATES = Path(__file__).with_name("templates")
README_STUDIES = ("pku-reid", "synthetic")  # the first is on the front page
FILTERS = {"change": tables.change, "epochs": count_epochs,
           "steps_table": lambda steps: to_markdown(tables.steps_table(steps))}
# candidates or a supplementary study -> files that go when it is gone
OPTIONAL = {**{name: [f"tables/{name}.csv"] for name in ("candidates", "folds", "selection",
                                                         "finalists", "margins", "ingredients",
                                                         "arms_selection", "cheaper",
                                                         "final")},
            **{name: [f"tables/{name}.csv", f"figures/{name}.png", f"figures/{name}.csv"]
               for name in ("schedules", "distractors", "arms")}}


# of a configuration, what the paper's schedule sets
SCHEDULE = ("schedule", "release", "release_every", "epochs", "lr", "backbone_lr", "lr_decay",
            "warmup_epochs", "batch_size", "weight_decay")
# parts of the READMEs, with links that lead on from there: no pages of their own
SUMMARY, HEADLINE = "summary.txt", "headline.txt"
CONTENTS = "<!-- contents -->"  # where the list of a report's parts goes


class Section(NamedTuple):
    """One part of ``report.md``: its heading, its text, and caption -> file of its figures."""

    title: str
    text: str
    figures: dict[str, Path]


def write_report(results: StudyResults) -> Path:
    """Write ``report.md``, the README parts and their tables; returns the path of ``report.md``."""
    texts, folder = render_all(results), results.workspace.reports
    for name in outdated(results.workspace, texts):
        (folder / name).unlink()
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.md"


def outdated(workspace: Workspace, texts: dict[str, str]) -> list[str]:
    """Tables and figures of candidates and supplementary studies that are gone or incomplete."""
    gone = [file for name, files in OPTIONAL.items() if f"tables/{name}.csv" not in texts
            for file in files]
    return [file for file in gone if (workspace.reports / file).is_file()]


def render_all(results: StudyResults) -> dict[str, str]:
    """The text of each file of the report, by its path in the study's folder."""
    values = context(results)
    contents = {"scores": by_row(score_table(results.records)), "headline": results.headline,
                "ranks": results.ranks,
                "steps": results.steps, "alone": results.alone,
                "intervals": tables.every_interval(results.queries),
                "verification": tables.verification(results.records), **results.tables}
    pages = {name: render(TEMPLATES / f"{name}.j2", FILTERS, **values)
             for name in ("report.md", SUMMARY, HEADLINE)}
    pages["report.md"] = pages["report.md"].replace(CONTENTS, contents_list(pages["report.md"]))
    return {**pages,
            **{f"tables/{name}.csv": csv_text(content) for name, content in contents.items()}}


def sections(results: StudyResults) -> Iterator[Section]:
    """The parts of ``report.md``, for a page that shows its figures itself."""
    text = render(TEMPLATES / "report.md.j2", FILTERS, **context(results))
    text = unbroken(text.replace(CONTENTS, ""))
    link = re.compile(r"^!\[(.*)\]\(figures/(.*)\)$", re.M)
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        figures = {caption: results.workspace.figures / name for caption, name in
                   link.findall(body)}
        yield Section(title, link.sub("", body).strip(), figures)


def contents_list(text: str) -> str:
    """Links to the parts of a page but its first."""
    titles = re.findall(r"^## (.*)$", text, re.M)[1:]
    return "Contents: " + " · ".join(f"[{title.replace('`', '')}](#{anchor(title)})"
                                     for title in titles)


def anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def unbroken(text: str) -> str:
    """The text of a page on which intervals, sizes in pixels, and rank-1 stay on one line."""
    text = re.sub(r"rank-(?=\d)", "rank\N{NON-BREAKING HYPHEN}", text)
    return re.sub(r"(\[[-+\d.]+,) |(?<=\d) (×) (?=\d)", lambda found: (
        f"{found[1]}\N{NO-BREAK SPACE}" if found[1] else "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"),
        text)


def context(results: StudyResults) -> dict[str, Any]:
    """What the templates are given: the results, tables and numbers; the words are theirs."""
    records = {r["preset"]: r for r in results.records}
    where, sample = list(results.samples.items())[-1]  # that with the most people
    return {
        "results": results, "study": results.study,
        "baseline": records["baseline"], "best": records.get("best"),
        "improved": records.get("improved"),
        "candidates": {r["preset"]: r for r in results.candidate_records}.values(),
        "copies": results.audit.set_index("check").loc["query copies in gallery", "words"],
        "numbers": statements.numbers(results.queries), "own_schedule": _own_schedule(results),
        "unconverged": tables.unconverged(results.records),
        "is_easy": statements.is_easy(results.queries),
        "claims": statements.claims(*sample, results.same_rate, results.arm_steps),
        "where": where,
        "n_people": results.queries.dropna(subset="AP")["id"].nunique(),
        "distractors": results.distractors and results.distractors[0]["distractors"],
        "overview_table": _overview_table(results), "short_table": _short_table(results),
        "paper_schedule": f"{count_epochs(TrainConfig().epochs)}, "
                          f"{a_block_every(TrainConfig().release_every)}",
        "n_epochs": epochs(results.records), "costs": _costs(results),
        **environment(results), "tables": tables, "supplementary": supplementary, "arms": arms,
        "statements": statements,
        "figure": lambda name, caption: _figure(results.workspace, name, caption),
    }


def _own_schedule(results: StudyResults) -> statements.Numbers | None:
    """``statements.numbers`` of runs with the schedule of the paper's public code, if there are."""
    records, paper = results.supplementary.get("blockwise"), TrainConfig(release="public-code")
    if not records or any(records[-1]["config"].get(key) != getattr(paper, key)
                          for key in SCHEDULE):
        return None
    return statements.numbers(tables.query_rows(records))


def drawn(results: StudyResults) -> dict[str, tuple[pd.DataFrame, Callable]]:
    """Figures that are of the report alone, as they show several studies: what to draw, and how."""
    paper = tables.paper_scores().set_index("row")
    claimed = paper.loc[statements.PAPER_MODEL, "mAP"] if results.on_the_papers_data else None
    found = {"overview": (results.tables["overview"], partial(
        score_dots, by="measure", label="protocol", published=claimed))}
    if "schedules" in results.tables:
        scores = results.tables["schedules"]
        found["schedules"] = (scores[scores["protocol"] == "standard-all"], partial(
            score_dots, by="schedule", label="training schedule"))
    if results.arms:
        found["arms"] = (pd.concat([own.assign(sample=sample) for sample, own in
                                    results.arm_steps.items()], ignore_index=True), change_dots)
    if results.distractors:
        found["distractors"] = (results.tables["distractors"], partial(
            score_dots, by="distractors", label="distractors in the gallery"))
    return found


def draw(results: StudyResults) -> None:
    """Draw the figures of ``drawn``."""
    for name, (table, figure) in drawn(results).items():
        fig = figure(table)
        save_figure(fig, results.workspace.figures / f"{name}.png", table)
        plt.close(fig)


def _figure(workspace: Workspace, name: str, caption: str) -> str:
    """A link to a figure of the study; nothing where it is not there."""
    there = (workspace.figures / f"{name}.png").is_file()
    return f"![{caption}](figures/{name}.png)" if there else ""


def _overview_table(results: StudyResults) -> pd.DataFrame:
    """``overview`` to read, with the paper's numbers where the rows and images are its own."""
    wide = tables.cells(results.tables["overview"], ["row"], "measure")
    published = tables.paper_scores().set_index("row")["mAP"]
    published = published.rename({statements.PAPER_MODEL: "improved"})
    if results.on_the_papers_data:
        wide.insert(0, "published", [percent(published.get(row)) for row in wide.index])
    return wide.reset_index(names="model")


def _short_table(results: StudyResults) -> pd.DataFrame:
    """At most 5 x 5: the compared models, the paper's number, the three main protocols."""
    table = _overview_table(results)
    shown = ["model", "published", *tables.SHOWN, "standard-all"]
    return table[[name for name in shown if name in table]]


def _costs(results: StudyResults) -> pd.DataFrame:
    """What the runs took: by preset, for supplementary studies all presets in one line."""
    parts = {results.study.name: [*results.records, *results.candidate_records]}
    for name, own in results.supplementary.items():
        parts[f"{results.study.name}-{name}"] = [{**r, "preset": "all"} for r in own]
    return pd.concat([tables.cost(own).assign(study=name) for name, own in parts.items()])


def environment(results: StudyResults) -> dict[str, list[str]]:
    """Devices, versions and commits of all runs, each once."""
    costs = [r["cost"] for r in (*results.all_records, *(results.distractors or []))]
    versions = {", ".join(f"{k} {v}" for k, v in sorted(c["versions"].items())) for c in costs}
    return {"devices": sorted({device_name({"cost": c}) for c in costs}),
            "versions": sorted(versions), "commits": sorted({c["commit"] for c in costs})}


def readme_blocks(root: Path) -> dict[Path, dict[str, str]]:
    """File -> block name -> text of the generated parts of the READMEs."""
    def read(study: str, name: str) -> str:
        path = Workspace(study, root).reports / name
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    results = [read(study, HEADLINE) for study in README_STUDIES]
    note = render(TEMPLATES / "headline_note.md.j2", FILTERS).strip()
    return {root / "README.md": {"results": read(README_STUDIES[0], SUMMARY)},
            root / "reports" / "README.md": {
                "protocols": protocol_rules([*PROTOCOLS.values()]).strip(),
                "results": "\n\n".join([*filter(None, results), note])}}


def protocol_rules(protocols: Sequence[Protocol]) -> str:
    """What each protocol counts, as a Markdown table."""
    return render(TEMPLATES / "protocols.md.j2", protocols=protocols)


def replace_block(text: str, name: str, body: str) -> str:
    """``text`` with ``body`` between its ``<!-- name -->`` and ``<!-- /name -->`` marks."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one {start} and one {end}, found {text.count(start)} and "
                         f"{text.count(end)}")
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{start}\n\n{body}\n\n{end}", text, flags=re.DOTALL)


def current_readmes(root: Path) -> dict[Path, str]:
    """File -> text of each README that is there, with its generated parts as the reports say."""
    texts = {}
    for path, blocks in readme_blocks(root).items():
        if path.is_file():
            texts[path] = path.read_text(encoding="utf-8")
            for name, body in blocks.items():
                texts[path] = replace_block(texts[path], name, body)
    return texts


def update_readmes(workspace: Workspace) -> None:
    """Write the generated parts of the READMEs, if this study is one that they show."""
    if workspace.study not in README_STUDIES:
        return
    try:
        for path, text in current_readmes(workspace.root).items():
            write_text(path, text)
    except ValueError as error:  # no marks: a README of another project
        log(f"the READMEs in {workspace.root} stay as they are: {error}")
