"""What the runs of a study, and of its supplementary studies, left: read once, as tables."""

from collections.abc import Callable, Sequence

import pandas as pd

from reidlib.evaluation.protocols import PAPER_PROTOCOL
from reidlib.evaluation.statistics import interval
from reidlib.experiments.presets import (
    COMPARED,
    CUMULATIVE,
    NOTEBOOKS,
    RESULT_ROWS,
    SAME_RATE,
    SINGLE_IDEAS,
    ResultRow,
)
from reidlib.experiments.records import collect_runs
from reidlib.experiments.study import Study, read_study
from reidlib.report import arms, supplementary
from reidlib.report.tables import (
    PROTOCOLS_COMPARED,
    compared_steps,
    cut,
    has_paper_scores,
    headline,
    query_rows,
    ranks,
    steps,
)
from reidlib.utils.paths import Workspace

KNOWN_PRESETS = tuple(dict.fromkeys(row.preset for row in (*RESULT_ROWS, *SINGLE_IDEAS)))


def check_presets(study: Study) -> None:
    """ValueError if the study has no notebooks, or leaves out a preset that every report needs."""
    if study.folds:
        raise ValueError(f"study {study.name!r} has no notebooks of its own: reidlib study "
                         f"--study {study.name} runs it")
    extra = [name for name in study.presets if name not in NOTEBOOKS]
    if extra:
        raise ValueError(f"study {study.name!r}: no notebook trains {', '.join(extra)}; train "
                         f"without a report: reidlib study --study {study.name}")
    missing = [name for name in ("untrained", "baseline", "improved")
               if name not in study.all_presets]
    if missing:
        raise ValueError(f"study {study.name!r} runs {', '.join(study.all_presets)}; a report "
                         f"also needs {', '.join(missing)}: add to `presets`, or train without a "
                         f"report: reidlib study --study {study.name}")


def load_records(workspace: Workspace) -> tuple[Study, list[dict]]:
    """The study and all runs that its report shows; an error names the notebook to run.

    Raises:
        FileNotFoundError: a run is missing.
        ValueError: see ``check_presets``.
    """
    study = read_study(workspace)
    check_presets(study)
    shown = [preset for preset in KNOWN_PRESETS if preset in study.all_presets]
    return study, collect_runs(study, workspace, shown)


