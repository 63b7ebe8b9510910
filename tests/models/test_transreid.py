"""TransReID against its definition, one branch, one group and one camera at a time."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from reidlib.losses import transreid_loss
from reidlib.models.backbone import build_backbone
from reidlib.models.transreid import TransReID, jigsaw
from tests.models.made_up import assert_all_learn, assert_heads_see_all

SIZE, STRIDE = (32, 20), 6  # 5 x 3 patches: groups of 3, and 3 are left over


@pytest.fixture
def make(make_backbone):
    def make(**options):
        return TransReID(make_backbone(SIZE, STRIDE), 5, **options)

    return make


def test_without_cameras_and_jigsaw_it_is_the_backbones_class_token(make_backbone, make_images):
    model = TransReID(make_backbone(), 5, groups=0).eval()
    images = make_images(3)
    want = model.backbone.forward_features((images / 255 - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(model(images).features[:, 0], want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(images), normalize(want, dim=1), rtol=1e-4, atol=1e-5)
    assert model(images).logits.shape == (3, 1, 5)


def test_the_jigsaw_of_210_patches_is_its_definition():
    """4 patches to the end; two rows, transposed; 4 groups of 52, 2 dropped."""
    moved = np.concatenate([np.arange(4, 210), np.arange(4)])
    shuffled = moved.reshape(2, -1).T.flatten()
    assert shuffled[:4].tolist() == [4, 109, 5, 110]
    want = shuffled[:208].reshape(4, 52)
    found = jigsaw(torch.arange(210.0).repeat(2, 1)[..., None])
    assert found.shape == (2, 4, 52, 1)
    for image in found[..., 0].numpy():
        np.testing.assert_array_equal(image, want)


@pytest.mark.parametrize("n", [15, 16, 17])
def test_no_patch_is_in_two_groups(n):
    found = jigsaw(torch.arange(float(n))[None, :, None]).flatten().tolist()
    assert len(set(found)) == len(found) == n // 4 * 4


def slow_features(model, images, vectors):
    """Branch by branch and group by group, with ``vectors`` as side information."""
    vit = model.backbone
    patches = vit.patch_embed((images / 255 - 0.5) / 0.5)
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), patches], 1) + vit.pos_embed
    tokens = vit.blocks[0](tokens + 3.0 * vectors[:, None])
    found = [vit.norm(vit.blocks[1](tokens))[:, 0]]
    block, norm = vit.local_branch
    for group in jigsaw(tokens[:, 1:]).unbind(1):
        found.append(norm(block(torch.cat([tokens[:, :1], group], 1)))[:, 0])
    return torch.stack(found, 1)


def test_branches_equal_the_loop(make, make_images):
    model, images, cams = make(cameras="ab").eval(), make_images(3, SIZE), torch.tensor([1, 0, 1])
    for parameter in model.backbone.local_branch.parameters():
        nn.init.normal_(parameter, std=0.1)  # no longer the global branch's
    want = slow_features(model, images, model.camera_vectors[cams])
    torch.testing.assert_close(model(images, cams).features, want, rtol=1e-4, atol=1e-5)
    whole = torch.cat([want[:, 0], *(want[:, i] / 4 for i in range(1, 5))], 1)
    want = whole / whole.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.embed(images, cams), want, rtol=1e-4, atol=1e-5)


def test_the_local_branch_starts_as_the_last_block(make):
    backbone = make().backbone
    for copy, own in zip(backbone.local_branch, (backbone.blocks[-1], backbone.norm), strict=True):
        for name, value in own.state_dict().items():
            assert torch.equal(copy.state_dict()[name], value), name


def test_a_camera_never_seen_gets_the_mean_vector(make, make_images):
    model, images = make(cameras="abc").eval(), make_images(2, SIZE)
    nn.init.normal_(model.camera_vectors)
    mean = model.camera_vectors.mean(0).expand(2, -1)
    found = model.embed(images, torch.tensor([-1, 2]))
    torch.testing.assert_close(model.embed(images)[0], found[0])
    assert not torch.allclose(model.embed(images)[1], found[1], atol=1e-3)
    features = slow_features(model, images, mean)
    features[:, 1:] /= 4
    torch.testing.assert_close(model.embed(images), normalize(features.flatten(1), dim=1),
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cams", [[3, 0], [-2, 0]])
def test_a_camera_number_out_of_range_is_refused(make, make_images, cams):
    with pytest.raises(ValueError, match="camera numbers from .*expected 0 to 2, or -1"):
        make(cameras="abc")(make_images(2, SIZE), torch.tensor(cams))


def test_cameras_are_asked_for_where_they_count_and_refused_where_not(make, make_images):
    with pytest.raises(ValueError, match="give the number of each image's camera"):
        make(cameras="abc")(make_images(2, SIZE))
    with pytest.raises(ValueError, match="without side information"):
        make()(make_images(2, SIZE), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="no class token"):
        TransReID(build_backbone("resnet10t", 32, False), 5)


def test_necks_and_classifiers_equal_separate_ones(make, make_images):
    """In training mode, each branch through torch's own BatchNorm -> Linear."""
    model = make()
    nn.init.normal_(model.neck.weight)
    nn.init.normal_(model.classify)
    output = model(make_images(4, SIZE))
    for i in range(5):
        norm, classify = nn.BatchNorm1d(16), nn.Linear(16, 5, bias=False)
        norm.weight.data = model.neck.weight.data[16 * i:16 * i + 16]
        classify.weight.data = model.classify.data[i].T
        want = classify(norm(output.features[:, i]))
        torch.testing.assert_close(output.logits[:, i], want, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_but_the_necks_bias(make, make_images):
    model, ids, cams = make(cameras="ab"), torch.arange(4) // 2, torch.tensor([0, 1, 0, 1])
    assert not model.neck.bias.requires_grad and not model.neck.bias.any()
    assert_all_learn(model, transreid_loss(*model(make_images(4, SIZE), cams), ids))


def test_heads_see_the_batch_of_all_processes(make, make_images):
    backbone = make().backbone
    assert_heads_see_all(lambda **options: TransReID(deepcopy(backbone), 5, **options),
                         make_images(3, SIZE))


def test_its_size_with_600_identities():
    backbone = build_backbone("vit_tiny_patch16_224", (256, 128), False, stride=12)
    model = TransReID(backbone, 600)
    assert model.image_size == (256, 128) and backbone.patch_embed.num_patches == 210
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 6.6
