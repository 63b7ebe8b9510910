"""Run records -> tables, sentences and pages. Every number comes from a file that a run wrote."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reidlib.config import VARIANTS, Study
from reidlib.paths import Workspace, write_text
from reidlib.results import (
    by_variant,
    collect_runs,
    paper_scores,
    percent,
    read_study,
    score_table,
    summarise,
    to_markdown,
    write_csv,
)

SHOWN = ("standard", "lat-top10")  # the honest protocol and the paper's, always side by side
README_STUDIES = ("synthetic", "pku-reid")
PRESETS_IN_REPORT = tuple(dict.fromkeys(v.preset for v in VARIANTS))


def load_records(workspace: Workspace) -> tuple[Study, list[dict]]:
    """The study and all runs that the report needs; an error names the notebook to run."""
    study, records = read_study(workspace), []
    notebooks = {"untrained": "02_baseline", "baseline": "02_baseline", "improved": "03_improved"}
    for preset in PRESETS_IN_REPORT:
        records += collect_runs(study, workspace, [preset], notebooks.get(preset, "04_ablations"))
    return study, records


def headline(records: Sequence[dict]) -> pd.DataFrame:
    """One line a results row: rank-1 and mAP (percent) per protocol, and the paper's own."""
    table = summarise(by_variant(score_table(records)))
    paper = paper_scores().set_index("row")
    lines = []
    for label in table["row"].unique():
        line = {"model": label}
        for protocol in SHOWN:
            scores = table[(table["row"] == label) & (table["protocol"] == protocol)].iloc[0]
            for score, name in (("rank1", "rank-1"), ("mAP", "mAP")):
                line[f"{protocol} {name}"] = percent(scores[f"{score}_mean"],
                                                     scores[f"{score}_std"])
        published = paper.loc[label] if label in paper.index else {}
        line["paper rank-1"] = percent(published.get("rank1"))
        line["paper mAP"] = percent(published.get("mAP"))
        lines.append(line)
    return pd.DataFrame(lines)


def every_protocol(records: Sequence[dict], score: str = "mAP") -> pd.DataFrame:
    """The same embeddings under every protocol: one column a protocol, in percent."""
    table = summarise(by_variant(score_table(records)))
    cells = [percent(m, s) for m, s in zip(table[f"{score}_mean"], table[f"{score}_std"],
                                           strict=True)]
    names = [p["name"] for p in records[0]["protocols"]]
    wide = table.assign(cell=cells).pivot(index="row", columns="protocol", values="cell")[names]
    return wide.reset_index(names="model").rename_axis(columns=None).astype(str)


def protocol_rules(records: Sequence[dict]) -> pd.DataFrame:
    """What each protocol counts, as the runs recorded it."""
    def mark(dropped: bool) -> str:
        return "dropped" if dropped else "kept"

    return pd.DataFrame([{
        "protocol": p["name"], "same person, same camera": mark(p["drop_same_camera"]),
        "junk": mark(p["drop_junk"]),
        "copies of the query": mark(p["drop_copies"] or p["drop_same_camera"]),
        "average precision": (f"{p['depth']} nearest, divided by the hits found" if p["depth"]
                              else f"full ranking, {p['rule']} rule"),
        "source": p["source"]} for p in records[0]["protocols"]])


def cost(records: Sequence[dict]) -> pd.DataFrame:
    """What each preset took: epochs, minutes of training a run, and on what."""
    rows = pd.DataFrame([{"preset": r["preset"], "epochs": r["config"]["epochs"],
                          "minutes": r["train_seconds"] / 60, "device": _device(r)}
                         for r in records])
    table = rows.groupby(["preset", "epochs", "device"], sort=False)["minutes"]
    table = table.agg(["count", "mean"]).reset_index()
    table["mean"] = table["mean"].map("{:.1f}".format)
    return table.rename(columns={"count": "runs", "mean": "minutes a run"})


def setting(study: Study, records: Sequence[dict]) -> str:
    """One sentence: data, queries, backbone, schedule, epochs, seeds."""
    baseline = next(r for r in records if r["preset"] == "baseline")
    config, counts = baseline["config"], baseline["data"]["counts"]
    seeds = ", ".join(map(str, study.seeds))
    return (f"Study `{study.name}`: {counts['train']['images']} training images of "
            f"{counts['train']['identities']} people, {counts['query']['images']} queries against "
            f"{counts['gallery']['images']} gallery images of {counts['gallery']['identities']} "
            f"people; {config['backbone']} at {config['image_size']} pixels, {config['schedule']} "
            f"training, {config['epochs']} epochs, seeds {seeds} "
            f"({'mean ± standard deviation' if len(study.seeds) > 1 else 'one seed: no spread'}).")


