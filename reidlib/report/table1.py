"""The systems of the paper's Table 1: what their finished runs scored, took and prove.

``systems.csv`` and ``published.csv`` hold what is published of them.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reidlib.evaluation.protocols import PAPER_PROTOCOL, SHOWN
from reidlib.evaluation.statistics import Comparison, compare, corrected, interval, verdict
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.records import collect_runs, device_name, read_tables
from reidlib.experiments.study import Study, load_study, read_study
from reidlib.report.tables import cut, last_epochs, title
from reidlib.utils.parameters import height_width
from reidlib.utils.paths import Workspace

FOLDER = Path(__file__).parent
PUBLISHED_STUDY = "table1-published"
SELECTION = "table1-selection"
STUDIES = ("table1-market1501", "table1-cuhk03", PUBLISHED_STUDY)
# LA-Transformer with our options: no system of the paper's table. Preset, and row
OURS_PRESET, OURS = "ours-one-training", "ours, one training"
PRETRAINING = {"in21k": "ImageNet-21k", "in1k": "ImageNet-1k"}  # part of timm's name -> data


class Group(NamedTuple):
    """What the finished runs of one study left; a row is a system and how it is retrieved."""

    study: Study
    dataset: str                     # exact name
    title: str
    records: dict[str, list[dict]]   # row -> its runs, one a seed
    queries: pd.DataFrame            # per-query scores of both rules, with the column row
    missing: list[str]               # rows that have no finished run


class Lead(NamedTuple):
    """The row with the highest mAP under one protocol, and how far it is ahead of the second."""

    protocol: str
    first: str
    value: float
    second: str | None = None
    ahead: Comparison | None = None


class Order(NamedTuple):
    """Does the order of a group's rows by mAP depend on the protocol?"""

    title: str
    leads: list[Lead]                # of the trained rows, under both protocols
    pairs: int
    changed: list[tuple[str, str]]   # ahead under ``standard`` and behind under the paper's rule
    proven: list[tuple[str, str]]    # those of them that are ``better`` on both sides
    added: tuple[float, float]       # least and most mAP that the paper's rule adds to a row
    ours: list[Lead]                 # ``OURS`` against the first of each of ``leads``


def systems() -> pd.DataFrame:
    """By model: system, published epochs (NaN: not known to us), and images_an_identity.

    The latter is how many images of each person an epoch shows (NaN: all).
    """
    return pd.read_csv(FOLDER / "systems.csv").set_index("model")


def published() -> pd.DataFrame:
    """Published scores (fractions), what they measure, and whether the paper's Table 1 has them."""
    return pd.read_csv(FOLDER / "published.csv")


def row_name(config: TrainConfig) -> str:
    """How the tables call a run."""
    if not config.epochs:
        return "not fine-tuned"
    if config.preset == OURS_PRESET:
        return OURS
    without = config.model == "transreid" and not config.side_information
    return systems().loc[config.model, "system"] + ", without cameras" * without


def row_names(study: Study) -> dict[str, str]:
    """Preset -> row; where two presets would be one row, with the preset's name."""
    names = {preset: row_name(study.config(preset, study.seeds[0])) for preset in study.all_presets}
    found = list(names.values())
    return {preset: name if found.count(name) == 1 else f"{name} ({preset})"
            for preset, name in names.items()}


def read_group(name: str, root: Path) -> Group:
    """The runs of one study that are finished; see ``records.read_run`` for errors."""
    workspace = Workspace(name, root)
    saved = (workspace.reports / "study.json").is_file()
    study = read_study(workspace) if saved else load_study(name)
    records, parts, missing = {}, [], []
    for preset, row in row_names(study).items():
        try:
            runs = collect_runs(study, workspace, [preset])
        except FileNotFoundError:
            missing.append(row)
            continue
        for own, table in _retrievals(row, runs):
            records[own] = runs
            parts.append(table.assign(row=own))
    dataset = next(iter(records.values()))[0]["data"]["name"] if records else study.dataset
    called = title(dataset) + ", published schedules" * (name == PUBLISHED_STUDY)
    return Group(study, dataset, called, records, pd.concat(parts or [pd.DataFrame()]), missing)


