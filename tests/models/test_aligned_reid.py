"""AlignedReID's branches on a ViT's grid and on convolutions' maps."""

import pytest
import torch
from torch.nn.functional import normalize

from reidlib.losses import aligned_reid_loss
from reidlib.models.aligned_reid import AlignedReID
from reidlib.models.backbone import build_backbone
from tests.models.made_up import assert_all_learn, assert_heads_see_all

SIZE = (32, 16)  # 4 x 2 patches


@pytest.fixture
def make(make_backbone):
    def make(**options):
        return AlignedReID(make_backbone(SIZE), 5, channels=6, **options)

    return make


def test_branches_equal_the_loop_over_patches(make, make_images):
    model, images = make().eval(), make_images(3, SIZE)
    norm = model.stripe[1]
    for values in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(values)
    tokens = model.backbone.forward_features((images / 255 - 0.5) / 0.5)[:, 1:]
    output = model(images)
    torch.testing.assert_close(output.features, tokens.mean(1), rtol=1e-4, atol=1e-5)
    weight = model.classify.weight
    torch.testing.assert_close(output.logits[:, 0], tokens.mean(1) @ weight.T, rtol=1e-4, atol=1e-5)
    for row in range(4):
        mean = (tokens[:, 2 * row] + tokens[:, 2 * row + 1]) / 2
        stripe = mean @ model.stripe[0].weight[:, :, 0].T - norm.running_mean
        stripe = stripe / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        want = normalize(stripe.clamp(min=0), dim=1)
        torch.testing.assert_close(output.local[:, row], want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(images), normalize(output.features, dim=1))
    torch.testing.assert_close(model.embed_local(images), output.local)


@pytest.mark.parametrize(("name", "size", "args", "rows"), [
    ("resnet10t", (64, 32), {}, 2),
    ("vit_tiny_patch16_224", SIZE,  # no class token
     {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "class_token": False,
      "global_pool": "avg"}, 4),
    ("swin_tiny_patch4_window7_224", (32, 16),
     {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1), "window_size": 2}, 4)])
def test_any_backbones_map_has_rows(make_images, name, size, args, rows):
    model = AlignedReID(build_backbone(name, size, False, args), 5).eval()
    images = make_images(2, size)
    found = model.map(images)
    assert found.shape[1:] == (rows, rows // 2, model.backbone.num_features)
    assert model(images).logits.shape == (2, 1, 5)
    assert model.embed_local(images).shape == (2, rows, 128)
    pixels = (images - model.mean) / model.std
    want = model.backbone.forward_head(model.backbone.forward_features(pixels), pre_logits=True)
    if name == "resnet10t":  # timm's own pooling
        torch.testing.assert_close(found.mean((1, 2)), want)


def test_every_parameter_learns(make_backbone, make_images):
    """But the class token's own last steps: the map has patches only."""
    model = AlignedReID(make_backbone(SIZE), 5)
    images, ids = make_images(6, SIZE), torch.arange(6) // 2
    assert_all_learn(model, aligned_reid_loss(*model(images), ids, margin=3.0))


def test_heads_see_the_batch_of_all_processes(make, make_images):
    assert_heads_see_all(make, make_images(3, SIZE))
