"""What a study's runs, and the studies beside it, left: read once, as tables."""

from collections.abc import Callable, Sequence

import pandas as pd

from reidlib.evaluation.statistics import interval
from reidlib.experiments.presets import COMPARED, CUMULATIVE, RESULT_ROWS, SAME_RATE, SINGLE_IDEAS
from reidlib.experiments.records import collect_runs
from reidlib.experiments.study import Study, read_study
from reidlib.report import supplementary
from reidlib.report.tables import cut, headline, paper_scores, query_rows, steps
from reidlib.utils.paths import Workspace

PRESETS_IN_REPORT = tuple(dict.fromkeys(v.preset for v in (*RESULT_ROWS, *SINGLE_IDEAS)))


def load_records(workspace: Workspace) -> tuple[Study, list[dict]]:
    """The study and all runs that the report needs; an error names the notebook to run."""
    study, records = read_study(workspace), []
    notebooks = {"untrained": "02_baseline", "baseline": "02_baseline", "improved": "03_improved"}
    for preset in PRESETS_IN_REPORT:
        records += collect_runs(study, workspace, [preset], notebooks.get(preset, "04_ablations"))
    return study, records


class StudyResults:
    """What a study's runs and those beside it left, as tables."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.study, self.records = load_records(workspace)
        self.queries = query_rows(self.records)
        self.headline = headline(self.queries)
        self.steps = steps(query_rows(self.records, CUMULATIVE))
        models = query_rows(self.records, COMPARED)
        self.against = {row: steps(models, against=row) for row in ("baseline", "improved")}
        self.alone = steps(query_rows(self.records, SINGLE_IDEAS), against="baseline")
        self.audit = pd.read_csv(workspace.tables / "audit.csv")
        self.left_out: dict[str, str] = {}  # studies that are not whole, and why
        records = {name: self._whole(name, lambda name=name: supplementary.records_of(workspace, name))
                   for name in ("blockwise", "folds", "selection", "finalists")}
        self.beside = {name: found for name, found in records.items() if found}
        self.folds, self.at_bests_rate = None, pd.DataFrame()
        people = cut(models, "baseline", "standard-all").dropna(subset="AP")["id"].nunique()
        self.asked = {f"on the {people} test people": (models, self.alone)}
        if records["folds"]:
            self.folds = query_rows(records["folds"], COMPARED)
            self.folds_alone = steps(query_rows(records["folds"], SINGLE_IDEAS), against="baseline")
            if {v.preset for v in SAME_RATE} <= {r["preset"] for r in records["folds"]}:
                # baseline and the paper's model, then that and `best`
                same_rate = (*SAME_RATE, COMPARED[-1])
                self.at_bests_rate = steps(query_rows(records["folds"], same_rate))
            self.asked[f"on {self.folds['id'].nunique()} people in cross-validation"] = (
                self.folds, self.folds_alone)
        self.crowd = self._whole("crowd", lambda: supplementary.distractor_records(workspace, self.study))
        self.tables = {}
        if self.folds is not None:
            self.tables["folds"] = supplementary.folds_table(self.folds)
        if records["blockwise"]:
            self.schedules = {schedule(self.records): models,
                              schedule(records["blockwise"]): query_rows(records["blockwise"],
                                                                         COMPARED)}
            self.tables["schedules"] = supplementary.schedules_scores(self.schedules)
        for name in ("selection", "finalists"):
            if records[name]:
                self.tables[name] = supplementary.selection_table(records[name])
        if self.crowd:
            self.tables["crowd"] = supplementary.distractor_scores(self.crowd)
        self.tables["overview"] = overview(self)

    def _whole(self, name: str, read: Callable[[], list[dict] | None]) -> list[dict] | None:
        try:
            return read()
        except FileNotFoundError as error:
            self.left_out[name] = str(error)
            return None

    @property
    def everything(self) -> list[dict]:
        """All records, of the study and of those beside it."""
        return [*self.records, *(r for found in self.beside.values() for r in found)]

    @property
    def on_the_papers_data(self) -> bool:
        return self.records[0]["data"]["name"] in set(paper_scores()["dataset"])


def epochs(records: Sequence[dict]) -> int:
    """Epochs of the trained runs."""
    return max(record["config"]["epochs"] for record in records)


def schedule(records: Sequence[dict]) -> str:
    """How the runs were trained, in a few words."""
    config = records[-1]["config"]
    words = f"{config['schedule']}, {epochs(records)} epochs"
    if config["schedule"] == "blockwise":
        words += f", a block every {config['release_every']}"
    return words


def overview(found: StudyResults) -> pd.DataFrame:
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
        measure = f"standard, everybody in folds, {epochs(found.beside['folds'])} epochs"
        lines += [{"row": row, "measure": measure,
                   **interval(cut(found.folds, row, "standard-all"))._asdict()}
                  for row in found.folds["row"].unique()]
    return pd.DataFrame(lines)
