"""What the sentences say, from made-up records whose scores are known."""

import pytest

from reidlib.experiments.presets import COMPARED, CUMULATIVE, SINGLE_IDEAS
from reidlib.report import statements, tables
from reidlib.report.tables import paper_scores
from tests.report.made_up import LEVELS, every_image, queries, records


def claims(levels, data="pku-reid"):
    steps = tables.steps(queries(levels, CUMULATIVE))
    return {c["row"]: c for c in statements.claims(records(levels, data), steps)}


def test_claims_compare_within_one_query():
    found = claims(LEVELS)
    assert {row: claim["level"] for row, claim in found.items()} == {
        "baseline": "reproduces", "+ y-pooling": "short",  # mAP 0.90 against 0.947
        "+ AM-Softmax, triplet": "reproduces", "+ flipped query": "reproduces"}
    assert found["baseline"]["weight"] == pytest.approx(1 / 28)
    assert found["baseline"]["published"] is None and found["baseline"]["steps"]
    ypool = found["+ y-pooling"]
    assert ypool["published"] == pytest.approx(0.039)
    assert [statements.points(s) for s in ypool["steps"]] == [
        "-1.0 [-1.0, -1.0] points (worse)", "-2.0 [-2.0, -2.0] points (worse)"]


def test_higher_than_the_paper_is_no_reproduction():
    assert claims({**LEVELS, "baseline": 0.99})["baseline"]["level"] == "above"


def test_other_images_compare_steps_only():
    found = claims(LEVELS, "synthetic")
    assert {claim["level"] for claim in found.values()} == {None}
    assert list(found) == paper_scores()["row"].tolist()


def test_a_row_that_was_not_run_makes_no_claim():
    without = {name: value for name, value in LEVELS.items() if name != "ypool"}
    assert "+ y-pooling" not in claims(without)


def test_all_ideas_together():
    table = every_image(queries(LEVELS))
    found = statements.together(table)
    assert found["standard"].difference == pytest.approx(0.035)
    assert statements.together(table[table["row"] == "baseline"]) is None


def test_reproduction_has_the_papers_numbers_and_ours():
    found = statements.reproduction(queries(LEVELS))
    base, model = found["models"].values()
    assert (base["paper"]["mAP"], model["paper"]["mAP"]) == (0.908, 0.975)
    assert (base["mAP"], model["mAP"]) == pytest.approx((0.92, 0.99))
    assert found["gains"] == pytest.approx((0.067, 0.07))


def test_contrasts_of_the_models_that_were_run():
    models = every_image(queries(LEVELS, COMPARED))
    alone = tables.steps(every_image(queries(LEVELS, SINGLE_IDEAS)), against="baseline")
    found = statements.contrasts({"on the 14 test people": (models, alone)})
    assert [(c.after, c.before) for c in found] == [
        ("improved", "baseline"), ("best", "improved"), ("best", "baseline")]
    changes = [statements.points(c.found["on the 14 test people"]) for c in found]
    assert [text.split(" [")[0] for text in changes] == ["+3.5", "+0.0", "+3.5"]
    assert "(undecided)" in changes[1]
    few = models[models["row"] != "best"]
    assert len(statements.contrasts({"here": (few, alone)})) == 1
