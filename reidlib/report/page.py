"""StudyResults -> pages: report.md, what the HTML report shows, the README's results."""

import re
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from reidlib.experiments.config import TrainConfig
from reidlib.experiments.records import by_row, device_name, score_table
from reidlib.figures.curves import score_dots
from reidlib.figures.style import save_figure
from reidlib.report import supplementary
from reidlib.report.statements import (
    conclusions,
    gist,
    sampling_note,
    setting,
    setting_of_folds,
    verdicts,
)
from reidlib.report.study_results import StudyResults, epochs, schedule
from reidlib.report.tables import (
    cells,
    change,
    cost,
    every_interval,
    every_protocol,
    paper_scores,
    protocol_rules,
    steps,
    steps_table,
    verification,
)
from reidlib.utils.paths import Workspace, csv_text, write_text
from reidlib.utils.text import percent, to_markdown

README_STUDIES = ("pku-reid", "synthetic")


def summary(found: StudyResults) -> str:
    """What the README shows of a study: its setting, its gist and its results (``headline``)."""
    link = f"Everything else: [report](reports/{found.study.name}/report.md)."
    return (f"{setting(found.study, found.records)} {gist(found.queries)} {link}\n\n"
            f"{to_markdown(found.headline)}\n")


def write_report(found: StudyResults) -> Path:
    """Write ``report.md``, ``summary.md`` and their tables; returns the path of ``report.md``."""
    texts, folder = render(found), found.workspace.reports
    for name in stale(found.workspace, texts):
        (folder / name).unlink()
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.md"


def stale(workspace: Workspace, texts: dict[str, str]) -> list[str]:
    """Tables and figures of studies beside this one that are no longer whole."""
    tables = [f"tables/{name}.csv" for name in ("folds", "schedules", "selection", "finalists",
                                                   "crowd")]
    gone = [name for name in tables if name not in texts]
    gone += [f"figures/{name}.{kind}" for name in ("schedules", "crowd") for kind in ("png", "csv")
             if f"tables/{name}.csv" not in texts]
    return [name for name in gone if (workspace.reports / name).is_file()]


def render(found: StudyResults) -> dict[str, str]:
    """The text of each file of the report, by its path in the study's folder."""
    sections = [f"# Report: study `{found.study.name}`"]
    for title, text in pages(found).items():
        links = [f"![{caption}](figures/{path.name})"
                 for caption, path in figures_of(title, found.workspace).items()]
        sections += [f"## {title}", text, *links]
    contents = {"scores": by_row(score_table(found.records)), "headline": found.headline,
                "steps": found.steps, "alone": found.alone,
                "intervals": every_interval(found.queries),
                "verification": verification(found.records), **found.tables}
    return {"report.md": "\n\n".join(part for part in sections if part) + "\n",
            "summary.md": summary(found),
            **{f"tables/{name}.csv": csv_text(content) for name, content in contents.items()}}


def draw(found: StudyResults) -> None:
    """Draw the figures that are of the report alone: they show several studies."""
    paper = paper_scores().set_index("row")
    claimed = paper.loc["+ flipped query", "mAP"] if found.on_the_papers_data else None
    drawn = {"overview": (found.tables["overview"], "measure", "rules and queries", claimed)}
    if "schedules" in found.tables:
        scores = found.tables["schedules"]
        drawn["schedules"] = (scores[scores["protocol"] == "standard-all"], "schedule",
                              "training schedule", None)
    if found.crowd:
        drawn["crowd"] = found.tables["crowd"], "strangers", "strangers in the gallery", None
    for name, (scores, *what) in drawn.items():
        fig = score_dots(scores, *what)
        save_figure(fig, found.workspace.figures / f"{name}.png", scores)
        plt.close(fig)


def figures_of(section: str, workspace: Workspace) -> dict[str, Path]:
    """Caption -> file of the figures of a section that are there."""
    paths = {caption: workspace.figures / f"{name}.png"
             for name, (place, caption) in FIGURES.items() if place == section}
    return {caption: path for caption, path in paths.items() if path.is_file()}


