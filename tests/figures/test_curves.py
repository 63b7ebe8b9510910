"""Curves, bars and small panels show the numbers they were given, and read in percent."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.presets import RESULT_ROWS
from reidlib.figures.curves import (
    PUBLISHED,
    ap_scatter,
    cmc_curves,
    learning_curves,
    protocol_gap,
)
from reidlib.figures.style import MODELS
from tests.figures.conftest import ROWS, bars, nothing_is_cut_off, overlaps, ticks

PAPER = pd.DataFrame({"row": ROWS, "mAP": [0.908, 0.947, 0.975], "rank1": [0.929, 0.964, 1.0]})
LABELS = [row.label for row in RESULT_ROWS]


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
        for row in ROWS for protocol, last in (("lat-top10", 10), ("standard", 30))
        for rank in range(1, last + 1)])


@pytest.fixture
def everything():
    """Scores of every results row and protocol, re-ranked ones not under the paper's."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame([
        {"row": row.label, "protocol": name, "seed": seed, "mAP": rng.uniform(), "rank1": 1.0}
        for row in RESULT_ROWS for name, rules in PROTOCOLS.items() for seed in range(3)
        if rules.reranks or not row.reranked])
    return frame.assign(row=pd.Categorical(frame["row"], LABELS, ordered=True))


@pytest.fixture
def queries():
    rng = np.random.default_rng(2)
    return pd.DataFrame([
        {"row": row, "path": f"{i}.png", "seed": seed, "protocol": protocol, "AP": rng.uniform()}
        for row in ROWS for i in range(5) for seed in range(2)
        for protocol in ("lat-top10", "standard")])


def titles(fig):
    return [ax.get_title() for ax in fig.axes]


