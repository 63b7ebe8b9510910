"""Bands, masks and maps: what is drawn is what the model does with its patches."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch.nn.functional import normalize

from reidlib.figures.parts import image_flow, part_bands, part_colours, part_masks, part_weights


def rows(n_rows, n_columns):
    """Row pooling by its definition."""
    shares = np.zeros((n_rows, n_rows, n_columns), np.float32)
    for i in range(n_rows):
        shares[i, i] = 1 / n_columns
    return shares


def test_the_parts_of_the_baseline_are_rows(make_model):
    np.testing.assert_allclose(part_weights(make_model()), rows(4, 4))
    np.testing.assert_allclose(part_weights(make_model(image_size=(32, 16))), rows(4, 2))


@pytest.mark.parametrize("size", [(32, 32), (32, 16), (16, 32)])
def test_with_y_pooling_half_of_each_part_is_a_column(make_model, size):
    weights = part_weights(make_model(image_size=size, y_pooling=True))
    n, _, columns = weights.shape
    bins = np.zeros_like(weights)
    for i in range(n):
        own = slice(i * columns // n, -(-(i + 1) * columns // n))
        bins[i, :, own] = 1
        bins[i] /= bins[i].sum()
    np.testing.assert_allclose(weights, (rows(n, columns) + bins) / 2, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"y_pooling": True}])
def test_the_shares_make_the_live_parts(make_model, make_images, options):
    model = make_model(**options).eval()
    with torch.no_grad():
        tokens = model.tokens(make_images(1))
        local = model.parts(tokens)[0][0].numpy()
    patches = tokens[0, 1:].view(4, 4, -1).numpy()
    np.testing.assert_allclose(np.einsum("prc,rcd->pd", part_weights(model), patches), local,
                               atol=1e-5)


def test_bands_have_the_colour_of_their_part():
    picture = np.full((40, 16, 3), 100, np.uint8)
    left, right = part_bands(picture, rows(4, 2)).axes
    np.testing.assert_array_equal(left.images[0].get_array(), picture)
    drawn = right.images[0].get_array()
    for i, colour in enumerate(part_colours(4)):
        want = 0.55 * 100 + 0.45 * 255 * np.array(to_rgb(colour))
        assert np.abs(drawn[10 * i:10 * i + 10] - want).max() <= 1
    places = dict(zip([text.get_text() for text in right.get_yticklabels()], right.get_yticks(),
                      strict=True))
    assert places == pytest.approx({"1": 4.5, "2": 14.5, "3": 24.5, "4": 34.5})
    lines = [line.get_ydata()[0] for line in left.lines if len(set(line.get_ydata())) == 1]
    assert lines[:3] == [9.5, 19.5, 29.5]


def test_masks_cover_what_a_part_is_the_mean_of():
    picture = np.zeros((40, 20, 3), np.uint8)  # what is not covered stays black
    cross = rows(4, 4)
    cross = (cross + cross.transpose(0, 2, 1)) / 2
    fig = part_masks(picture, {"rows": rows(4, 4), "both": cross}, [0, 3])
    assert [ax.get_title() for ax in fig.axes] == ["part 1", "part 4"] * 2
    assert [ax.get_ylabel() for ax in fig.axes] == ["rows", "", "both", ""]
    assert {ax.get_xlabel() for ax in fig.axes} == {"at most 25.0 %"}
    seen = fig.axes[0].images[0].get_array().sum(2)
    assert (seen[:10] > 0).all() and not seen[10:].any()
    seen = fig.axes[3].images[0].get_array()[5::10, 2::5].sum(2)  # one pixel a patch
    assert seen[3, 3] > seen[3, 0] == seen[0, 3] > 0 and not seen[:3, :3].any()


def test_the_flow_shows_the_live_numbers(make_model, make_images):
    model, image = make_model(n_identities=7).eval(), make_images(1)
    fig = image_flow(model, image)
    picture, similar, mixed, logits = (ax.images[0].get_array() for ax in fig.axes)
    with torch.no_grad():
        tokens, output = model.tokens(image), model(image)
    np.testing.assert_array_equal(picture, image[0].permute(1, 2, 0))
    unit = normalize(tokens[0], dim=1)
    np.testing.assert_allclose(similar, (unit[1:] @ unit[0]).view(4, 4), atol=1e-5)
    np.testing.assert_allclose(mixed, model.parts(tokens)[1][0], atol=1e-5)
    np.testing.assert_allclose(logits, output.logits[0], atol=1e-5)
    assert [ax.get_xlabel() for ax in fig.axes] == ["3 × 32 × 32", "4 × 4 × 16", "4 × 16",
                                                    "4 × 7 people"]