def _overview_table(found: StudyResults) -> str:
    """``overview`` to read, the paper's numbers beside the rows that are its own."""
    wide = cells(found.tables["overview"], ["row"], "measure")
    published = paper_scores().set_index("row")["mAP"]
    published = published.rename({"+ flipped query": "improved"})
    if found.on_the_papers_data:
        wide.insert(0, "published", [percent(published.get(row)) for row in wide.index])
    return to_markdown(wide.reset_index(names="model"))


def pages(found: StudyResults) -> dict[str, str]:
    """Heading -> text of each section; those of studies that are not there are left out."""
    records = found.records
    sections = {
        "In two minutes": "\n\n".join([
            f"{QUESTION} {_copies(found.audit)}",
            "\n".join(f"- {s}" for s in _conclusions(found)),
            f"mAP, percent. {setting(found.study, records)}", _overview_table(found),
            _names(found)]),
        "Results": "\n\n".join([to_markdown(found.headline), HEADLINE_NOTE,
                                sampling_note(found.queries)]),
        "Does the paper hold?": "\n".join(f"- {s}" for s in verdicts(records, found.steps)),
        "Is each step real?": f"{to_markdown(steps_table(found.steps))}\n\n{STEPS_NOTE}",
        "Each idea alone": to_markdown(steps_table(found.alone)),
        "Beyond the paper": "\n\n".join([BEST_NOTE, _best(found.against)]),
    }
    if "blockwise" in found.beside:
        records_there = found.beside["blockwise"]
        under = steps(found.schedules[schedule(records_there)], against="baseline")
        sections["Both schedules"] = "\n\n".join([
            SCHEDULES_NOTE.format(PAPERS, ours=schedule(records_there)),
            to_markdown(supplementary.schedules_table(found.tables["schedules"])),
            "The paper's schedule, improved against baseline:", to_markdown(steps_table(under)),
            "And under every protocol, mAP:",
            to_markdown(every_protocol(found.schedules[schedule(records_there)]))])
    if found.folds is not None:
        models = {row: steps(found.folds, against=row) for row in ("baseline", "improved")}
        parts = [FOLDS_NOTE, setting_of_folds(found.beside["folds"]),
                 to_markdown(found.tables["folds"]), _best(models),
                 "Each idea alone:", to_markdown(steps_table(found.folds_alone))]
        if len(found.at_bests_rate):
            parts += [RATE_NOTE, to_markdown(steps_table(found.at_bests_rate))]
        sections["Everybody tested by a stranger"] = "\n\n".join(parts)
    if found.crowd:
        crowd = found.crowd[0]["strangers"]
        sections["A crowd of strangers"] = "\n\n".join([
            CROWD_NOTE.format(**crowd), to_markdown(supplementary.distractor_table(found.tables["crowd"])),
            to_markdown(supplementary.distractor_steps(found.crowd))])
    if "selection" in found.beside:
        sections["How `best` was chosen"] = "\n\n".join([
            SELECTION_NOTE, *(_selected(found, name) for name in ("selection", "finalists")
                              if name in found.tables)])
    return {**sections,
        "The same embeddings under every protocol": "\n\n".join([
            "mAP, percent:", to_markdown(every_protocol(found.queries)),
            to_markdown(protocol_rules(records[0]["protocols"]))]),
        "Verification": f"{to_markdown(verification(records))}\n\n{VERIFICATION_NOTE}",
        "Figures": "",
        "The data": "\n".join(f"- {words}" for words in found.audit["words"]),
        "Cost, hardware, versions": f"{_costs(found)}\n\n{environment(found)}",
        "How to reproduce": f"```\n{command(found)}\n```",
        "Limits": "\n".join(f"- {limit}" for limit in (*LIMITS, *_left_out(found))),
    }


def _conclusions(found: StudyResults) -> list[str]:
    """The verdict, with what has to be known of how `best` came about."""
    sentences = conclusions(found.queries, found.asked, found.on_the_papers_data)
    if found.crowd:
        falls = found.tables["crowd"].groupby("row", sort=False)["value"].agg(["first", "last"])
        sentences.append(
            f"**In a crowd** of {found.crowd[0]['strangers']['images']:,} strangers (one seed, "
            "`standard-all`) mAP falls " + ", ".join(
                f"from {percent(row.first)} to {percent(row.last)} ({row.Index})"
                for row in falls.itertuples()) + ".")
    if "selection" in found.beside:
        tried = {r["preset"] for r in found.beside["selection"]}
        sentences.append(
            f"**To weigh this.** {len(tried)} recipes were tried on held-out training people, and "
            "`best` is what remained; these people are in the cross-validation too. The paper's "
            "ideas were trained with the baseline's rates and epochs, without such a search.")
        if len(found.at_bests_rate):
            paper, ours = (f"{change(r)} ({r.verdict})" for r in found.at_bests_rate.itertuples())
            sentences[-1] += (" With the larger rate of `best` for all, in cross-validation, the "
                              f"paper's model against its baseline is {paper}, `best` against the "
                              f"paper's model {ours}.")
    return sentences


