"""The architecture against its definition, one part at a time."""

import numpy as np
import pytest
import timm
import torch
from pytorch_metric_learning import losses
from torch import nn
from torch.nn.functional import adaptive_avg_pool1d

from reidlib.losses import AngularLoss
from reidlib.models.la_transformer import LATransformer, PartClassifiers, pool_to


def slow_parts(model, images):
    """Row and column means and the mixture with the class token, one part at a time."""
    mean, std = (torch.tensor(model.backbone.pretrained_cfg[k]).view(3, 1, 1)
                 for k in ("mean", "std"))
    tokens = model.backbone.forward_features((images / 255 - mean) / std)
    grid = model.grid[0]
    local, mixed = [], []
    for i in range(grid):
        row = torch.stack([tokens[:, 1 + i * grid + j] for j in range(grid)]).mean(0)
        column = torch.stack([tokens[:, 1 + j * grid + i] for j in range(grid)]).mean(0)
        part = (row + column) / 2 if model.y_pooling else row
        local.append(part)
        mixed.append((tokens[:, 0] + model.local_weight * part) / (1 + model.local_weight))
    return torch.stack(local, 1), torch.stack(mixed, 1)


@pytest.mark.parametrize("y_pooling", [False, True])
@pytest.mark.parametrize("local_weight", [0.0, 8.0])
def test_parts_equal_the_loop(make_model, make_images, y_pooling, local_weight):
    model = make_model(y_pooling=y_pooling, local_weight=local_weight).eval()
    images = make_images(3)
    fast = model.parts(model.tokens(images))
    for ours, slow in zip(fast, slow_parts(model, images), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)


def test_a_part_of_a_rectangle_is_a_row_with_its_share_of_the_columns(make_model, make_images):
    """4 rows, 3 columns: part 0 has column 0, part 1 columns 0 and 1, part 2 columns 1 and 2."""
    model = make_model(image_size=(32, 24), y_pooling=True).eval()
    assert model.image_size == (32, 24) and model.grid == (4, 3)
    tokens = model.tokens(make_images(2, (32, 24)))
    patches = tokens[:, 1:].view(2, 4, 3, 16)
    local, _ = model.parts(tokens)
    for row, columns in enumerate(([0], [0, 1], [1, 2], [2])):
        want = (patches[:, row].mean(1) + patches[:, :, columns].mean((1, 2))) / 2
        torch.testing.assert_close(local[:, row], want)
    assert model.embed(make_images(2, (32, 24))).shape == (2, 4 * 16)
    assert model(make_images(2, (32, 24))).logits.shape == (2, 4, 5)


@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_columns_are_pooled_as_torch_pools(width):
    columns = torch.randn(2, width, 3, dtype=torch.double)
    torch.testing.assert_close(pool_to(columns, 4),
                               adaptive_avg_pool1d(columns.mT, 4).mT)


