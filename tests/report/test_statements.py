"""What the first page says, from made-up tables whose scores are known."""

from types import SimpleNamespace

import pandas as pd
import pytest

from reidlib.experiments.presets import COMPARED, SAME_RATE, SINGLE_IDEAS
from reidlib.report import page, statements, tables
from reidlib.utils.text import render
from tests.report.made_up import LEVELS, every_image, queries

RATES = {"baseline-1e-4": 0.90, "improved-1e-4": 0.95}


def claims(levels=LEVELS, rates=None):
    models, alone = (every_image(queries(levels, rows)) for rows in (COMPARED, SINGLE_IDEAS))
    same_rate = None
    if rates:
        same_rate = tables.steps(every_image(queries(rates, SAME_RATE)), against=SAME_RATE[0].label)
    return statements.claims(models, tables.steps(alone, against="baseline"), same_rate)


def test_the_ideas_together_and_each_alone_stand_beside_what_the_paper_says():
    found = claims().set_index("row")
    assert list(found.index) == ["improved", "y-pooling alone", "flipped query alone"]
    assert found["published"].tolist() == pytest.approx([0.067, 0.039, 0.004])
    # half of the levels' differences, as standard-all is made from standard
    assert found["difference"].tolist() == pytest.approx([0.035, -0.01, 0.005])
    assert found["verdict"].tolist() == ["better", "worse", "better"]


def test_the_comparison_at_equal_rates_comes_first_and_all_lines_are_one_family():
    found = claims(rates=RATES)
    assert found["row"].tolist()[:2] == ["improved, rate of best", "improved"]
    assert found["difference"].iloc[0] == pytest.approx(0.03)
    assert found["published"].iloc[0] == found["published"].iloc[1] == pytest.approx(0.067)
    assert found["p_holm"].iloc[0] == pytest.approx(len(found) * found["p"].iloc[0])


def test_a_model_that_did_not_run_makes_no_claim():
    without = {name: value for name, value in LEVELS.items() if name != "improved"}
    assert claims(without)["row"].tolist() == ["y-pooling alone", "flipped query alone"]


@pytest.mark.parametrize("level, reached, verdict", [
    (0.98, True, "reached"), (0.93, False, "not reached"), (0.94, True, "within one query")])
def test_the_papers_number_is_reached_to_within_one_query(level, reached, verdict):
    """It says 0.975; one of 28 queries is 0.036; the flipped query adds 0.01 to the level."""
    found = statements.numbers(queries({**LEVELS, "improved": level - 0.01}))
    assert (found.published, found.reached, found.verdict) == (0.975, reached, verdict)
    assert found.here.value == pytest.approx(level)
    without = {name: value for name, value in LEVELS.items() if name != "improved"}
    assert statements.numbers(queries(without)) is None


@pytest.mark.parametrize("level, too", [(0.98, True), (0.93, False)])
def test_the_baseline_may_reach_it_too(level, too):
    found = statements.numbers(queries({**LEVELS, "baseline": level, "improved": 0.98}))
    assert found.reached and found.baseline_too is too


@pytest.mark.parametrize("level, easy", [(0.6, True), (0.45, False)])
def test_rules_are_easy_where_an_untrained_model_does_well_under_them_alone(level, easy):
    found = queries({**LEVELS, "untrained": level})
    lower = found["protocol"] == "standard"
    found.loc[lower, "AP"] -= 0.02  # made up as half of the other
    assert statements.is_easy(found) is easy
    found.loc[lower, "AP"] += 0.1
    assert not statements.is_easy(found)


def test_points_have_their_verdict():
    step = next(claims().itertuples())
    assert statements.points(step).endswith("] points (better)")


@pytest.mark.parametrize("market, said", [
    ({"y-pooling": "worse", "all-ideas": "worse"},
     "Shown to help: none. Shown to harm: y-pooling and AM-Softmax + triplet (on PKU-Reid), "
     "even with training options of their own. With training options chosen for each, the paper's "
     "model does worse than its baseline."),
    ({"y-pooling": "better", "all-ideas": "undecided", "am-softmax-triplet": "worse"},
     "Shown to help: y-pooling (on Market-1501). Shown to harm: y-pooling (on PKU-Reid) and "
     "AM-Softmax + triplet, even with training options of their own. With training options chosen "
     "for each, "
     "the paper's model does worse than its baseline on PKU-Reid, and cannot be told apart from "
     "its baseline on Market-1501."),
])
def test_ideas_that_do_not_the_same_everywhere_are_named_with_the_place(market, said):
    pku = {"y-pooling": "worse", "am-softmax-triplet": "worse", "all-ideas": "worse"}
    found = pd.DataFrame([
        {"row": row, "sample": sample, "verdict": verdicts.get(row, "undecided"), "seeds": 2}
        for sample, verdicts in (("PKU-Reid, 74 people", pku), ("Market-1501, 750 people", market))
        for row in pku])
    assert said in answers(found)


