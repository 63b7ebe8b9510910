"""Deep Cosine: its size, its classifier, what learns."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from reidlib.losses import cosine_softmax_loss
from reidlib.models.deep_cosine import DeepCosine
from tests.models.made_up import assert_all_learn, assert_heads_see_all


def test_it_has_the_public_codes_parameters():
    model = DeepCosine(3)
    learns = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert learns.pop("classify") == 3 * 128 and learns.pop("scale") == 1
    assert sum(learns.values()) == 2_800_864


def test_the_map_is_halved_three_times(make_images):
    model, shapes = DeepCosine(3).eval(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model.embed(make_images(1, (128, 64)))
    assert list(dict.fromkeys(shapes)) == [(32, 128, 64), (32, 64, 32), (64, 32, 16), (128, 16, 8),
                                           (16384,), (128,)]


def test_logits_are_scaled_cosines(make_images):
    model, images = DeepCosine(3).eval(), make_images(2, (128, 64))
    model.scale.data.fill_(2.0)
    output, emb = model(images), model.embed(images)
    torch.testing.assert_close(emb.norm(dim=1), torch.ones(2))
    for i in range(3):
        want = torch.log1p(torch.tensor(2.0).exp()) * cosine_similarity(emb, model.classify[:, i])
        torch.testing.assert_close(output.logits[:, 0, i], want, rtol=1e-4, atol=1e-5)
    assert output.scale is model.scale


def test_every_parameter_learns_but_the_norms_scales(make_images):
    model = DeepCosine(3)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and all(torch.equal(p, torch.ones_like(p)) for p in frozen)
    ids = torch.arange(4) // 2
    assert_all_learn(model, cosine_softmax_loss(*model(make_images(4, (128, 64))), ids))


def test_heads_see_the_batch_of_all_processes(make_images):
    assert_heads_see_all(lambda **options: DeepCosine(3, **options), make_images(2, (128, 64)))


def test_another_image_size_is_refused(make_images):
    with pytest.raises(ValueError, match=r"\(64, 32\) pixels, this model takes \(128, 64\)"):
        DeepCosine(3)(make_images(2, (64, 32)))
