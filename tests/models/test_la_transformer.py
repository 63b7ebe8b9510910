import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from reidlib.models import files
from reidlib.models.backbone import build_backbone, square_grid
from reidlib.models.la_transformer import LATransformer, PartClassifiers

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
NAME = "vit_tiny_patch16_224"


def slow_parts(model, images):
    """Row and column means and the mixture with the class token, one part at a time."""
    mean, std = (torch.tensor(model.backbone.pretrained_cfg[k]).view(3, 1, 1)
                 for k in ("mean", "std"))
    tokens = model.backbone.forward_features((images / 255 - mean) / std)
    grid = model.grid
    local, mixed = [], []
    for i in range(grid):
        row = torch.stack([tokens[:, 1 + i * grid + j] for j in range(grid)]).mean(0)
        column = torch.stack([tokens[:, 1 + j * grid + i] for j in range(grid)]).mean(0)
        part = (row + column) / 2 if model.y_pooling else row
        local.append(part)
        mixed.append((tokens[:, 0] + model.global_weight * part) / (1 + model.global_weight))
    return torch.stack(local, 1), torch.stack(mixed, 1)


@pytest.mark.parametrize("y_pooling", [False, True])
@pytest.mark.parametrize("global_weight", [0.0, 8.0])
def test_parts_equal_the_loop(make_model, make_images, y_pooling, global_weight):
    model = make_model(y_pooling=y_pooling, global_weight=global_weight).eval()
    images = make_images(3)
    fast = model.parts(model.tokens(images))
    for ours, slow in zip(fast, slow_parts(model, images), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature", ["mixed", "local", "neck"])
def test_embedding_is_the_normalised_parts_side_by_side(make_model, make_images, feature):
    model = make_model(feature=feature).eval()
    norm = model.classifiers.norm
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    local, mixed = model.parts(model.tokens(make_images(2)))
    hidden = torch.stack([mixed[:, i] @ model.classifiers.reduce[i] for i in range(model.grid)], 1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    neck = (hidden.flatten(1) - norm.running_mean) * scale + norm.bias
    parts = {"mixed": mixed, "local": local, "neck": neck.view_as(hidden)}[feature]
    parts = nn.functional.normalize(parts, dim=2)
    want = torch.cat([parts[:, i] for i in range(model.grid)], dim=1)
    want = want / want.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.embed(make_images(2)), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(make_images(2)).embedding, want, rtol=1e-4, atol=1e-5)


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


def test_normalisation_comes_from_the_weights_own_config(make_images):
    backbone = timm.create_model(NAME, num_classes=0, img_size=32, **TINY,
                                 pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)})
    model = LATransformer(backbone, 3).eval()
    assert model.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    local, _ = model.parts(model.tokens(make_images(2)))
    torch.testing.assert_close(local, slow_parts(model, make_images(2))[0], rtol=1e-4, atol=1e-5)


def test_model_without_class_token_or_square_grid_is_refused():
    with pytest.raises(ValueError, match="no class token"):
        square_grid(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0))
    with pytest.raises(ValueError, match="4 x 2 patch grid.*square image size"):
        square_grid(timm.create_model(NAME, num_classes=0, img_size=(32, 16), **TINY))


def test_other_vits_with_registers_and_class_token_work(make_images):
    backbone = build_backbone("vit_small_patch14_reg4_dinov2", 28, pretrained=False,
                              args={"embed_dim": 16, "depth": 1, "num_heads": 2})
    assert LATransformer(backbone, 3).eval().embed(make_images(2, 28)).shape == (2, 2 * 16)


def test_wrong_image_size_names_both(make_model, make_images):
    with pytest.raises(ValueError, match=r"\(48, 48\).*takes \(32, 32\)"):
        make_model()(make_images(1, 48))


def test_unknown_backbone_and_arguments():
    with pytest.raises(ValueError, match="'vit_tiny_patch16_244'.*vit_tiny_patch16_224"):
        build_backbone("vit_tiny_patch16_244")
    with pytest.raises(ValueError, match="cannot build.*no_such"):
        build_backbone(NAME, pretrained=False, args={"no_such": 1})


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


def test_initial_logits_do_not_depend_on_the_number_of_images(make_model, make_images):
    model = make_model().eval()
    both = model(make_images(4)).logits
    one = model(make_images(4)[:1]).logits
    np.testing.assert_allclose(both[:1].detach(), one.detach(), atol=1e-5)


def test_a_saved_model_comes_back(make_images, tmp_path):
    backbone = {"name": "vit_tiny_patch16_224", "image_size": 32,
                "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}
    head = {"n_identities": 5, "y_pooling": True, "global_weight": 2.0, "feature": "local",
            "cosine": True}
    model = LATransformer(backbone.build_backbone(pretrained=False, **backbone), **head)
    model(make_images(4))  # moves batch normalisation's statistics
    files.save(model, tmp_path / "model.safetensors", backbone, head)
    found = files.load(tmp_path / "model.safetensors")
    assert not found.training and (found.y_pooling, found.feature) == (True, "local")
    images = make_images(3)
    assert torch.equal(found.embed(images), model.eval().embed(images))
    assert torch.equal(found(images).logits, model(images).logits)


def test_what_is_no_model_is_refused(make_model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no weights at .*model.safetensors"):
        files.load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="holds no model of reidlib"):
        files.load(path)
    save_file(make_model().state_dict(), path)
    with pytest.raises(ValueError, match="holds no model of reidlib .*`make weights`"):
        files.load(path)
    backbone = {"name": "vit_tiny_patch16_224", "image_size": 32, "args": {"patch_size": 8}}
    files.save(make_model(), path, backbone, {"n_identities": 5})
    with pytest.raises(ValueError, match="does not hold the weights of the model that it descr"):
        files.load(path)