def _retrievals(row: str, runs: Sequence[dict]) -> list[tuple[str, pd.DataFrame]]:
    """(row, per-query scores) of each way in which the images of a run are retrieved."""
    table = read_tables(runs, "per_query")
    table = table[(table["flip"] == "none") & ~table["reranked"] & table["protocol"].isin(SHOWN)]
    lacking = sorted(set(SHOWN) - set(table["protocol"]))
    if lacking:
        raise ValueError(f"{runs[0]['folder']} has no scores under {', '.join(lacking)}, which the "
                         f"page of Table 1 shows: delete it and "
                         f"{runs[0]['folder'].parents[1] / 'study.json'}, set protocols: "
                         f"[{', '.join(SHOWN)}] and flips: [none] in the study's parameters, and "
                         "run it again")
    if "local" not in table:
        return [(row, table)]
    return [(row, table[~table["local"]]),
            (f"{row}, global + local distance", table[table["local"]])]


def read_groups(root: Path) -> list[Group]:
    """All studies of Table 1; FileNotFoundError where no run at all is finished."""
    groups = [read_group(name, root) for name in STUDIES]
    if not any(group.records for group in groups):
        raise FileNotFoundError(
            f"no run of Table 1 is finished in {root / 'reports'}: run "
            + " or ".join(f"reidlib study --study {name}" for name in STUDIES) + " first")
    return groups


def scores(groups: Sequence[Group]) -> pd.DataFrame:
    """One line a row and protocol, fractions; in a data set the highest mAP (``standard``) first.

    Columns: dataset (title), row, protocol, rank1 with rank1_low and rank1_high, rank5, and of mAP
    value, low, high, std.
    """
    lines = []
    for group in groups:
        own = [_scores(group, row) for row in group.records]
        lines += sorted(own, key=lambda pair: -pair[0]["value"])
    return pd.DataFrame([line for pair in lines for line in pair])


def _scores(group: Group, row: str) -> list[dict]:
    """A row's lines of ``scores``, that of ``standard`` first."""
    lines = []
    for protocol in SHOWN:
        own = cut(group.queries, row, protocol)
        rank1 = interval(own, "rank1")
        lines.append({"dataset": group.title, "row": row, "protocol": protocol,
                      "rank1": rank1.value, "rank1_low": rank1.low, "rank1_high": rank1.high,
                      "rank5": own["rank5"].mean(), **interval(own)._asdict()})
    return lines


def facts(groups: Sequence[Group], found: pd.DataFrame) -> pd.DataFrame:
    """One line a row, in the order of ``scores``: what the model is, and what its training was.

    ``images`` seen in training, ``accuracy`` on those of the last epoch, and ``minutes`` are means
    over seeds. Missing may be a stride, accuracy without training, what is published of epochs and
    images, and, in older records, parameters.
    """
    lines = []
    for group in groups:
        for row in found.loc[found["dataset"] == group.title, "row"].unique():
            runs = group.records[row]
            config, cost = TrainConfig(**runs[0]["config"]), runs[0]["cost"]
            height, width = height_width(config.image_size)
            seen = read_tables(runs, "history")["images"].sum() / len(runs)
            known = published_length(config, runs[0]["data"]["counts"]["train"])
            lines.append({
                "dataset": group.title, "row": row, "parameters": cost.get("parameters"),
                "height": height, "width": width, "stride": config.stride,
                "cameras": config.side_information, "pretraining": pretraining(config),
                "epochs": config.epochs, "images": int(seen), **known,
                "accuracy": last_epochs(runs)["accuracy"].mean() if config.epochs else None,
                "minutes": sum(r["cost"]["train_seconds"] for r in runs) / len(runs) / 60,
                "device": device_name(runs[0])})
    return pd.DataFrame(lines)


def published_length(config: TrainConfig, counts: dict[str, int]) -> dict[str, float]:
    """Published epochs of a run's system, and how many of its training images they show.

    ``counts``: identities and images of its training data. NaN where nothing is trained, or the
    length is not known to us, and for ``OURS``, which is published nowhere.
    """
    system = systems().loc[config.model]
    known = config.epochs and config.preset != OURS_PRESET
    epochs = system["epochs"] if known else float("nan")
    an_epoch = (counts["images"] if pd.isna(system["images_an_identity"]) else
                counts["identities"] * system["images_an_identity"])
    return {"published_epochs": epochs, "published_images": epochs * an_epoch}