def legend_texts(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def look_of(line):
    return to_hex(line.get_color()), line.get_marker()


def test_learning_curves_draw_one_line_per_run_on_each_presets_own_scale(history):
    fig = learning_curves(history.sample(frac=1, random_state=0).sort_values("preset"))
    assert titles(fig) == ["baseline", "improved", ""]
    for ax, preset in zip(fig.axes, ["baseline", "improved"], strict=False):
        assert [look_of(line) for line in ax.lines] == [MODELS[preset][:2]] * 3
        for seed, line in enumerate(ax.lines):
            run = history[history["run"] == f"{preset}-s{seed}"]
            np.testing.assert_array_equal(line.get_xdata(), run["epoch"] + 1)
            np.testing.assert_array_equal(line.get_ydata(), run["loss"])
    assert fig.axes[1].get_ylim()[1] > 2 * fig.axes[0].get_ylim()[1]
    assert fig.axes[0].lines[0].get_linestyle() != fig.axes[1].lines[0].get_linestyle()


def test_epochs_count_from_1_and_accuracy_is_in_percent(history):
    for frame in (history, history[history["epoch"] == 0]):
        fig = learning_curves(frame)
        for ax in fig.axes:
            assert list(ticks(ax.xaxis).values()) == [str(e + 1) for e in frame["epoch"].unique()]
        below = fig.axes[2]
        drawn = np.concatenate([line.get_ydata() for line in below.lines])
        assert sorted(drawn) == sorted(frame["accuracy"])
        assert ticks(below.yaxis)[1.0] == "100" and "percent" in below.get_ylabel()


def test_bars_are_means_over_seeds_and_dots_are_the_seeds(scores):
    fig = bars(scores)
    assert titles(fig) == ["standard", "lat-top10 (the paper's)"]
    for ax, protocol in zip(fig.axes, ["standard", "lat-top10"], strict=True):
        part = scores[scores["protocol"] == protocol]
        means = part.groupby("row")[["mAP", "rank1"]].mean().loc[ROWS]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(means.to_numpy().ravel())
        assert [text.get_text() for text in ax.texts] == [f"{100 * v:.1f}" for v in means.stack()]
        dots = np.concatenate([line.get_xdata() for line in ax.lines])
        assert sorted(dots) == sorted(part[["mAP", "rank1"]].to_numpy().ravel())
        assert ticks(ax.xaxis) == {0: "0", 0.25: "25", 0.5: "50", 0.75: "75", 1: "100"}
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ROWS


def test_bars_of_all_results_rows_have_a_dash_where_there_is_no_score(everything):
    shown = everything[everything["protocol"].isin(["standard", "lat-top10"])]
    fig = bars(shown)
    names = [label.get_text().replace("\n", " ") for label in fig.axes[0].get_yticklabels()]
    assert names == LABELS
    for ax in fig.axes:
        assert not overlaps([label.get_window_extent() for label in ax.get_yticklabels()])
        assert not overlaps([text.get_window_extent() for text in ax.texts])
    dashes = [[text.get_position()[1] for text in ax.texts if text.get_text() == "–"]
              for ax in fig.axes]
    assert dashes == [[], [i for i, row in enumerate(RESULT_ROWS) if row.reranked]]
    assert len(fig.axes[1].patches) == 2 * sum(not row.reranked for row in RESULT_ROWS)


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


def test_intervals_are_drawn_over_the_bars_of_their_row():
    scores = pd.DataFrame({"row": ["baseline"], "protocol": "standard", "seed": 0, "mAP": 0.5,
                           "rank1": 0.6})
    ends = pd.DataFrame({"row": ["baseline"], "protocol": "standard", "low": 0.4, "high": 0.7})
    fig = bars(scores, ends=ends)
    drawn = [line.get_xdata().tolist() for line in fig.axes[0].lines if len(line.get_xdata()) == 2]
    assert [0.4, 0.7] in drawn
    assert "95 % interval of mAP" in [t.get_text() for t in fig.legends[0].get_texts()]


def test_protocol_gap_has_a_panel_a_model_and_a_line_a_protocol(everything):
    fig = protocol_gap(everything)
    shown = ["not fine-tuned", "baseline", "+ flipped query", "best"]
    assert titles(fig) == ["not fine-tuned", "baseline", "improved", "best"]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names[0] == "standard" and names[-2:] == ["lat-top10 (the paper's)",
                                                     "lat-top10 − standard"]
    protocols = [*names[:-2], "lat-top10"]
    assert sorted(protocols) == sorted(PROTOCOLS)
    rules = [PROTOCOLS[name].drop_same_camera for name in protocols]
    assert rules == sorted(rules, reverse=True)  # those that leave out most come first
    seeds = everything.set_index(["row", "protocol"])["mAP"].sort_index()
    for ax, row in zip(fig.axes, shown, strict=True):
        means = [seeds[row, name].mean() for name in protocols]
        big = [line for line in ax.lines if len(line.get_xdata()) == 1]
        assert [float(line.get_xdata()[0]) for line in big] == pytest.approx(means)
        assert [float(line.get_ydata()[0]) for line in big] == list(range(len(protocols)))
        assert {look_of(line) for line in big} == {MODELS[row][:2]}
        small = [sorted(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 3]
        assert small == [sorted(seeds[row, name]) for name in protocols]
        gap = f"{100 * (means[-1] - means[0]):+.1f} points"
        assert [text.get_text() for text in ax.texts] == [*[f"{100 * m:.1f}" for m in means], gap]
        assert ticks(ax.xaxis) == {0: "0", 0.5: "50", 1: "100"}


def test_values_in_the_panels_of_protocol_gap_are_inside_and_apart(everything):
    for frame in (everything, everything[everything["row"].isin(["not fine-tuned", "best"])]):
        for ax in protocol_gap(frame).axes:
            boxes = [text.get_window_extent() for text in ax.texts]
            marks = [line.get_window_extent() for line in ax.lines if len(line.get_xdata()) == 1]
            assert not overlaps([*boxes, *marks])
            assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_protocol_gap_of_one_protocol_claims_no_gap(scores):
    fig = protocol_gap(scores[scores["protocol"] == "standard"])
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["standard"]
    assert all(len(ax.texts) == 1 for ax in fig.axes)


def test_protocol_gap_of_unknown_rows_shows_the_first_four(everything):
    names = [f"row {i}" for i in range(len(LABELS))]
    frame = everything.assign(row=everything["row"].cat.rename_categories(names))
    assert titles(protocol_gap(frame[frame["row"].isin(names[:5])])) == names[:4]


def test_cmc_curves_show_ranks_to_20_or_as_many_as_there_are(cmc):
    again = cmc[cmc["row"] == "baseline"].assign(row="+ re-ranking", cmc=0.1)
    fig = cmc_curves(pd.concat([cmc, again]).iloc[::-1])
    assert titles(fig) == ["standard", "lat-top10 (the paper's)"]
    for ax, last in zip(fig.axes, (20, 10), strict=True):
        assert len(ax.lines) == 3 and not ax.collections  # not the re-ranked row
        for line in ax.lines:
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, last + 1))
            np.testing.assert_array_equal(line.get_ydata(), 1 - 0.5 / np.arange(1, last + 1))
        assert ax.get_xlim() == (0.5, last + 0.5) and list(ticks(ax.xaxis))[-1] == last
    assert sorted(legend_texts(fig)) == sorted(ROWS)
    assert len({(*look_of(line), line.get_linestyle()) for line in fig.axes[0].lines}) == 3