def verdicts(study: Study, records: Sequence[dict]) -> list[str]:
    """One sentence a row of the paper: does it reproduce, and what does the step add?

    A row reproduces where rank-1 and mAP under ``lat-top10`` are within one query's weight of the
    paper's; on other data than the paper's only the steps are compared.
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
            above = {p: scores[(scores["row"] == paper["row"][i - 1]) & (scores["protocol"] == p)]
                     for p in SHOWN}
            sentence += _step(ours, above, row.mAP - paper["mAP"][i - 1])
        elif row.dataset != same_data:
            sentence += _plain(ours)
        sentences.append(sentence.strip())
    return sentences


def _level(ours: dict[str, pd.DataFrame], row) -> str:
    paper_like, standard = ours["lat-top10"], ours["standard"]
    weight = 1 / paper_like["n_valid_query"].iloc[0]
    gaps = [paper_like["rank1"].mean() - row.rank1, paper_like["mAP"].mean() - row.mAP]
    if all(abs(gap) <= weight for gap in gaps):
        verdict = "it reproduces, to within one query"
    elif min(gaps) < -weight:
        verdict = "it falls short of the paper by more than one query"
    else:
        verdict = "it does not reproduce: it is better by more than one query"
    return (f"rank-1 {percent(paper_like['rank1'].mean())} and mAP "
            f"{percent(paper_like['mAP'].mean())} under `lat-top10`, the paper has "
            f"{percent(row.rank1)} and {percent(row.mAP)} ({row.source}): {verdict} "
            f"({percent(weight)} points). Under `standard` the same embeddings have "
            f"rank-1 {percent(standard['rank1'].mean())} and mAP "
            f"{percent(standard['mAP'].mean())}. ")


def _plain(ours: dict[str, pd.DataFrame]) -> str:
    return (f"mAP {percent(ours['lat-top10']['mAP'].mean())} under `lat-top10`, "
            f"{percent(ours['standard']['mAP'].mean())} under `standard`; other images than the "
            "paper's, so only the steps below can be compared with it.")


def _step(ours: dict[str, pd.DataFrame], above: dict[str, pd.DataFrame], published: float) -> str:
    parts = []
    for protocol in SHOWN:
        gain = (ours[protocol].set_index("seed")["mAP"] - above[protocol].set_index("seed")["mAP"])
        parts.append(f"{percent(gain.mean(), gain.std(), signed=True)} under `{protocol}` (up in "
                     f"{int((gain > 0).sum())} of {len(gain)} seeds)")
    return (f"The step changes mAP by {' and '.join(parts)}; in the paper "
            f"{percent(published, signed=True)}.")


def summary(study: Study, records: Sequence[dict]) -> str:
    """What the README shows of a study: its setting and its results."""
    link = f"Everything else: [report](reports/{study.name}/report.md)."
    return f"{setting(study, records)} {link}\n\n{to_markdown(headline(records))}\n"


def write_report(workspace: Workspace) -> Path:
    """Write ``report.md``, ``summary.md`` and their tables from what the runs left.

    Returns the path of ``report.md``.
    """
    study, records = load_records(workspace)
    audit = pd.read_csv(workspace.tables / "audit.csv")
    write_csv(workspace.tables / "scores.csv", by_variant(score_table(records)))
    write_csv(workspace.tables / "headline.csv", headline(records))
    figures = [f"![{title}](figures/{name}.png)" for name, title in FIGURES.items()
               if (workspace.figures / f"{name}.png").is_file()]
    page = "\n\n".join([
        f"# Report: study `{study.name}`", setting(study, records),
        "## Results", to_markdown(headline(records)), HEADLINE_NOTE,
        "## Does the paper hold?", "\n".join(f"- {s}" for s in verdicts(study, records)),
        "## The same embeddings under every protocol", "mAP, percent:",
        to_markdown(every_protocol(records)), to_markdown(protocol_rules(records)),
        "## Figures", *figures,
        "## The data", "\n".join(f"- {words}" for words in audit["words"]),
        "## Cost, hardware, versions", to_markdown(cost(records)), environment(records),
        "## How to reproduce", f"```\n{command(study, records)}\n```"])
    write_text(workspace.reports / "summary.md", summary(study, records))
    return write_text(workspace.reports / "report.md", page + "\n")


HEADLINE_NOTE = (
    "All values are percent. `standard` ignores gallery images of the query's own camera; "
    "`lat-top10` is what the paper reports: same camera and copies kept, the 10 nearest only. "
    "The `paper` columns are quoted from it, on its own images.")

FIGURES = {
    "ablation": "mAP and rank-1 of every row under the standard and the paper's protocol",
    "protocol_gap": "the same embeddings under every protocol",
    "cmc": "CMC curves",
    "learning_curves": "learning curves",
    "tsne": "t-SNE of the gallery, baseline and improved",
    "mended": "queries where the baseline's first hit is wrong and the improved model's is right",
    "worst": "the worst queries of the improved model",
}


def environment(records: Sequence[dict]) -> str:
    """Versions, hardware and commit of the runs; says so where they differ."""
    versions = {", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in records}
    commits = sorted({r["commit"] for r in records})
    devices = sorted({_device(r) for r in records})
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


def _device(record: dict) -> str:
    hardware = record["hardware"]
    return hardware.get("gpu") or f"{hardware['cpu']}, {hardware['threads']} CPU threads"