def answers(claims, paper=True, dataset="pku-reid", numbers=None, is_easy=False,
            same_rate=None, own_schedule=None):
    """The first page's answers, where the ideas had training options of their own."""
    results = SimpleNamespace(arm_steps={"a": None}, on_the_papers_data=paper,
                              same_rate=same_rate and pd.DataFrame({"verdict": [same_rate]}))
    study = SimpleNamespace(is_own_data=dataset.endswith(".csv"), dataset=dataset)
    return render(page.TEMPLATES / "answers.md.j2", page.FILTERS, claims=claims, results=results,
                  study=study, numbers=numbers, own_schedule=own_schedule, is_easy=is_easy,
                  VERDICTS=statements.VERDICTS, unconverged=[])


ONE_IDEA = pd.DataFrame([{"row": "y-pooling", "sample": "a", "verdict": "undecided",
                          "seeds": 2}])


@pytest.mark.parametrize("reached, too, easy, said", [
    (True, True, True, "yes. But by these rules the baseline reaches it, too, and a network that "
                       "was never trained for the task looks good."),
    (True, False, True, "yes. But by these rules a network that was never trained for the task "
                        "looks good."),
    (True, True, False, "yes. But by these rules the baseline reaches it, too."),
    (True, False, False, "yes."),
    (False, True, True, "no. And by these rules a network that was never trained for the task "
                        "looks good.")])
def test_the_first_answer_says_who_else_reaches_the_papers_score(reached, too, easy, said):
    numbers = SimpleNamespace(reached=reached, baseline_too=too,
                              verdict="reached" if reached else "not reached")
    first, second, third = answers(ONE_IDEA, numbers=numbers, is_easy=easy).splitlines()
    assert first == f"- **Does the paper's score come out again?** By its own rules, {said}"
    assert second == "- **Do the paper's ideas help?** Shown to help: none."
    assert third.startswith("- **What to believe?**") and third.endswith("decides it.")


@pytest.mark.parametrize("verdict, then, said", [
    ("reached", "reached", "yes, with its own schedule, too."),
    ("reached", "within one query", "yes; with its own schedule, to within one query."),
    ("within one query", "not reached", "to within one query; with its own schedule, no."),
    ("not reached", "reached", "no; with its own schedule, yes."),
    ("not reached", "not reached", "no, with its own schedule, too.")])
def test_the_first_answer_says_whether_the_papers_own_schedule_reaches_it(verdict, then, said):
    found, other = (SimpleNamespace(verdict=word, reached=word != "not reached", baseline_too=False)
                    for word in (verdict, then))
    text = answers(ONE_IDEA, numbers=found, own_schedule=other)
    assert text.splitlines()[0].endswith(f"By its own rules, {said}")


TWO_SAMPLES = pd.concat([ONE_IDEA, ONE_IDEA.assign(sample="b, 750 people")])


@pytest.mark.parametrize("claims, start", [
    (ONE_IDEA.assign(seeds=1), " Each was"), (TWO_SAMPLES.assign(seeds=1), " Each was"),
    (TWO_SAMPLES.assign(seeds=[2, 1]), " On b each was"),
    (TWO_SAMPLES.assign(seeds=[2, 1]).drop(columns="sample"), " Some were")])
def test_one_training_of_each_is_said(claims, start):
    said = " trained with one seed, and another seed could reverse a small difference."
    assert said not in answers(claims.assign(seeds=2))
    assert start + said in answers(claims)


@pytest.mark.parametrize("claims, where", [(ONE_IDEA, ""), (TWO_SAMPLES, " on a")])
def test_what_holds_at_the_rate_of_best_is_said_of_the_studys_own_people(claims, where):
    said = (" The options matter: with the learning rate of `best` for both, they cannot be told "
            "apart")
    assert said + where + "." in answers(claims, same_rate="undecided")
    assert said not in answers(claims, same_rate="worse") + answers(claims)


@pytest.mark.parametrize("dataset, first", [
    ("synthetic", "Who are these people?"), ("market1501", "Do the paper's ideas help?"),
    ("mine/images.csv", "Do the paper's ideas help?")])
def test_other_peoples_page_says_nothing_of_the_papers_score(dataset, first):
    text = answers(ONE_IDEA, False, dataset, SimpleNamespace(reached=True, baseline_too=True), True)
    assert text.startswith(f"- **{first}**") and "paper's score" not in text
    assert text.endswith("By the paper's rules a network that was never trained for the task looks "
                         "good, too.\n")
