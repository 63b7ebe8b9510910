"""Maps of a gallery: the points are repeatable, and the measures those of the embeddings."""

import numpy as np
import pandas as pd
import pytest

from reidlib.figures.tsne import across_cameras, silhouette, tsne_panel, tsne_points
from tests.figures.conftest import nothing_is_cut_off, overlaps


@pytest.fixture
def gallery():
    """Embeddings (48, 16) of 12 people in tight clusters, seen by 2 cameras."""
    rng = np.random.default_rng(0)
    ids, cams = np.repeat(np.arange(63, 75), 4), np.tile([1, 2], 24)
    return rng.normal(size=(12, 16))[ids - 63] + 0.1 * rng.normal(size=(48, 16)), ids, cams


@pytest.fixture
def points(gallery):
    emb, ids, cams = gallery
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": ids, "cam": cams, "x": rng.normal(size=48),
                          "y": rng.normal(size=48)})
    return pd.concat([frame.assign(model="baseline", silhouette=0.125, across_cameras=1.0),
                      frame.assign(model="improved", silhouette=-0.5, across_cameras=0.25)])


def test_silhouette_by_hand():
    two_directions = np.array([[1.0, 0], [2, 0], [0, 1], [0, 3]])
    assert silhouette(two_directions, np.array([5, 5, 9, 9])) == pytest.approx(1)
    # every image has its own person at distance 1, and others at 0 and 1: (0.5 - 1) / 1
    assert silhouette(two_directions, np.array([5, 9, 5, 9])) == pytest.approx(-0.5)


@pytest.mark.parametrize("ids", [[1, 1, 1], [1, 2, 3]])
def test_silhouette_is_not_defined_for_one_person_or_single_images(ids):
    assert np.isnan(silhouette(np.eye(3), np.array(ids)))


def test_neighbours_across_cameras_by_a_loop(gallery):
    emb, ids, cams = gallery
    noisy = emb + np.random.default_rng(2).normal(size=emb.shape)
    unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    right = []
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if cams[j] != cams[i]]
        nearest = sorted(others, key=lambda j: -unit[i] @ unit[j])[:3]
        votes = [ids[j] for j in nearest]
        right.append(min(votes, key=lambda v: (-votes.count(v), v)) == ids[i])  # ties: the first
    assert 0 < np.mean(right) < 1
    assert across_cameras(noisy, ids, cams, k=3) == pytest.approx(np.mean(right))
    assert across_cameras(emb, ids, cams, k=1) == 1
    assert np.isnan(across_cameras(emb, ids, np.ones(48)))


def test_the_same_seed_gives_the_same_points(gallery):
    first, again = (tsne_points(*gallery, perplexity=10, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert list(first.columns) == ["x", "y", "id", "cam"]
    np.testing.assert_array_equal(first[["id", "cam"]], np.stack(gallery[1:], axis=1))


def test_tsne_puts_an_image_beside_its_own_person(gallery):
    points = tsne_points(*gallery, perplexity=5)
    xy = points[["x", "y"]].to_numpy()
    dist = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag([np.inf] * len(xy))
    assert (gallery[1][dist.argmin(1)] == gallery[1]).all()


@pytest.mark.parametrize("perplexity", [0, 48])
def test_perplexity_must_fit_the_number_of_images(gallery, perplexity):
    with pytest.raises(ValueError, match=f"48 images.*got {perplexity}"):
        tsne_points(*gallery, perplexity=perplexity)


def names(ax):
    """Identity -> the box that it is written in."""
    return {text.get_text(): text.get_bbox_patch().get_window_extent() for text in ax.texts
            if text.get_text()}


def test_maps_share_colours_and_show_every_point(points):
    fig = tsne_panel(points, "perplexity 20, seed 0")
    assert [ax.get_title() for ax in fig.axes] == [
        "baseline\nsilhouette 0.12, 5-NN 100.0 %", "improved\nsilhouette -0.50, 5-NN 25.0 %"]
    assert fig.get_suptitle() == "perplexity 20, seed 0"
    colours = [[line.get_color() for line in ax.lines] for ax in fig.axes]
    assert colours[0] == colours[1] and len(set(colours[0])) == 12
    assert {line.get_marker() for line in fig.axes[0].lines} == {"o", "s"}
    drawn = np.concatenate([line.get_xydata() for line in fig.axes[0].lines])
    want = points.loc[points["model"] == "baseline", ["x", "y"]].to_numpy()
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, want))
    assert set(names(fig.axes[0])) == {str(i) for i in range(63, 75)}