def _names(found: StudyResults) -> str:
    """What the models of the first table are."""
    by_preset = {r["preset"]: r for r in found.records}
    return ("`baseline`: LA-Transformer as the paper takes it over. `improved`: the paper's model, "
            "with y-pooling, AM-Softmax + triplet loss and flipped queries. `best`: the baseline "
            f"with {supplementary.changes(by_preset['best'], by_preset['baseline'])}, images and mirrors "
            "averaged on both sides.")


def _selected(found: StudyResults, name: str) -> str:
    """One round of the choice of `best`: its setting and its table."""
    records = found.beside[name]
    return f"{setting_of_folds(records)}\n\n{to_markdown(found.tables[name])}"


def _best(against: dict[str, pd.DataFrame]) -> str:
    """Every compared model against the baseline, and `best` against the paper's model."""
    ours = against["improved"]
    table = pd.concat([against["baseline"], ours[ours["row"] == "best"]])
    return to_markdown(steps_table(table))


def _copies(audit: pd.DataFrame) -> str:
    return next(words for check, words in zip(audit["check"], audit["words"], strict=True)
                if check == "query copies in gallery")


def _left_out(found: StudyResults) -> list[str]:
    return [f"Not shown: {name}, for {reason}." for name, reason in found.left_out.items()]


def _costs(found: StudyResults) -> str:
    parts = {"": found.records, **{f"-{name}": own for name, own in found.beside.items()}}
    table = pd.concat([cost(own).assign(study=f"{found.study.name}{name}")
                       for name, own in parts.items()])
    return to_markdown(table)

QUESTION = (
    "**Asked.** A paper reports that an LA-Transformer with y-pooling, AM-Softmax + triplet loss "
    "and flipped queries finds every person at rank 1. Do its ideas help, how much of its numbers "
    "is the protocol, and what does better?")
HEADLINE_NOTE = (
    "All values are percent: mean ± standard deviation over seeds [95 % bootstrap interval over "
    "query identities]. `standard` ignores gallery images of the query's own camera; "
    "`standard-all` is the same with every test image as a query; `lat-top10` is what the paper "
    "reports: same camera and copies kept, the 10 nearest only. The `paper` columns are quoted "
    "from it, on its own images. Re-ranking is not in the paper.")
STEPS_NOTE = (
    "Percentage points, paired over queries: difference ± standard deviation over seeds [95 % "
    "bootstrap interval over identities, 10,000 resamples]. A step is better or worse where the "
    "interval leaves 0 out and all seeds agree; the interval speaks of other people with these "
    "trained models, not of other seeds. No correction for several comparisons.")
BEST_NOTE = (
    "`best` is a recipe of ours, chosen on the training people of PKU-Reid alone. Re-ranking is "
    "another row, for it changes the search and not the model.")
PAPERS = f"{TrainConfig().epochs} epochs, a block every {TrainConfig().release_every}"
SCHEDULES_NOTE = (
    "The paper trains blockwise: all transformer blocks frozen at first, then released one after "
    "the other from the end ({}). Here: {ours}. mAP, percent:")
FOLDS_NOTE = (
    "Identity cross-validation: the people of all splits are dealt to folds; each fold's people "
    "are tested by a model that was trained on the others, every image a query against all images "
    "of its fold, under `standard`. Scores are pooled over folds, intervals are over people. "
    "`best` was chosen on some of these people, so its place here is a little flattered; on the "
    "test people above it is not.")
RATE_NOTE = (
    "Is the verdict on the paper's model one on learning rates? It, its baseline and `best` at the "
    "rate of `best`, which was chosen on variants of the baseline:")
