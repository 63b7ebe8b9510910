"""Scores of a file of features as text, Markdown and CSV: the same numbers in each."""

import io

import pandas as pd
import pytest

from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.records import Scored
from reidlib.report.feature_scores import render_scores
from reidlib.utils.text import percent

IMAGES = {"queries": 1200, "people": 30, "gallery": 4, "junk": 0, "training": 0, "width": 8,
          "sha256": True}


def scored(standard, top10, **images):
    """30 queries of as many people with the same scores, and a protocol that has none."""
    tables = []
    for protocol, (ap, rank1) in {"standard": standard, "lat-top10": top10}.items():
        inp = ap if protocol == "standard" else float("nan")
        tables += [pd.DataFrame({
            "path": [f"{i}.png" for i in range(30)], "id": [str(i) for i in range(30)], "cam": "a",
            "AP": ap, "INP": inp, "rank1": rank1, "rank5": 1.0, "rank10": 1.0, "row": row,
            "protocol": protocol}) for row in ("cosine", "Euclidean")]
    queries = pd.concat(tables, ignore_index=True)
    queries.loc[(queries["id"] == "7") & (queries["protocol"] == "standard"), "AP"] = float("nan")
    return Scored(queries, {"single-shot-torchreid": "no draw"}, {**IMAGES, **images})


def all_alike(value, people):
    """The cell of a score that all people have: exact for a share of them."""
    alike = 0.025 ** (1 / people)
    return percent(value, ends=(value * alike, 1 - (1 - value) * alike))


ONE, TWO = scored((0.25, 0.5), (0.75, 1.0)), scored((0.35, 0.5), (0.75, 0.75))


def test_text_has_one_aligned_line_a_protocol_and_distance():
    text = render_scores("a.npz", ONE)
    assert text.startswith("a.npz: 1,200 queries of 30 people, 4 gallery images, 8 numbers an ima")
    lines = text.splitlines()[2:7]
    assert lines[0].split() == ["distance", "protocol", "mAP", "rank-1", "rank-5", "queries"]
    assert lines[2].split() == ["Euclidean", "standard", *all_alike(0.25, 29).split(),
                                *all_alike(0.5, 29).split(), *all_alike(1.0, 29).split(),
                                "29", "of", "30"]
    assert len({line.rindex("]") for line in lines[1:]}) == 1 and len(lines[4]) < 100
    assert "- single-shot-torchreid has no score: no draw.\n" in text
    assert "sha256" not in text


def test_every_protocol_that_is_shown_has_its_rules_in_a_line():
    text = render_scores("a.npz", ONE).partition("What the protocols count:")[2]
    for protocol in PROTOCOLS:
        assert text.count(f"\n- {protocol}: ") == (protocol != "single-shot-torchreid")
    assert ("- standard: leaves out junk and images of the query's person from the query's own "
            "camera; full ranking, rectangle rule (Market-1501 as") in text
    assert "- leak-free: leaves out copies of the query; full ranking" in text
    assert "- lat-top10: leaves out nothing; 10 nearest, divided by the hits found" in text
    assert "- standard-all: every test image is a query; leaves out" in text


def test_what_should_be_known_about_the_images_is_said():
    text = render_scores("a.npz", scored((1, 1), (1, 1), junk=2, training=1500, sha256=False,
                                         people=12))
    for words in ("(2 junk)", "; 1,500 training images left out.",
                  "Without sha256 a query and a gallery image of one path count as the same"):
        assert words in text


def test_protocols_that_are_left_out_for_one_reason_share_a_line():
    left_out = dict.fromkeys(("standard-all", "market-matlab"), "one camera")
    text = render_scores("a.npz", ONE._replace(left_out={**left_out, "leak-free": "no sha256"}))
    assert "- standard-all, market-matlab have no score: one camera.\n" in text
    assert "- leak-free has no score: no sha256.\n" in text


def test_markdown_has_the_same_cells():
    page = render_scores("a.npz", ONE, form="markdown")
    cells = " | ".join(all_alike(value, 29) for value in (0.25, 0.5, 1.0))
    assert f"| cosine | standard | {cells} | 29 of 30 |\n" in page
    text = render_scores("a.npz", ONE)
    assert page.partition("Percent")[2] == text.partition("Percent")[2]


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_comparison_is_paired_and_has_verdicts(form):
    text = render_scores("b.npz", TWO, "a.npz", ONE, form)
    _, lines = text.split("b.npz against a.npz, the same queries and gallery:\n\n")
    cells = [" ".join(line.replace("|", " ").split()) for line in lines.splitlines()]
    assert "cosine standard +10.0 [+10.0, +10.0] +0.0 [+0.0, +0.0] < 0.001 better" in cells
    assert "Euclidean lat-top10 +0.0 [+0.0, +0.0] -25.0 [-25.0, -25.0] 1.000 undecided" in cells
    assert "against" not in render_scores("b.npz", TWO, form=form)


def test_csv_has_every_score_at_full_precision_and_what_was_left_out():
    table = pd.read_csv(io.StringIO(render_scores("b.npz", TWO, "a.npz", ONE, "csv")))
    keys = table.set_index(["distance", "protocol", "score"])
    line = keys.loc[("cosine", "standard", "mAP")]
    alike = 0.025 ** (1 / 29)
    assert line[["value", "low", "high"]].tolist() == pytest.approx(
        [0.35, 0.35 * alike, 1 - 0.65 * alike])
    # the protocols of one distance are a family: a distance more or less changes no p
    assert line["p"] == 1 / 10_001 and line["p_holm"] == pytest.approx(2 / 10_001)
    assert line["verdict"] == "better"
    assert line["difference"] == pytest.approx(0.1) == line["difference_low"]
    assert {*table["score"].dropna()} == {"mAP", "mINP", "rank1", "rank5", "rank10"}
    assert ("cosine", "lat-top10", "mINP") not in keys.index
    assert table[table["left_out"].notna()]["protocol"].tolist() == ["single-shot-torchreid"]
    alone = pd.read_csv(io.StringIO(render_scores("b.npz", TWO, form="csv")))
    assert alone.columns.tolist() == ["distance", "protocol", "score", "value", "low", "high",
                                      "left_out"]


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="unknown format 'markdwon' .did you mean 'markdown'"):
        render_scores("a.npz", ONE, form="markdwon")