def test_colours_of_cameras(points):
    fig = tsne_panel(points, colour="cam")
    assert len({line.get_color() for line in fig.axes[0].lines}) == 2
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["camera 1", "camera 2"]
    assert set(names(fig.axes[0])) == {str(i) for i in range(63, 75)}


def test_each_line_from_a_name_ends_at_a_point_of_that_person(points):
    for ax, model in zip(tsne_panel(points).axes, ("baseline", "improved"), strict=True):
        own = points[points["model"] == model]
        lines = [text for text in ax.texts if not text.get_text()]
        written = [text for text in ax.texts if text.get_text()]
        for text, line in zip(written, lines, strict=True):
            assert line.xyann == pytest.approx(text.get_position())
            person = own[own["id"] == int(text.get_text())]
            assert np.isclose(person[["x", "y"]], line.xy).all(1).any()


@pytest.mark.parametrize("people, spread", [(12, 0.3), (20, 0.3), (20, 1.0), (30, 0.3),
                                            (12, 3.0)])
def test_names_hide_no_point_no_other_name_and_no_line_and_stay_in_the_frame(people, spread):
    """Tight clusters, and people who are mixed up."""
    rng = np.random.default_rng(people)
    ids = np.repeat(np.arange(people), 8)
    xy = 4 * rng.normal(size=(people, 2))[ids] + spread * rng.normal(size=(len(ids), 2))
    frame = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "id": [f"{i:03}" for i in ids],
                          "cam": np.tile([1, 2], len(ids) // 2), "silhouette": 0.1,
                          "across_cameras": 0.5})
    fig = tsne_panel(pd.concat([frame.assign(model=f"model {i}") for i in range(4)]))
    assert nothing_is_cut_off(fig)
    for ax in fig.axes:
        boxes, dots = names(ax), ax.transData.transform(xy)
        assert len(boxes) == people and not overlaps([*boxes.values()])
        for box in boxes.values():
            assert ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
            assert ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1
            inside = (box.min < dots) & (dots < box.max)
            assert not inside.all(1).any()
        for text, line in zip(*[iter(ax.texts)] * 2, strict=True):
            ends = ax.transData.transform([line.xyann, line.xy])
            along = ends[0] + np.linspace(0, 1, 100)[:, None] * (ends[1] - ends[0])
            for name, box in boxes.items():
                crossed = ((box.min < along) & (along < box.max)).all(1).any()
                assert not crossed or name == text.get_text()


@pytest.mark.parametrize("models", [1, 2, 3, 4])
def test_the_legend_fits_outside_the_maps(points, models):
    frame = pd.concat([points[points["model"] == "baseline"].assign(model=f"model {i}")
                       for i in range(models)])
    fig = tsne_panel(frame.assign(cam=[*range(6)] * (8 * models)))
    legend = fig.legends[0].get_window_extent()
    assert len(fig.axes) == models and len(fig.legends[0].get_texts()) == 6
    assert legend.x0 >= 0 and legend.x1 <= fig.bbox.x1 and legend.y0 >= 0
    assert all(ax.get_window_extent().y0 > legend.y1 for ax in fig.axes)


def test_more_people_than_colours_still_differ(points):
    many = points.assign(id=np.arange(96) % 40 + 1)
    assert len({line.get_color() for line in tsne_panel(many).axes[0].lines}) == 40


def test_bad_points_are_named(points):
    for column in ("model", "x", "y", "id", "cam", "silhouette", "across_cameras"):
        with pytest.raises(ValueError, match=rf"missing columns \['{column}'\]"):
            tsne_panel(points.drop(columns=column))
    with pytest.raises(ValueError, match="no rows"):
        tsne_panel(points.iloc[:0])
    with pytest.raises(ValueError, match="scores of baseline"):
        tsne_panel(points.assign(model="baseline"))
    with pytest.raises(ValueError, match="48 cameras"):
        tsne_panel(points.assign(cam=np.arange(96) % 48))