def test_the_axis_of_cmc_curves_is_in_percent_and_stretched_near_100(cmc):
    ax = cmc_curves(cmc).axes[0]
    assert ticks(ax.yaxis) == {0.5: "50", 0.8: "80", 0.9: "90", 0.95: "95", 1: "100"}
    heights = ax.transData.transform([(1, y) for y in (0.5, 0.9, 0.95, 1)])[:, 1]
    steps = np.diff(heights)
    assert (steps > 0.15 * ax.bbox.height).all()  # five points at the top have room


def test_ap_scatter_shows_each_query_under_both_protocols(queries):
    only = queries[queries["row"] == "baseline"].assign(row="+ re-ranking")
    frame = pd.concat([queries, only[only["protocol"] == "standard"]])
    queries.loc[(queries["row"] == "baseline") & (queries["path"] == "0.png"), "AP"] = [0, 1, 1, 0]
    fig = ap_scatter(pd.concat([queries, frame[frame["row"] == "+ re-ranking"]]))
    assert titles(fig) == ROWS  # a row without scores under the paper's protocol has no panel
    for ax, row in zip(fig.axes, ROWS, strict=True):
        diagonal, dots = ax.lines
        own = queries[queries["row"] == row].set_index(["path", "seed"]).sort_index()
        want = [own.loc[own["protocol"] == name, "AP"] for name in ("standard", "lat-top10")]
        np.testing.assert_array_equal(dots.get_xydata(), np.stack(want, axis=1))
        assert look_of(dots) == MODELS[row][:2]
        assert set(diagonal.get_xydata().ravel()) == {0, 1}
        for axis in (ax.xaxis, ax.yaxis):
            assert ticks(axis) == {0: "0", 0.25: "25", 0.5: "50", 0.75: "75", 1: "100"}
            low, high = axis.get_view_interval()
            assert low < 0 and high > 1  # dots at the border are seen completely


def test_a_row_has_one_look_in_every_figure(history, scores, cmc, queries):
    want = MODELS["improved"]
    assert want == MODELS["+ flipped query"]
    lines = [learning_curves(history).axes[1].lines[0], cmc_curves(cmc).axes[0].lines[2],
             protocol_gap(scores).axes[1].lines[0], ap_scatter(queries).axes[2].lines[1]]
    assert {look_of(line) for line in lines} == {want[:2]}
    assert to_hex(bars(scores).axes[0].patches[-1].get_facecolor()) == want.color


def test_every_axis_is_labelled_and_nothing_is_cut_off(history, scores, cmc, everything):
    for fig in (learning_curves(history), bars(scores, PAPER), protocol_gap(everything),
                cmc_curves(cmc)):
        assert all(ax.get_xlabel() for ax in fig.axes) and fig.axes[0].get_ylabel()
        assert nothing_is_cut_off(fig)


DRAW = {
    learning_curves: ("history", ["run", "preset", "seed", "epoch", "loss", "accuracy"]),
    bars: ("scores", ["row", "protocol", "seed", "mAP", "rank1"]),
    protocol_gap: ("scores", ["row", "protocol", "seed", "mAP"]),
    cmc_curves: ("cmc", ["row", "protocol", "rank", "cmc"]),
    ap_scatter: ("queries", ["row", "path", "seed", "protocol", "AP"]),
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