def rates(root: Path) -> pd.DataFrame:
    """The learning rates that were compared on held-out training people; empty without a run.

    One line a candidate of ``SELECTION``, which has to be complete. Columns: system, lr,
    backbone_lr, scale_lr (missing: that of lr), warmup (epochs; missing: constant rates), epochs,
    value (mAP of ``standard-all``, embedding alone), accuracy (last epoch), best (of its system).
    """
    workspace = Workspace(SELECTION, root)
    if not (workspace.reports / "study.json").is_file():
        return pd.DataFrame()
    study, lines = read_study(workspace), []
    how = f"reidlib study --study {SELECTION}"
    for record in collect_runs(study, workspace, study.all_presets, how):
        config, queries = TrainConfig(**record["config"]), read_tables([record], "per_query")
        if "local" in queries:
            queries = queries[~queries["local"]]
        lines.append({"system": row_name(config), "lr": config.lr, "backbone_lr":
                      config.backbone_lr if config.pretrained else None,
                      "scale_lr": config.scale_lr, "warmup": config.warmup_epochs,
                      "epochs": config.epochs, "value": interval(queries).value,
                      "accuracy": last_epochs([record])["accuracy"].iloc[0]})
    table = pd.DataFrame(lines)
    table["warmup"] = table["warmup"].astype(float)
    highest = table.groupby("system")["value"].transform("max")
    return table.assign(best=table["value"] == highest)


def pretraining(config: TrainConfig) -> str:
    """The backbone in short and what its weights were trained on, or ``none``."""
    if not config.pretrained:
        return "none"
    name, _, tag = config.backbone.partition(".")
    data = next((words for part, words in PRETRAINING.items() if part in tag), tag or "timm's own")
    return f"{name.partition('_patch')[0]}, {data}"


def order(group: Group, found: pd.DataFrame) -> Order:
    """What ``scores`` say about the order of a group's rows, with paired tests.

    ``OURS`` was added when the others had been seen: it has no place in their order, nor in the
    family of their tests.
    """
    everyone = found[found["dataset"] == group.title]
    own = everyone[everyone["row"] != OURS]
    values = own.pivot(index="row", columns="protocol", values="value")
    added = values[PAPER_PROTOCOL] - values["standard"]
    rows = own["row"].unique().tolist()
    trained = [row for row in rows if group.records[row][0]["config"]["epochs"]]
    pairs = [*combinations(rows, 2)]  # the first is ahead under ``standard``
    keys = [(a, b, protocol) for a, b in pairs for protocol in SHOWN]
    fixed = _comparisons(group, keys)
    tested = _both_ways(dict(zip(keys, corrected(fixed), strict=True)))
    changed = [(a, b) for a, b in pairs
               if values.loc[a, PAPER_PROTOCOL] < values.loc[b, PAPER_PROTOCOL]]
    proven = [(a, b) for a, b in changed if _is_better(tested[a, b, "standard"])
              and _is_better(tested[b, a, PAPER_PROTOCOL])]
    leads = [_lead(values.loc[trained, name], tested) for name in SHOWN if trained]
    ours = _ours(group, everyone, leads, fixed) if OURS in group.records else []
    return Order(group.title, leads, len(pairs), changed, proven, (added.min(), added.max()), ours)


def _ours(group: Group, found: pd.DataFrame, leads: Sequence[Lead], fixed: Sequence[Comparison]
          ) -> list[Lead]:
    """``OURS`` against the first of each of ``leads``; p pays for the ``fixed`` ones, too."""
    values = found[found["row"] == OURS].set_index("protocol")["value"]
    later = _comparisons(group, [(OURS, lead.first, lead.protocol) for lead in leads])
    return [Lead(lead.protocol, OURS, values[lead.protocol], lead.first, ahead)
            for lead, ahead in zip(leads, corrected([*later, *fixed]), strict=False)]


def _comparisons(group: Group, keys: Sequence[tuple[str, str, str]]) -> list[Comparison]:
    """How far the first row of each (row, other, protocol) is ahead."""
    return [compare(cut(group.queries, b, protocol), cut(group.queries, a, protocol))
            for a, b, protocol in keys]


def _both_ways(found: dict[tuple[str, str, str], Comparison]
               ) -> dict[tuple[str, str, str], Comparison]:
    """The same, and how far the other row is ahead."""
    return found | {(b, a, protocol): c._replace(difference=-c.difference, low=-c.high,
                                                 high=-c.low)
                    for (a, b, protocol), c in found.items()}


def _lead(values: pd.Series, tested: dict[tuple[str, str, str], Comparison]) -> Lead:
    """``values``: mAP by row, named like its protocol."""
    first, *others = values.sort_values(ascending=False, kind="stable").index
    lead = Lead(values.name, first, values[first])
    return lead._replace(second=others[0], ahead=tested[first, others[0], values.name]
                         ) if others else lead


def _is_better(found: Comparison) -> bool:
    return verdict(found.difference, found.p) == "better"
