"""What a study's runs, and the studies beside it, left: read once, as tables."""

from collections.abc import Sequence

import pandas as pd

from reidlib import beside
from reidlib.config import LADDER, MODELS, SINGLES, VARIANTS
from reidlib.intervals import interval
from reidlib.paths import Workspace
from reidlib.results import collect_runs, paper_scores, read_study
from reidlib.studies import Study
from reidlib.tables import cut, headline, query_rows, steps

PRESETS_IN_REPORT = tuple(dict.fromkeys(v.preset for v in (*VARIANTS, *SINGLES)))


def load_records(workspace: Workspace) -> tuple[Study, list[dict]]:
    """The study and all runs that the report needs; an error names the notebook to run."""
    study, records = read_study(workspace), []
    notebooks = {"untrained": "02_baseline", "baseline": "02_baseline", "improved": "03_improved"}
    for preset in PRESETS_IN_REPORT:
        records += collect_runs(study, workspace, [preset], notebooks.get(preset, "04_ablations"))
    return study, records


class Findings:
    """What a study's runs and those beside it left, as tables."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.study, self.records = load_records(workspace)
        self.queries = query_rows(self.records)
        self.headline = headline(self.queries)
        self.steps = steps(query_rows(self.records, LADDER))
        models = query_rows(self.records, MODELS)
        self.against = {row: steps(models, against=row) for row in ("baseline", "improved")}
        self.alone = steps(query_rows(self.records, SINGLES), against="baseline")
        self.audit = pd.read_csv(workspace.tables / "audit.csv")
        self.folds = beside.folds(workspace)
        self.blockwise = beside.records_of(workspace, "blockwise")
        self.selection = beside.records_of(workspace, "selection")
        self.crowd = beside.crowd(workspace, self.study)
        self.beside = {}
        if self.folds is not None:
            self.beside["folds"] = beside.folds_table(self.folds)
        if self.blockwise:
            ours = f"{self.records[-1]['config']['schedule']}, {self.epochs(self.records)} epochs"
            theirs = f"blockwise, {self.epochs(self.blockwise)} epochs"
            self.schedules = {ours: models, theirs: query_rows(self.blockwise, MODELS)}
            self.beside["schedules"] = beside.schedules_scores(self.schedules)
        if self.selection:
            self.beside["selection"] = beside.selection_table(self.selection)
        if self.crowd:
            self.beside["crowd"] = beside.crowd_scores(self.crowd)

    @property
    def on_the_papers_data(self) -> bool:
        return self.records[0]["data"]["name"] in set(paper_scores()["dataset"])

    @staticmethod
    def epochs(records: Sequence[dict]) -> int:
        return next(r for r in records if r["preset"] == "baseline")["config"]["epochs"]


def overview(found: Findings) -> pd.DataFrame:
    """The compared models by every way of asking: columns row, measure, value, low, high, std."""
    names = {"untrained": "untrained", "baseline": "baseline", "+ flipped query": "improved",
             "best": "best"}
    asked = {"lat-top10": "the paper's rules", "standard": "standard, the paper's queries",
             "standard-all": "standard, every test image"}
    lines = []
    for protocol, measure in asked.items():
        for row, label in names.items():
            own = cut(found.queries, row, protocol)
            if len(own):
                lines.append({"row": label, "measure": measure, **interval(own)._asdict()})
    if found.folds is not None:
        lines += [{"row": row, "measure": "standard, everybody in folds",
                   **interval(cut(found.folds, row, "standard-all"))._asdict()}
                  for row in found.folds["row"].unique()]
    return pd.DataFrame(lines)
