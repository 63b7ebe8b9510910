"""Tables -> sentences and pages: report.md, the README's results."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reidlib.config import SINGLES, VARIANTS, Study
from reidlib.intervals import compare, verdict
from reidlib.paths import Workspace, csv_text, write_text
from reidlib.results import (
    by_variant,
    collect_runs,
    paper_scores,
    percent,
    read_study,
    score_table,
    to_markdown,
)
from reidlib.tables import (
    SHOWN,
    cost,
    cut,
    device_name,
    every_interval,
    every_protocol,
    first_hits,
    headline,
    protocol_rules,
    query_rows,
    steps,
    steps_table,
    verification,
)

README_STUDIES = ("synthetic", "pku-reid")
PRESETS_IN_REPORT = tuple(dict.fromkeys(v.preset for v in (*VARIANTS, *SINGLES)))


def load_records(workspace: Workspace) -> tuple[Study, list[dict]]:
    """The study and all runs that the report needs; an error names the notebook to run."""
    study, records = read_study(workspace), []
    notebooks = {"untrained": "02_baseline", "baseline": "02_baseline", "improved": "03_improved"}
    for preset in PRESETS_IN_REPORT:
        records += collect_runs(study, workspace, [preset], notebooks.get(preset, "04_ablations"))
    return study, records


def setting(study: Study, records: Sequence[dict]) -> str:
    """One sentence: data, queries, backbone, schedule, epochs, seeds."""
    baseline = next(r for r in records if r["preset"] == "baseline")
    seeds = ", ".join(map(str, study.seeds))
    return (f"{setting_of(baseline)[:-1]}, seeds {seeds} "
            f"({'mean ± standard deviation' if len(study.seeds) > 1 else 'one seed: no spread'}).")


def setting_of(record: dict) -> str:
    """One sentence: a run's data, queries, backbone, schedule, epochs."""
    config, counts = record["config"], record["data"]["counts"]
    return (f"Study `{record['study']}`: {counts['train']['images']} training images of "
            f"{counts['train']['identities']} people, {counts['query']['images']} queries against "
            f"{counts['gallery']['images']} gallery images of {counts['gallery']['identities']} "
            f"people; {config['backbone']} at {config['image_size']} pixels, {config['schedule']} "
            f"training, {config['epochs']} epochs, {config['precision']}.")


def verdicts(records: Sequence[dict], changes: pd.DataFrame) -> list[str]:
    """One sentence a row of the paper: does it reproduce, and what does the step add?

    A row reproduces where rank-1 and mAP under ``lat-top10`` are within one query's weight of the
    paper's; on other data than the paper's only the steps are compared. ``changes``: ``steps``.
    """
    scores = by_variant(score_table(records))
    same_data = records[0]["data"]["name"]
    paper, sentences = paper_scores(), []
    for i, row in enumerate(paper.itertuples()):
        ours = {p: scores[(scores["row"] == row.row) & (scores["protocol"] == p)] for p in SHOWN}
        sentence = f"**{row.row}**: "
        if row.dataset == same_data:
            sentence += _level(ours, row)
        if i:
            sentence += _step(changes[changes["row"] == row.row], row.mAP - paper["mAP"][i - 1])
        elif row.dataset != same_data:
            sentence += _plain(ours)
        sentences.append(sentence.strip())
    return sentences


def _level(ours: dict[str, pd.DataFrame], row) -> str:
    paper_like, standard = ours["lat-top10"], ours["standard"]
    weight = 1 / paper_like["n_valid_query"].iloc[0]
    gaps = [paper_like["rank1"].mean() - row.rank1, paper_like["mAP"].mean() - row.mAP]
    if all(abs(gap) <= weight for gap in gaps):
        level = "it reproduces, to within one query"
    elif min(gaps) < -weight:
        level = "it falls short of the paper by more than one query"
    else:
        level = "it does not reproduce: it is better by more than one query"
    return (f"rank-1 {percent(paper_like['rank1'].mean())} and mAP "
            f"{percent(paper_like['mAP'].mean())} under `lat-top10`, the paper has "
            f"{percent(row.rank1)} and {percent(row.mAP)} ({row.source}): {level} "
            f"({percent(weight)} points). Under `standard` the same embeddings have "
            f"rank-1 {percent(standard['rank1'].mean())} and mAP "
            f"{percent(standard['mAP'].mean())}. ")


def _plain(ours: dict[str, pd.DataFrame]) -> str:
    return (f"mAP {percent(ours['lat-top10']['mAP'].mean())} under `lat-top10`, "
            f"{percent(ours['standard']['mAP'].mean())} under `standard`; other images than the "
            "paper's, so only the steps below can be compared with it.")


def _step(changes: pd.DataFrame, published: float) -> str:
    parts = [f"{percent(r.difference, r.std, True, (r.low, r.high))} under `{r.protocol}` "
             f"({r.verdict}; up in {r.seeds_up} of {r.seeds} seeds)" for r in changes.itertuples()]
    return (f"The step changes mAP by {'; '.join(parts)}; in the paper by "
            f"{percent(published, signed=True)}.")


def gist(queries: pd.DataFrame) -> str:
    """One sentence: what the paper's additions do together, against the baseline."""
    base, paper = "baseline", "+ flipped query"
    change = compare(*(cut(queries, row, "standard") for row in (base, paper)))
    mended, spoiled, n = first_hits(queries, base, paper)
    return (f"Under `standard` the paper's additions together change mAP by "
            f"{percent(change.difference, change.std, True, (change.low, change.high))} points "
            f"against the baseline ({verdict(change)}); of {n} first hits (queries x seeds) they "
            f"mend {mended} and spoil {spoiled}.")


