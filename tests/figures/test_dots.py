"""Dots show every value with its interval, in percent, with one look a model."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reidlib.figures.dots import change_dots, rule_dots, score_dots
from reidlib.figures.style import MODELS
from tests.figures.conftest import nothing_is_cut_off, overlaps, ticks


@pytest.fixture
def asked():
    return pd.DataFrame([
        {"row": row, "measure": measure, "value": 0.5 + 0.1 * i, "low": 0.4, "high": 0.95}
        for i, row in enumerate(("baseline", "best")) for measure in ("lat-top10", "standard")])


def markers(ax, row):
    """The points of a model's look."""
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() ==
                           MODELS[row].marker and to_hex(line.get_color()) == MODELS[row].color])


def test_score_dots_show_every_value_with_its_interval(asked):
    fig = score_dots(asked, "measure", "asked", published=0.975)
    ax, = fig.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["lat-top10", "standard"]
    assert ax.get_xlabel() == "asked"
    assert sorted(text.get_text() for text in ax.texts) == ["50.0", "50.0", "60.0", "60.0"]
    lines = [path.vertices[:, 1].tolist() for lines in ax.collections for path in lines.get_paths()]
    assert lines == [[0.4, 0.95]] * 4
    for row, value in (("baseline", 0.5), ("best", 0.6)):
        drawn = markers(ax, row)
        assert drawn[:, 1].tolist() == [value] * 2 and drawn[:, 0].round().tolist() == [0, 1]
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["baseline", "best", "published"]
    marked = [line for line in ax.lines if line.get_label() == "published"]
    assert marked[0].get_ydata().tolist() == [0.975] * 2
    assert {place: text for place, text in ticks(ax.yaxis).items() if 0 < place} == {
        0.2: "20", 0.4: "40", 0.6: "60", 0.8: "80", 1: "100"}
    with pytest.raises(ValueError, match="more than one row"):
        score_dots(pd.concat([asked, asked]), "measure", "asked")


def test_changes_have_a_panel_a_sample_and_a_full_marker_where_the_test_decides():
    changes = pd.DataFrame([
        {"sample": sample, "row": row, "above": "softmax", "difference": value, "verdict": verdict,
         "low": value - 0.02, "high": value + 0.01}
        for sample, rows in (("12 people", ("ypool", "best")), ("750 people", ("best",)))
        for row in rows for value, verdict in [(-0.03, "worse") if row == "ypool" else
                                               (0.005, "undecided")]])
    fig = change_dots(changes)
    assert [ax.get_title() for ax in fig.axes] == ["12 people", "750 people"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["ypool", "best"]
    for ax, shown in zip(fig.axes, ({"ypool", "best"}, {"best"}), strict=True):
        dots = {name: line for name in ("ypool", "best") for line in ax.lines
                if line.get_marker() == MODELS[name].marker}
        assert set(dots) == shown
        assert dots["best"].get_xydata().tolist() == [[0.005, 1]]
        assert to_hex(dots["best"].get_markerfacecolor()) == "#ffffff"
        ends = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "|"]
        assert [0.005 - 0.02, 0.005 + 0.01] in ends
    ypool = next(line for line in fig.axes[0].lines
                 if line.get_marker() == MODELS["ypool"].marker)
    assert to_hex(ypool.get_markerfacecolor()) == MODELS["ypool"].color
    assert "points of mAP against softmax" in fig.get_supxlabel()
    nothing_is_cut_off(fig)


def test_a_model_looks_the_same_alone_and_among_others(asked):
    alone = score_dots(asked[asked["row"] == "best"], "measure", "asked").axes[0]
    assert len(markers(alone, "best")) == 2


def test_values_stand_above_their_intervals_and_apart():
    rng = np.random.default_rng(0)
    rows = ("not fine-tuned", "baseline", "improved", "best")
    frame = pd.DataFrame([{"row": row, "by": by, "value": value, "low": 0.97 * value,
                           "high": min(1.0, 1.02 * value)} for row in rows
                          for by, value in zip("abcd", rng.uniform(0.9, 1, 4), strict=True)])
    fig = score_dots(frame, "by", "asked")
    ax, = fig.axes
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 16 and not overlaps(boxes) and nothing_is_cut_off(fig)
    for text, box in zip(ax.texts, boxes, strict=True):
        assert box.y0 > ax.transData.transform(text.xy)[1] and box.y1 <= ax.bbox.y1
    highs = sorted(text.xy[1] for text in ax.texts)
    assert highs == sorted(frame["high"])


@pytest.fixture
def ruled():
    values = {"TransReID": (0.7, 0.9), "LA-Transformer": (0.6, 0.95), "another": (0.5, 0.9)}
    return pd.DataFrame([
        {"dataset": data, "row": row, "protocol": protocol, "value": value, "low": value - 0.1,
         "high": value + 0.05} for data in ("Market-1501", "CUHK03") for row, both in values.items()
        for protocol, value in zip(("standard", "lat-top10"), both, strict=True)])


def test_rule_dots_show_percent_and_the_places_under_both_rules(ruled):
    fig = rule_dots(ruled[:-2])
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Market-1501", "CUHK03"]
    ax = fig.axes[0]
    rows = ["TransReID", "LA-Transformer", "another"]
    assert [label.get_text() for label in ax.get_yticklabels()] == rows
    texts = [text.get_text() for text in ax.texts]
    assert [t for t in texts if "→" in t] == ["1 → 2", "2 → 1", "3 → 2"]
    assert [t for t in texts if "." in t] == ["70.0", "90.0", "60.0", "95.0", "50.0", "90.0"]
    drawn = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "|"]
    assert drawn[:2] == [pytest.approx([0.6, 0.75]), pytest.approx([0.8, 0.95])]
    dots = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.7, 0.9, 0.6, 0.95, 0.5, 0.9]
    look = MODELS["TransReID"]
    assert {(to_hex(dot.get_color()), dot.get_marker()) for dot in dots[:2]} == {look[:2]}
    assert [to_hex(dot.get_markerfacecolor()) for dot in dots[:2]] == [look.color, "#ffffff"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "standard", "lat-top10 (the paper's)"]
    assert ticks(fig.axes[1].xaxis)[0.2] == "20" and "percent" in fig.axes[1].get_xlabel()
    assert [len(ax.get_yticklabels()) for ax in fig.axes] == [3, 2]
    with pytest.raises(ValueError, match="more than one row for"):
        rule_dots(pd.concat([ruled, ruled]))


def test_values_of_close_scores_do_not_meet(ruled):
    close = ruled.assign(value=np.linspace(0.89, 0.9, len(ruled)), low=0.88, high=0.91)
    fig = rule_dots(close)
    for ax in fig.axes:
        texts = [text.get_window_extent() for text in ax.texts if "." in text.get_text()]
        dots = [line.get_window_extent() for line in ax.lines if len(line.get_xdata()) == 1]
        assert len(texts) == 6 and not overlaps(texts)
        assert not any(len(overlaps([text, dot])) for text in texts for dot in dots)
    assert nothing_is_cut_off(fig)
