"""timm backbones: from a folder of weights, resized, or refused with the reason."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from reidlib.models.backbone import build_backbone, square_grid
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


def test_model_without_class_token_or_square_grid_is_refused():
    with pytest.raises(ValueError, match="no class token"):
        square_grid(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0))
    with pytest.raises(ValueError, match="4 x 2 patch grid.*square image size"):
        square_grid(timm.create_model(NAME, num_classes=0, img_size=(32, 16), **TINY))


def test_other_vits_with_registers_and_class_token_work(make_images):
    backbone = build_backbone("vit_small_patch14_reg4_dinov2", 28, pretrained=False,
                              args={"embed_dim": 16, "depth": 1, "num_heads": 2})
    assert LATransformer(backbone, 3).eval().embed(make_images(2, 28)).shape == (2, 2 * 16)