def summary(study: Study, records: Sequence[dict], queries: pd.DataFrame,
            table: pd.DataFrame) -> str:
    """What the README shows of a study: its setting, its gist and its results (``headline``)."""
    link = f"Everything else: [report](reports/{study.name}/report.md)."
    return (f"{setting(study, records)} {gist(queries)} {link}\n\n"
            f"{to_markdown(table)}\n")


def write_report(workspace: Workspace) -> Path:
    """Write ``report.md``, ``summary.md`` and their tables from what the runs left.

    Returns the path of ``report.md``.
    """
    for name, text in render(workspace).items():
        write_text(workspace.reports / name, text)
    return workspace.reports / "report.md"


def render(workspace: Workspace) -> dict[str, str]:
    """The text of each file of the report, by its path in the study's folder."""
    study, records = load_records(workspace)
    queries = query_rows(records)
    table, changes, rates = headline(queries), steps(queries), verification(records)
    alone = steps(query_rows(records, SINGLES), against="baseline")
    audit = pd.read_csv(workspace.tables / "audit.csv")
    contents = {"scores": by_variant(score_table(records)), "headline": table, "steps": changes,
                "alone": alone, "intervals": every_interval(queries), "verification": rates}
    figures = [f"![{title}](figures/{name}.png)" for name, title in FIGURES.items()
               if (workspace.figures / f"{name}.png").is_file()]
    page = "\n\n".join([
        f"# Report: study `{study.name}`", setting(study, records), gist(queries),
        "## Results", to_markdown(table), HEADLINE_NOTE, sampling_note(queries),
        "## Does the paper hold?", "\n".join(f"- {s}" for s in verdicts(records, changes)),
        "## Is each step real?", to_markdown(steps_table(changes)), STEPS_NOTE,
        "## Each idea alone", to_markdown(steps_table(alone)),
        "## The same embeddings under every protocol", "mAP, percent:",
        to_markdown(every_protocol(records)),
        to_markdown(protocol_rules(records[0]["protocols"])),
        "## Verification", to_markdown(rates), VERIFICATION_NOTE,
        "## Figures", *figures,
        "## The data", "\n".join(f"- {words}" for words in audit["words"]),
        "## Cost, hardware, versions", to_markdown(cost(records)), environment(records),
        "## How to reproduce", f"```\n{command(study, records)}\n```"])
    return {"report.md": page + "\n", "summary.md": summary(study, records, queries, table),
            **{f"tables/{name}.csv": csv_text(content) for name, content in contents.items()}}


def sampling_note(queries: pd.DataFrame) -> str:
    """How many people the intervals rest on, and what that means for them."""
    people = queries.dropna(subset="AP")["id"].nunique()
    small = (" With so few people a bootstrap interval is too narrow: read it as a lower bound of "
             "the doubt." if people < 20 else "")
    return f"Intervals rest on {people} query identities.{small}"


HEADLINE_NOTE = (
    "All values are percent: mean ± standard deviation over seeds [95 % bootstrap interval over "
    "query identities]. `standard` ignores gallery images of the query's own camera; "
    "`standard-all` is the same with every test image as a query; `lat-top10` is what the paper "
    "reports: same camera and copies kept, the 10 nearest only. The `paper` columns are quoted "
    "from it, on its own images. Re-ranking is not in the paper.")
STEPS_NOTE = (
    "Percentage points, paired over queries: difference ± standard deviation over seeds [95 % "
    "bootstrap interval over identities, 10,000 resamples]. A step is better or worse where the "
    "interval leaves 0 out; it speaks of other people with these trained models, not of other "
    "seeds. No correction for several comparisons.")
VERIFICATION_NOTE = (
    "Is this pair one person? True pairs accepted (percent) where at most the named share of false "
    "pairs is, over the pairs that `standard` counts.")

FIGURES = {
    "ablation": "mAP and rank-1 of every row under the standard and the paper's protocol",
    "protocol_gap": "the same embeddings under every protocol",
    "ap_scatter": "average precision of every query under both protocols",
    "cmc": "CMC curves",
    "learning_curves": "learning curves",
    "tsne": "t-SNE of the gallery, baseline and improved",
    "mended": ("largest gains among the queries where the baseline's first hit is wrong and the "
               "improved model's is right"),
    "worst": "the worst queries of the improved model",
}


def environment(records: Sequence[dict]) -> str:
    """Versions, hardware and commit of the runs, each once."""
    versions = {", ".join(f"{k} {v}" for k, v in r["cost"]["versions"].items()) for r in records}
    commits = sorted({r["cost"]["commit"] for r in records})
    devices = sorted({device_name(r) for r in records})
    return (f"Hardware: {'; '.join(devices)}. Versions: {' / '.join(sorted(versions))}. "
            f"Commit: {', '.join(commits)}.")


def command(study: Study, records: Sequence[dict]) -> str:
    """The command that makes these runs."""
    baseline = next(r for r in records if r["preset"] == "baseline")
    return (f"make report STUDY={study.name} EPOCHS={baseline['config']['epochs']} "
            f"SEEDS={','.join(map(str, study.seeds))}")


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