CROWD_NOTE = (
    "Every test image asks the test gallery and strangers: training images of {name} "
    "({images:,} images of {identities:,} people), on whom nothing was trained. Under `standard`, "
    "mAP in percent, one seed:")
SELECTION_NOTE = (
    "Candidates, trained on some of the training people and scored on the others, each of their "
    "images a query (`standard-all`). In a second round some were scored on all training people "
    "in turn; the first of its table is `best`. No score of the test people decided between "
    "candidates; but the second round was added after the first one's winner had been seen, once, "
    "to do no better on the test people than the paper's model. Percent, sorted by mAP with flip "
    "on both sides; differences are of mAP without flip, paired, with 95 % intervals over the "
    "held-out people.")
LIMITS = (
    "Intervals are over people, not over data sets, cameras or places.",
    "A verdict is for this backbone, schedule and number of epochs; larger backbones are one "
    "parameter away and were not run.",
    "Margins, scales and sampling are not in the paper; ours are in the configuration.",
    "The paper's ideas were trained with the baseline's rates and epochs; no recipe with them was "
    "searched for, so what they give at their own best is open.",
)
VERIFICATION_NOTE = (
    "Is this pair one person? True pairs accepted (percent) where at most the named share of false "
    "pairs is, over the pairs that `standard` counts.")

# file -> the section that shows it, and its caption
FIGURES = {
    "overview": ("In two minutes", "mAP of each model by each way of asking"),
    "ablation": ("Results", "mAP and rank-1 of every row under the standard and the paper's "
                 "protocol"),
    "schedules": ("Both schedules", "mAP under both schedules, every test image a query"),
    "crowd": ("A crowd of strangers", "mAP against the number of strangers in the gallery"),
    "protocol_gap": ("The same embeddings under every protocol",
                     "how far apart protocols score the same embeddings"),
    "ap_scatter": ("Figures", "average precision of every query under both protocols"),
    "cmc": ("Figures", "CMC curves"),
    "learning_curves": ("Figures", "learning curves"),
    "tsne": ("Figures", "t-SNE of the gallery by identity"),
    "tsne_cameras": ("Figures", "the same maps by camera"),
    "mended": ("Figures", "largest gains among the queries where the baseline's first hit is wrong "
               "and the improved model's is right"),
    "worst": ("Figures", "the worst queries of the improved model"),
    "maps": ("Figures", "which patches make the first five hits similar, baseline and best"),
}


def environment(found: StudyResults) -> str:
    """Versions, hardware and commit of all runs, each once."""
    costs = [r["cost"] for r in (*found.everything, *(found.crowd or []))]
    versions = {", ".join(f"{k} {v}" for k, v in sorted(c["versions"].items())) for c in costs}
    commits = sorted({c["commit"] for c in costs})
    devices = sorted({device_name({"cost": c}) for c in costs})
    return (f"Hardware: {'; '.join(devices)}. Versions: {' / '.join(sorted(versions))}. "
            f"Commit: {', '.join(commits)}.")


def command(found: StudyResults) -> str:
    """The command that makes these runs."""
    target = "paper" if found.beside else "report"
    return (f"make {target} STUDY={found.study.name} EPOCHS={epochs(found.records)} "
            f"SEEDS={','.join(map(str, found.study.seeds))} AGAIN=1")


def readme_block(root: Path) -> str:
    """The README's results: the summary of every study that has a report."""
    pages = [Workspace(name, root).reports / "summary.md" for name in README_STUDIES]
    blocks = [page.read_text(encoding="utf-8").strip() for page in pages if page.is_file()]
    return "\n\n".join([*blocks, HEADLINE_NOTE])


def replace_block(text: str, name: str, body: str) -> str:
    """``text`` with ``body`` between its ``<!-- name -->`` and ``<!-- /name -->`` marks."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one {start} and one {end}, found {text.count(start)} and "
                         f"{text.count(end)}")
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{start}\n\n{body}\n\n{end}", text, flags=re.DOTALL)


def update_readme(root: Path) -> None:
    """Write the results block of ``root``'s README, where there is one, from its reports."""
    path = root / "README.md"
    if path.is_file():
        write_text(path, replace_block(path.read_text(encoding="utf-8"), "results",
                                       readme_block(root)))
