"""timm backbones: from a folder of weights, resized, or refused with the reason."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from reidlib.models.backbone import build_backbone, input_of, patch_grid
from reidlib.models.la_transformer import LATransformer

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
NAME = "vit_tiny_patch16_224"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with the weights, head included, of a small 32-pixel model."""
    model = timm.create_model(NAME, img_size=32, num_classes=1000, **TINY)
    save_file(model.state_dict(), tmp_path / f"{NAME}.made_up.safetensors")
    monkeypatch.setenv("REIDLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return model


def test_weights_come_from_the_folder(weights):
    args = {**TINY, "img_size": 32}
    loaded = build_backbone(NAME, 32, args=args)
    assert loaded.num_classes == 0
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, weights.state_dict()[name]), name


def test_another_image_size_resamples_the_position_embedding(weights, make_images):
    backbone = build_backbone(NAME, 64, args={**TINY, "img_size": 32})
    assert backbone.pos_embed.shape[1] == 1 + 8 * 8
    assert LATransformer(backbone, 2).eval().embed(make_images(1, 64)).shape == (1, 8 * 16)


def test_weights_of_another_model_are_refused(weights):
    with pytest.raises(ValueError, match="made_up.safetensors does not hold the weights of"):
        build_backbone(NAME, 32, args={**TINY, "img_size": 32, "depth": 3})


def test_damaged_weights_are_refused(weights, tmp_path):
    (tmp_path / f"{NAME}.made_up.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="made_up.safetensors does not hold the weights of"):
        build_backbone(NAME, 32, args={**TINY, "img_size": 32})


def test_no_weights_and_no_network_names_both_places(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    with pytest.raises(FileNotFoundError, match="vit_small_patch16_224.*REIDLIB_WEIGHTS.*hub"):
        build_backbone("vit_small_patch16_224")


def offline(*args, **kwargs):
    raise OSError("no route to host")


def test_unknown_backbone_and_arguments():
    with pytest.raises(ValueError, match="'vit_tiny_patch16_244'.*vit_tiny_patch16_224"):
        build_backbone("vit_tiny_patch16_244")
    with pytest.raises(ValueError, match="cannot build.*no_such"):
        build_backbone(NAME, pretrained=False, args={"no_such": 1})


def test_model_without_class_token_or_whole_patches_is_refused():
    swin = build_backbone("swin_tiny_patch4_window7_224", 224, False, {"depths": (1, 1, 1, 1)})
    with pytest.raises(ValueError, match="no class token"):
        patch_grid(swin)
    with pytest.raises(ValueError, match="ResNet has no patch grid"):
        patch_grid(build_backbone("resnet10t", 32, False), class_token=False)
    with pytest.raises(ValueError, match=r"\(36, 20\) is not a multiple of .* patch \(8, 8\)"):
        patch_grid(build_backbone(NAME, (36, 20), False, TINY))


def test_a_size_is_height_and_width_for_vits_and_convolutions():
    vit, resnet = (build_backbone(name, [32, 16], False, args)
                   for name, args in ((NAME, TINY), ("resnet10t", {})))
    assert input_of(vit)[0] == input_of(resnet)[0] == (32, 16)
    assert patch_grid(vit) == (4, 2)
    assert input_of(build_backbone("resnet10t", pretrained=False))[0] == (224, 224)


@pytest.mark.parametrize("pretrained", [False, True])
def test_overlapping_patches_are_those_that_unfold_cuts(weights, make_images, pretrained):
    """(32, 20) pixels, every 6 of them a patch of 8: 5 x 3, and no pixel of the last column."""
    args = {**TINY, "img_size": 32} if pretrained else TINY
    backbone = build_backbone(NAME, (32, 20), pretrained, args, stride=6).eval()
    assert patch_grid(backbone) == (5, 3) and input_of(backbone)[0] == (32, 20)
    images = make_images(2, (32, 20)).float() / 255
    assert backbone.forward_features(images).shape == (2, 1 + 15, 16)
    proj = backbone.patch_embed.proj
    cut = torch.nn.functional.unfold(images, 8, stride=6).transpose(1, 2)
    want = cut @ proj.weight.flatten(1).T + proj.bias
    torch.testing.assert_close(backbone.patch_embed(images), want, rtol=1e-4, atol=1e-5)


def test_the_position_embedding_is_resampled_once_to_the_overlapping_grid(weights):
    args = {**TINY, "img_size": 32}
    found = build_backbone(NAME, (32, 20), args=args, stride=6).pos_embed
    table = weights.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(table, (5, 3), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, 1:], want.flatten(2).transpose(1, 2))
    assert torch.equal(found[:, :1], weights.pos_embed[:, :1])
    apart, plain = (build_backbone(NAME, (32, 16), args=args, stride=s) for s in (8, None))
    for name, value in plain.state_dict().items():
        assert torch.equal(apart.state_dict()[name], value), name


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_that_leaves_gaps_or_stands_still_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride is {stride}.*expected 1 to 8"):
        build_backbone(NAME, 32, False, TINY, stride)


@pytest.mark.parametrize("name", ["resnet10t", "eva02_tiny_patch14_224"])
def test_only_a_plain_vit_takes_a_stride(name):
    with pytest.raises(ValueError, match=f"{name} cannot have patches with a stride"):
        build_backbone(name, 28, False, {}, 4)


def test_other_vits_with_registers_and_class_token_work(make_images):
    backbone = build_backbone("vit_small_patch14_reg4_dinov2", 28, pretrained=False,
                              args={"embed_dim": 16, "depth": 1, "num_heads": 2})
    assert LATransformer(backbone, 3).eval().embed(make_images(2, 28)).shape == (2, 2 * 16)
