"""A saved model says how it is built again."""

import json

import pytest
import torch
from safetensors.torch import save_file

from reidlib.models import files
from reidlib.models.backbone import build_backbone
from reidlib.models.la_transformer import LATransformer

BACKBONE = {"name": "vit_tiny_patch16_224", "image_size": 32,
            "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}


@pytest.mark.parametrize("name", ["local_weight", "global_weight"])
def test_a_saved_model_comes_back(make_images, tmp_path, name):
    """Also from a file in which an argument has its former name."""
    head = {"n_identities": 5, "y_pooling": True, "feature": "mixed", "cosine": True}
    model = LATransformer(build_backbone(pretrained=False, **BACKBONE), **head, local_weight=2.0)
    model(make_images(4))  # moves batch normalisation's statistics
    files.save(model, tmp_path / "model.safetensors",
               {"backbone": BACKBONE, "head": {**head, name: 2.0}})
    found = files.load(tmp_path / "model.safetensors")
    assert not found.training and (found.y_pooling, found.local_weight) == (True, 2.0)
    images = make_images(3)
    assert torch.equal(found.embed(images), model.eval().embed(images))
    assert torch.equal(found(images).logits, model(images).logits)


def test_what_is_no_model_is_refused(make_model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no weights at .*model.safetensors"):
        files.load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="does not hold a model of reidlib"):
        files.load(path)
    save_file(make_model().state_dict(), path)
    with pytest.raises(ValueError, match="does not hold a model of reidlib .*`make weights`"):
        files.load(path)
    for built in ("[", "[]", '{"backbone": [], "head": {}}',
                  json.dumps({"backbone": BACKBONE, "head": {"heads": 3}})):
        save_file(make_model().state_dict(), path, {"reidlib": built})
        with pytest.raises(ValueError, match="does not hold a model of reidlib"):
            files.load(path)
    wider = {**BACKBONE, "args": {"patch_size": 8}}
    files.save(make_model(), path, {"backbone": wider, "head": {"n_identities": 5}})
    with pytest.raises(ValueError, match="does not hold the weights of the model that it descr"):
        files.load(path)
