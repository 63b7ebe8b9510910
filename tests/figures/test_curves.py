"""Curves, bars and dots show the numbers they were given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reidlib.figures.curves import (
    PUBLISHED,
    cmc_curves,
    learning_curves,
    protocol_gap,
    rule_dots,
    score_dots,
)
from reidlib.figures.style import MODEL_COLOURS
from tests.figures.conftest import ROWS, bars

PAPER = pd.DataFrame({"row": ROWS, "mAP": [0.908, 0.947, 0.975], "rank1": [0.929, 0.964, 1.0]})


@pytest.fixture
def history():
    return pd.DataFrame([
        {"run": f"{preset}-s{seed}", "preset": preset, "seed": seed, "epoch": epoch,
         "loss": scale / (epoch + seed + 1), "accuracy": epoch / (epoch + 1)}
        for preset, scale in (("baseline", 60.0), ("improved", 180.0))
        for seed in range(3) for epoch in range(4)])


@pytest.fixture
def cmc():
    return pd.DataFrame([
        {"row": row, "protocol": protocol, "rank": rank, "cmc": 1 - 0.5 / rank}
        for row in ROWS for protocol in ("lat-top10", "standard") for rank in range(1, 31)])


def titles(fig):
    return [ax.get_title() for ax in fig.axes]


def legend_texts(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_learning_curves_draw_one_line_per_run_on_each_presets_own_scale(history):
    fig = learning_curves(history.sample(frac=1, random_state=0).sort_values("preset"))
    assert titles(fig) == ["baseline", "improved", ""]
    for ax, preset in zip(fig.axes, ["baseline", "improved"], strict=False):
        assert [to_hex(line.get_color()) for line in ax.lines] == [MODEL_COLOURS[preset]] * 3
        for seed, line in enumerate(ax.lines):
            run = history[history["run"] == f"{preset}-s{seed}"]
            np.testing.assert_array_equal(line.get_xydata(), run[["epoch", "loss"]])
    assert fig.axes[1].get_ylim()[1] > 2 * fig.axes[0].get_ylim()[1]
    assert len(fig.axes[2].lines) == 6 and fig.axes[2].get_ylim()[0] == 0


def test_bars_are_means_over_seeds_and_dots_are_the_seeds(scores):
    fig = bars(scores)
    assert titles(fig) == ["standard", "lat-top10 (the paper's)"]
    for ax, protocol in zip(fig.axes, ["standard", "lat-top10"], strict=True):
        part = scores[scores["protocol"] == protocol]
        means = part.groupby("row")[["mAP", "rank1"]].mean().loc[ROWS]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(means.to_numpy().ravel())
        assert [text.get_text() for text in ax.texts] == [f"{v:.3f}" for v in means.stack()]
        dots = np.concatenate([line.get_xdata() for line in ax.lines])
        assert sorted(dots) == sorted(part[["mAP", "rank1"]].to_numpy().ravel())
        assert ax.get_xlim() == (0, 1)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ROWS


def test_bars_follow_an_ordered_column(scores):
    scores["row"] = pd.Categorical(scores["row"], ROWS[::-1], ordered=True)
    labels = bars(scores).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ROWS[::-1]


def test_published_numbers_are_marked_under_the_papers_protocol_only(scores):
    fig = bars(scores, PAPER)
    marks = [[x for line in ax.lines if line.get_marker() == PUBLISHED["marker"]
              for x in line.get_xdata()] for ax in fig.axes]
    assert marks == [[], [*PAPER["mAP"], *PAPER["rank1"]]]
    assert "published" in legend_texts(fig) and "published" not in legend_texts(
        bars(scores))


def test_published_numbers_without_a_counterpart_are_an_error(scores):
    with pytest.raises(ValueError, match="flipped query"):
        bars(scores[scores["row"] != "+ flipped query"], PAPER)
    with pytest.raises(ValueError, match="lat-top10"):
        bars(scores[scores["protocol"] == "standard"], PAPER)


def test_protocol_gap_shows_means_and_their_difference(scores):
    fig = protocol_gap(scores)
    ax = fig.axes[0]
    means = scores.groupby(["row", "protocol"])["mAP"].mean()
    gaps = [means[row, "lat-top10"] - means[row, "standard"] for row in ROWS]
    assert [text.get_text() for text in ax.texts] == [f"{gap:+.3f}" for gap in gaps]
    for marker, protocol in (("o", "standard"), ("X", "lat-top10")):
        drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == marker]
        assert drawn == pytest.approx([means[row, protocol] for row in ROWS])
    assert legend_texts(fig) == ["standard", "lat-top10 (the paper's)"]


def test_protocol_gap_of_one_protocol_claims_no_gap(scores):
    ax = protocol_gap(scores[scores["protocol"] == "standard"]).axes[0]
    assert not ax.texts and ax.get_xlabel() == "mAP"


def test_cmc_curves_show_ranks_1_to_20_of_each_protocol(cmc):
    fig = cmc_curves(cmc.iloc[::-1])
    assert titles(fig) == ["standard", "lat-top10 (the paper's)"]
    for ax in fig.axes:
        assert len(ax.lines) == 3 and not ax.collections
        for line in ax.lines:
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 21))
            np.testing.assert_array_equal(line.get_ydata(), 1 - 0.5 / np.arange(1, 21))
    assert sorted(legend_texts(fig)) == sorted(ROWS)


def test_a_row_has_one_colour_in_every_figure(history, scores, cmc):
    want = MODEL_COLOURS["improved"]
    assert want == MODEL_COLOURS["+ flipped query"]
    assert to_hex(learning_curves(history).axes[1].lines[0].get_color()) == want
    assert to_hex(bars(scores).axes[0].patches[-1].get_facecolor()) == want
    assert to_hex(cmc_curves(cmc).axes[0].lines[2].get_color()) == want


def test_every_axis_is_labelled_and_nothing_is_cut_off(history, scores, cmc):
    for fig in (learning_curves(history), bars(scores, PAPER), protocol_gap(scores),
                cmc_curves(cmc)):
        assert all(ax.get_xlabel() for ax in fig.axes) and fig.axes[0].get_ylabel()
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


DRAW = {
    learning_curves: ("history", ["run", "preset", "seed", "epoch", "loss", "accuracy"]),
    bars: ("scores", ["row", "protocol", "seed", "mAP", "rank1"]),
    protocol_gap: ("scores", ["row", "protocol", "seed", "mAP"]),
    cmc_curves: ("cmc", ["row", "protocol", "rank", "cmc"]),
}


@pytest.mark.parametrize("draw", DRAW, ids=lambda draw: draw.__name__)
def test_bad_frames_are_named(draw, request):
    name, columns = DRAW[draw]
    frame = request.getfixturevalue(name)
    for column in columns:
        with pytest.raises(ValueError, match=rf"missing columns \['{column}'\]"):
            draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match="no rows"):
        draw(frame.iloc[:0])
    with pytest.raises(ValueError, match="more than one row for"):
        draw(pd.concat([frame, frame.iloc[:1]]))


@pytest.mark.parametrize("value", [90.8, -0.1, np.nan])
def test_percentages_and_gaps_are_not_fractions(scores, value):
    scores.loc[3, "mAP"] = value
    with pytest.raises(ValueError, match=f"mAP must be a fraction.*{value}"):
        bars(scores)


def test_score_dots_show_every_value_with_its_interval():
    frame = pd.DataFrame([{"row": row, "measure": measure, "value": 0.5 + 0.1 * i, "low": 0.4,
                           "high": 0.95} for i, row in enumerate(("baseline", "best"))
                          for measure in ("the paper's rules", "standard")])
    fig = score_dots(frame, "measure", "asked", published=0.975)
    ax, = fig.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["the paper's rules", "standard"]
    assert ax.get_xlabel() == "asked"
    assert sorted(text.get_text() for text in ax.texts) == ["50", "50", "60", "60"]
    lines = [path.vertices[:, 1].tolist() for lines in ax.collections for path in lines.get_paths()]
    assert lines == [[0.4, 0.95]] * 4
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["baseline", "best", "published"]
    with pytest.raises(ValueError, match="more than one row"):
        score_dots(pd.concat([frame, frame]), "measure", "asked")


def test_intervals_are_drawn_over_the_bars_of_their_row():
    scores = pd.DataFrame({"row": ["baseline"], "protocol": "standard", "seed": 0, "mAP": 0.5,
                           "rank1": 0.6})
    ends = pd.DataFrame({"row": ["baseline"], "protocol": "standard", "low": 0.4, "high": 0.7})
    fig = bars(scores, ends=ends)
    drawn = [line.get_xdata().tolist() for line in fig.axes[0].lines if len(line.get_xdata()) == 2]
    assert [0.4, 0.7] in drawn
    assert "95 % interval of mAP" in [t.get_text() for t in fig.legends[0].get_texts()]


def test_rule_dots_show_percent_and_the_places_under_both_rules():
    values = {"TransReID": (0.7, 0.9), "LA-Transformer": (0.6, 0.95), "another": (0.5, 0.9)}
    frame = pd.DataFrame([
        {"dataset": data, "row": row, "protocol": protocol, "value": value, "low": value - 0.1,
         "high": value + 0.05} for data in ("Market-1501", "CUHK03") for row, both in values.items()
        for protocol, value in zip(("standard", "lat-top10"), both, strict=True)])
    fig = rule_dots(frame[:-2])
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Market-1501", "CUHK03"]
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(values)
    texts = [text.get_text() for text in ax.texts]
    assert [t for t in texts if "→" in t] == ["1 → 2", "2 → 1", "3 → 2"]
    assert [t for t in texts if "." in t] == ["70.0", "90.0", "60.0", "95.0", "50.0", "90.0"]
    drawn = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "|"]
    assert drawn[:2] == [pytest.approx([60, 75]), pytest.approx([80, 95])]
    dots = [(line.get_marker(), to_hex(line.get_color())) for line in ax.lines
            if line.get_marker() in "os"]
    assert dots[:2] == [("o", MODEL_COLOURS["TransReID"]), ("s", MODEL_COLOURS["TransReID"])]
    assert legend_texts(fig) == ["standard", "lat-top10 (the paper's)"]
    assert [len(ax.get_yticklabels()) for ax in fig.axes] == [3, 2]
    with pytest.raises(ValueError, match="more than one row for"):
        rule_dots(pd.concat([frame, frame]))
