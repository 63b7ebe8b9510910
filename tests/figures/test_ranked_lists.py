"""Pictures in rows: each with its label, and frames that say right or wrong."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from reidlib.evaluation.ranking import rank_gallery
from reidlib.figures.ranked_lists import (
    RIGHT,
    WRONG,
    ColourBar,
    RankedRow,
    contact_sheet,
    ranked_lists,
    ranked_row,
)
from tests.figures.conftest import nothing_is_cut_off, overlaps


def picture(value, height=32, width=12):
    return np.full((height, width, 3), value, dtype=np.uint8)


def ranked(title="baseline, AP 0.583", right=(False, True, True), query=None, kept=None):
    query = picture(7) if query is None else query
    return RankedRow(title, query, "id 63, cam 1", [picture(10 * k) for k in range(len(right))],
                     [f"cam {k}" for k in range(len(right))], list(right),
                     [True] * len(right) if kept is None else kept)


def is_struck(ax):
    """Two lines from corner to corner, over a pale picture."""
    ends = sorted(line.get_xydata().tolist() for line in ax.lines)
    assert ends in ([], [[[0, 0], [1, 1]], [[0, 1], [1, 0]]])
    assert (ax.images[0].get_alpha() < 1) == bool(ends)
    return bool(ends)


@pytest.mark.parametrize("stack", [list, np.stack])
def test_contact_sheet_shows_each_picture_with_its_label(stack):
    pictures = [picture(k) for k in range(7)]
    fig = contact_sheet(stack(pictures), [f"id {k}" for k in range(7)], columns=3)
    assert len(fig.axes) == 7
    for k, ax in enumerate(fig.axes):
        np.testing.assert_array_equal(ax.images[0].get_array(), pictures[k])
        assert ax.get_xlabel() == f"id {k}"


def test_contact_sheet_refuses_unlabelled_pictures():
    with pytest.raises(ValueError, match="2 images and 1 labels"):
        contact_sheet([picture(0), picture(1)], ["id 0"])
    with pytest.raises(ValueError, match="0 images"):
        contact_sheet([], [])


def test_contact_sheet_strikes_out_what_it_is_told_to():
    pictures, labels = [picture(k) for k in range(3)], list("abc")
    fig = contact_sheet(pictures, labels, 2, struck=[False, True, False])
    assert [is_struck(ax) for ax in fig.axes] == [False, True, False]
    assert not any(is_struck(ax) for ax in contact_sheet(pictures, labels).axes)
    with pytest.raises(ValueError):
        contact_sheet(pictures, labels, struck=[True])


def test_frames_and_symbols_say_right_or_wrong():
    fig = ranked_lists([ranked(), ranked("improved, AP 1.000", (True, False, False))])
    assert [sub.get_suptitle() for sub in fig.subfigs] == ["baseline, AP 0.583",
                                                           "improved, AP 1.000"]
    for sub, right in zip(fig.subfigs, [(0, 1, 1), (1, 0, 0)], strict=True):
        query, *answers = sub.axes
        np.testing.assert_array_equal(query.images[0].get_array(), picture(7))
        assert "id 63" in query.get_xlabel() and not query.texts
        for k, (ax, hit) in enumerate(zip(answers, right, strict=True)):
            np.testing.assert_array_equal(ax.images[0].get_array(), picture(10 * k))
            frames = {to_hex(spine.get_edgecolor()) for spine in ax.spines.values()}
            assert frames == {RIGHT if hit else WRONG}
            assert ax.texts[0].get_text() == f"{k + 1} {'✓' if hit else '✗'}"
            assert ax.get_xlabel() == f"cam {k}"


def test_what_is_struck_out_has_no_rank_and_no_frame():
    query, *answers = ranked_lists([ranked(kept=[False, True, True])]).axes
    assert [is_struck(ax) for ax in answers] == [True, False, False] and not is_struck(query)
    assert [[text.get_text() for text in ax.texts] for ax in answers] == [[], ["1 ✓"], ["2 ✓"]]
    assert not any(spine.get_visible() for spine in answers[0].spines.values())


def test_ranked_lists_of_different_lengths_and_sizes_fit():
    fig = ranked_lists([ranked(right=[True] * 10, query=picture(7, 20, 20)), ranked()])
    assert [sum(bool(ax.images) for ax in sub.axes) for sub in fig.subfigs] == [11, 4]
    assert nothing_is_cut_off(fig)


def test_rows_with_colours_have_a_bar_and_one_note_below():
    low, high = (0.1, 0.2, 1.0), (1.0, 0.8, 0.0)
    bar = ColourBar(np.array([low, high]), ("a patch adds -0.010", "0.040"), "cos: " + 60 * "word ")
    fig = ranked_lists([replace(ranked("not fine-tuned: AP 20.1 %", [True] * 5), bar=bar),
                        replace(ranked(right=[True] * 5), bar=bar)])
    assert len(fig.subfigs) == 3 and nothing_is_cut_off(fig)
    for sub in fig.subfigs[:2]:
        colours = sub.axes[-1].images[0].get_array()[0]
        np.testing.assert_allclose(colours[[0, -1]], [low, high])
        title, *ends = sub.texts
        assert [text.get_text() for text in ends] == [*bar.ends]
        assert not overlaps([sub.axes[-1].bbox, *(t.get_window_extent() for t in sub.texts)])
        assert title.get_text() == sub.get_suptitle()
        pictures = [ax.get_tightbbox() for ax in sub.axes[:-1]]
        assert not any(overlaps([sub.axes[-1].bbox, box]) for box in pictures)
    note, = fig.subfigs[2].texts
    assert note.get_text().replace("\n", " ") == bar.note.strip()


def test_incomplete_rows_are_refused():
    with pytest.raises(ValueError, match="no ranked rows"):
        ranked_lists([])
    with pytest.raises(ValueError, match=r"baseline.*\(0, 0, 0, 0\)"):
        ranked(right=())
    with pytest.raises(ValueError, match=r"improved.*\(1, 1, 2, 1\)"):
        RankedRow("improved", picture(0), "id 1", [picture(1)], ["cam 1"], [True, False], [True])


def test_a_row_shows_the_nearest_that_the_protocol_counts(make_embeddings):
    """Of five gallery images one is of the query's own camera; the AP is that of all four others.
    """
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings([1, 10, 20, 30, 40], ["1", "2", "1", "2", "1"], list("abbab"))
    loaded = []

    def load(paths):
        loaded.append(list(paths))
        return [picture(0)] * len(paths)

    row = ranked_row(rank_gallery(query, gallery), 0, "tiny", load, k=3)
    assert row.title == "tiny: AP 50.0 %"  # (1/2 + 2/4) / 2
    assert row.right == [False, True, False]
    assert loaded == [["0.png"], ["1.png", "2.png", "3.png"]]
    assert row.labels == ["id 2\ncam b", "id 1\ncam b", "id 2\ncam a"] and all(row.kept)
    complete = ranked_row(rank_gallery(query, gallery), 0, "tiny", load, k=3, dropped=True)
    assert loaded[2:] == [["0.png"], ["0.png", "1.png", "2.png"]] and complete.title == row.title
    assert complete.kept == [False, True, True] and complete.right == [True, False, True]
    assert complete.labels == ["id 1\ncam a", "id 2\ncam b", "id 1\ncam b"]
    alone = gallery.take(np.array([0, 1]))
    assert ranked_row(rank_gallery(query, alone), 0, "tiny", load).title == "tiny: no valid match"