def test_a_square_grid_gives_the_bits_of_row_plus_column(make_model):
    tokens = torch.randn(3, 17, 16, requires_grad=True)
    patches = tokens[:, 1:].unflatten(1, (4, 4))
    want = (patches.mean(2) + patches.mean(1)) / 2
    found, _ = make_model(y_pooling=True).parts(tokens)
    assert torch.equal(found, want)
    weights = torch.randn_like(want)
    gradients = [torch.autograd.grad((x * weights).sum(), tokens)[0] for x in (found, want)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("feature", ["mixed", "local", "neck"])
def test_embedding_is_the_normalised_parts_side_by_side(make_model, make_images, feature):
    model = make_model(feature=feature).eval()
    norm = model.classifiers.norm
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    local, mixed = model.parts(model.tokens(make_images(2)))
    rows = model.grid[0]
    hidden = torch.stack([mixed[:, i] @ model.classifiers.reduce[i] for i in range(rows)], 1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    neck = (hidden.flatten(1) - norm.running_mean) * scale + norm.bias
    parts = {"mixed": mixed, "local": local, "neck": neck.view_as(hidden)}[feature]
    parts = nn.functional.normalize(parts, dim=2)
    want = torch.cat([parts[:, i] for i in range(model.grid[0])], dim=1)
    want = want / want.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.embed(make_images(2)), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(make_images(2)).embedding, want, rtol=1e-4, atol=1e-5)


def test_raw_features_are_compared_before_they_have_unit_length(make_model, make_images):
    model, unit = make_model(raw=True).eval(), make_model().eval()
    unit.load_state_dict(model.state_dict())
    images = make_images(2)
    parts = model.features(model.tokens(images))
    raw = model(images).embedding
    assert raw.pow(2).sum(1).tolist() == pytest.approx(parts.pow(2).sum(2).mean(1).tolist())
    torch.testing.assert_close(nn.functional.normalize(raw.view_as(parts), dim=2),
                               nn.functional.normalize(parts, dim=2))
    assert torch.equal(model.embed(images), unit.embed(images))
    assert torch.equal(unit(images).embedding, unit.embed(images))


def test_dropout_turns_the_feature_of_a_cosine_by_45_degrees():
    """cos(dropout(h), h) = |kept| / |h|, the root of a half on average."""
    neck = torch.randn(64, 3, 256)
    for dropout, expected in ((0.5, 0.5 ** 0.5), (0.0, 1.0)):
        heads = PartClassifiers(3, 6, 4, cosine=True, dropout=dropout)
        cosines = torch.cosine_similarity(heads._dropped(neck), neck, dim=2)
        assert cosines.mean().item() == pytest.approx(expected, abs=0.01)


def test_the_classifiers_have_the_models_dropout(make_model):
    assert [make_model(**given).classifiers.dropout.p for given in ({}, {"dropout": 0.1})] == [
        0.5, 0.1]


@pytest.mark.parametrize("cosine", [False, True])
def test_part_classifiers_equal_separate_heads(cosine):
    """Each part through torch's own Linear -> BatchNorm -> Dropout -> Linear, in training mode."""
    heads = PartClassifiers(n_parts=3, dim=6, n_identities=4, cosine=cosine, hidden=5, dropout=0.0)
    nn.init.normal_(heads.norm.weight)
    nn.init.normal_(heads.norm.bias)
    features = torch.randn(8, 3, 6)
    logits = heads(heads.neck(features))
    for part in range(3):
        hidden = features[:, part] @ heads.reduce[part]
        norm = nn.BatchNorm1d(5)
        own = slice(5 * part, 5 * part + 5)
        norm.weight.data, norm.bias.data = heads.norm.weight[own], heads.norm.bias[own]
        hidden = norm(hidden)
        if cosine:
            want = torch.stack([nn.functional.cosine_similarity(
                hidden, heads.classify[part][:, i][None]) for i in range(4)], 1)
        else:
            want = hidden @ heads.classify[part] + heads.bias[part]
        torch.testing.assert_close(logits[:, part], want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # of pytorch-metric-learning
@pytest.mark.parametrize("margin", [1, 2, 3, 4])
@pytest.mark.parametrize("angular, kind", [("a-softmax", losses.SphereFaceLoss),
                                           ("l-softmax", losses.LargeMarginSoftmaxLoss)])
def test_angular_margins_equal_pytorch_metric_learning(make_model, make_images, angular, kind,
                                                       margin):
    """Part by part, in the loss and its gradients for the class weights and the first layers."""
    model = make_model(n_identities=3, angular=angular).double().eval()
    heads = model.classifiers
    nn.init.normal_(heads.classify)
    images, ids = make_images(6), torch.arange(6) % 3
    loss = AngularLoss(margin)
    loss.share = 1.0  # all of the margin, as the oracles have it
    found = loss(*model(images), ids)["identity"]
    neck = heads.neck(model.parts(model.tokens(images))[1])
    want = 0.0
    for part in range(neck.shape[1]):
        oracle = kind(num_classes=3, embedding_size=neck.shape[2], margin=margin)
        del oracle.W
        oracle.W = heads.classify[part]
        want = want + oracle(neck[:, part], ids)
    torch.testing.assert_close(found, want)
    for ours, theirs in zip(torch.autograd.grad(found, (heads.classify, heads.reduce)),
                            torch.autograd.grad(want, (heads.classify, heads.reduce)),
                            strict=True):
        torch.testing.assert_close(ours, theirs)


def test_norms_are_those_of_the_features_that_were_classified(make_model):
    """Behind the same dropout: norm times cosine is the product of feature and unit weight."""
    heads = make_model(angular="a-softmax").classifiers.train()
    neck, kept = torch.randn(6, 4, 256), []
    heads.dropout.register_forward_hook(lambda _, __, out: kept.append(out.view_as(neck)))
    cosines, norms = heads.with_norms(neck)
    assert norms.shape == (6, 4, 1) and (kept[0] == 0).float().mean() == pytest.approx(0.5, abs=0.1)
    weights = nn.functional.normalize(heads.classify, dim=1)
    torch.testing.assert_close(norms * cosines, torch.einsum("bph,phi->bpi", kept[0], weights))


def test_a_model_with_an_angular_margin_embeds_as_one_with_cosines(make_model, make_images):
    torch.manual_seed(1)
    plain = make_model(cosine=True).eval()
    for angular in ("a-softmax", "l-softmax"):
        model = make_model(angular=angular).eval()
        model.load_state_dict(plain.state_dict())
        found, want = model(make_images(3)), plain(make_images(3))
        assert torch.equal(found.logits, want.logits)
        assert torch.equal(found.embedding, want.embedding)
        assert torch.equal(model.embed(make_images(3)), plain.embed(make_images(3)))
    with pytest.raises(ValueError, match="unknown angular margin 'l-softmx'"):
        make_model(angular="l-softmx")


def test_normalisation_comes_from_the_weights_own_config(make_images):
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8,
                                 embed_dim=16, depth=2, num_heads=2,
                                 pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)})
    model = LATransformer(backbone, 3).eval()
    assert model.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    local, _ = model.parts(model.tokens(make_images(2)))
    torch.testing.assert_close(local, slow_parts(model, make_images(2))[0], rtol=1e-4, atol=1e-5)


def test_wrong_image_size_names_both(make_model, make_images):
    with pytest.raises(ValueError, match=r"\(48, 48\).*takes \(32, 32\)"):
        make_model()(make_images(1, 48))


def test_initial_logits_do_not_depend_on_the_number_of_images(make_model, make_images):
    model = make_model().eval()
    both = model(make_images(4)).logits
    one = model(make_images(4)[:1]).logits
    np.testing.assert_allclose(both[:1].detach(), one.detach(), atol=1e-5)


def test_an_unknown_feature_is_refused(make_model):
    with pytest.raises(ValueError, match="unknown feature 'locl' .*'local'"):
        make_model(feature="locl")


def test_heads_see_the_batch_of_all_processes(make_model, make_images):
    """``gather`` gets one row of parts an image, and what it gives back is classified."""
    images, seen = make_images(4), []

    def gather(rows):
        seen.append(rows.shape)
        return torch.cat([rows, rows.flip(0)])

    alone, together = make_model().eval(), make_model(gather=gather).eval()
    together.load_state_dict(alone.state_dict())
    for own, found in zip(alone(images), together(images), strict=True):
        torch.testing.assert_close(found, torch.cat([own, own.flip(0)]))
    assert seen == [(4, 2, 4, 16)]  # images; local and mixed; parts; width
    torch.testing.assert_close(together.embed(images), alone.embed(images))  # each its own