class StudyResults:
    """What the runs of a study, and of its supplementary studies, left, as tables."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.study, self.records = load_records(workspace)
        self.queries = query_rows(self.records)
        self.models = query_rows(self.records, COMPARED)
        self.headline = headline(self.queries, with_paper=self.on_the_papers_data)
        self.ranks = ranks(self.queries, with_paper=self.on_the_papers_data)
        self.steps = steps(query_rows(self.records, CUMULATIVE))
        self.alone = steps(query_rows(self.records, SINGLE_IDEAS), against="baseline")
        self.candidate_records = collect_runs(self.study, workspace, self.study.candidates)
        self.candidates = self._candidates()
        self.audit = pd.read_csv(workspace.tables / "audit.csv")
        self.left_out: dict[str, str] = {}  # supplementary studies that are incomplete, and why
        found = {name: self._complete(name, lambda n=name: supplementary.records_of(workspace, n))
                 for name in supplementary.NAMES}
        self.supplementary = {name: records for name, records in found.items() if records}
        self.distractors = self._complete("distractors", lambda: supplementary.distractor_records(
            workspace, self.study))
        self._read_folds()
        self._read_arms()
        self._read_final()
        self.schedules = {}
        if "blockwise" in self.supplementary:
            other = self.supplementary["blockwise"]
            self.schedules = {schedule(self.records): self.models,
                              schedule(other): query_rows(other, COMPARED)}
        self.tables = self._tables()

    def _candidates(self) -> pd.DataFrame | None:
        """Rows of the study's own candidates, below the baseline; None without any."""
        if not self.candidate_records:
            return None
        names = ("baseline", *self.study.candidates)
        return query_rows([*self.baseline_records, *self.candidate_records],
                          [ResultRow(name, name, "none") for name in names])

    def _complete(self, name: str, read: Callable[[], list[dict] | None]) -> list[dict] | None:
        try:
            return read()
        except FileNotFoundError as error:
            self.left_out[name] = str(error)
            return None

    def _read_folds(self) -> None:
        self.folds, self.folds_steps, self.folds_alone, self.same_rate = (None,) * 4
        records = self.supplementary.get("folds")
        if not records:
            return
        self.folds = query_rows(records, COMPARED)
        self.folds_steps = compared_steps(self.folds)
        self.folds_alone = steps(query_rows(records, SINGLE_IDEAS), against="baseline")
        if {row.preset for row in SAME_RATE} <= {r["preset"] for r in records}:
            self.same_rate = compared_steps(query_rows(records, (*SAME_RATE, COMPARED[-1])),
                                            *(row.label for row in SAME_RATE))

    def _read_arms(self) -> None:
        """Sample, in words -> records and per-query scores of the arms, and their contrasts."""
        self.arms: dict[str, pd.DataFrame] = {}
        self.arm_records: dict[str, list[dict]] = {}
        for name, protocol in arms.CONFIRMED.items():
            records = self.supplementary.get(name)
            if records:
                own = arms.queries(records, protocol)
                sample = arms.sample_name(records, own)
                self.arms[sample], self.arm_records[sample] = own, records
        # ours came later: it is in no family of contrasts that were fixed before
        self.arm_steps = {sample: steps(own[own["row"] != arms.OURS], against=arms.PLAIN,
                                        protocols=None) for sample, own in self.arms.items()}
        self.ours = {sample: arms.ours(own, self.arm_steps[sample])
                     for sample, own in self.arms.items() if (own["row"] == arms.OURS).any()}

    def _read_final(self) -> None:
        """Some arms at this study's image size and on its test people, below its baseline."""
        self.final, self.final_queries, self.final_steps, self.reranked = None, None, None, None
        records = self.supplementary.get("final")
        if records:
            self.reranked = steps(query_rows(records, arms.RERANKED), protocols=["standard"])
            records = [*self.baseline_records, *records]
            shown = [row for row in arms.rows(records) if row.label != arms.FLIPPED]
            self.final_queries = query_rows(records, shown)
            own = self.final_queries[self.final_queries["protocol"] == "standard-all"]
            self.final = arms.final_table(records, own)
            self.final_steps = arms.contrasts(own, arms.FINAL)

    def _tables(self) -> dict[str, pd.DataFrame]:
        """File name -> the tables of the supplementary studies, and the overview."""
        tables = {"overview": overview(self)}
        if self.candidates is not None:
            tables["candidates"] = steps(self.candidates, against="baseline")
        if self.folds is not None:
            tables["folds"] = supplementary.folds_table(self.folds)
        if self.schedules:
            tables["schedules"] = supplementary.schedules_scores(self.schedules)
        for name in ("selection", "finalists", "margins", "ingredients", "cheaper"):
            if name in self.supplementary:
                tables[name] = supplementary.selection_table(self.supplementary[name])
        if "arms" in self.supplementary:
            tables["arms_selection"] = arms.selection(self.supplementary["arms"])
        if self.arms:
            tables["arms"] = arms.scores(self.arms)
        if self.final is not None:
            tables["final"] = self.final
        if self.distractors:
            tables["distractors"] = supplementary.distractor_scores(self.distractors)
        return tables

    @property
    def samples(self) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """Which test people, in words -> rows of the compared models, each idea alone."""
        people = cut(self.models, "baseline", "standard-all").dropna(subset="AP")["id"].nunique()
        found = {f"on the {people} test people": (self.models, self.alone)}
        if self.folds is not None:
            everyone = f"on {self.folds['id'].nunique()} people in cross-validation"
            found[everyone] = (self.folds, self.folds_alone)
        return found

    @property
    def all_records(self) -> list[dict]:
        """Records of the study, its candidates and its supplementary studies."""
        others = [r for found in self.supplementary.values() for r in found]
        return [*self.records, *self.candidate_records, *others]

    @property
    def baseline_records(self) -> list[dict]:
        return [record for record in self.records if record["preset"] == "baseline"]

    @property
    def on_the_papers_data(self) -> bool:
        return has_paper_scores(self.records[0]["data"]["name"])


def epochs(records: Sequence[dict]) -> int:
    """Epochs of the trained runs."""
    return max(record["config"]["epochs"] for record in records)


def count_epochs(n: int) -> str:
    return f"{n} epoch" + "s" * (n != 1)


def schedule(records: Sequence[dict]) -> str:
    """How the runs were trained, in a few words."""
    config = records[-1]["config"]
    words = f"{config['schedule']}, {count_epochs(epochs(records))}"
    if config["schedule"] == "blockwise":
        words += f", {a_block_every(config['release_every'])}"
    return words


def a_block_every(n: int) -> str:
    return f"a block every {count_epochs(n).removeprefix('1 ')}"


def overview(results: StudyResults) -> pd.DataFrame:
    """The compared models under the three main protocols, and in cross-validation.

    Columns: row, measure, value, low, high, std.
    """
    untrained = results.queries[results.queries["row"] == "not fine-tuned"]
    models = pd.concat([untrained, results.models], ignore_index=True)
    # the paper's protocol first: its published number is marked there
    ordered = sorted(PROTOCOLS_COMPARED, key=lambda name: name != PAPER_PROTOCOL)
    asked = [(protocol, protocol, models) for protocol in ordered]
    if results.folds is not None:
        trained = count_epochs(epochs(results.supplementary["folds"]))
        asked.append((f"cross-validation, {trained}", "standard-all", results.folds))
    return pd.DataFrame([
        {"row": row, "measure": measure, **interval(own)._asdict()}
        for measure, protocol, queries in asked for row in queries["row"].unique()
        if len(own := cut(queries, row, protocol))])
