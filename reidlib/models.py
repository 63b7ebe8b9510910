"""Images -> part logits and one embedding: LA-Transformer on any square-grid timm ViT.

Sharma, Kapil, Chapman 2021 (arXiv:2106.03720); y-pooling is Eq. 2 of the reproduced paper.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from reidlib.paths import weights_root, whole_file
from reidlib.processes import gather_rows


class ReidOutput(NamedTuple):
    """What training needs of one batch, that of all processes where there are several."""

    logits: Float[Tensor, "batch parts identities"]  # cosines where the classifiers are cosine
    embedding: Float[Tensor, "batch dim"]             # unit length; what retrieval compares


class PartClassifiers(nn.Module):
    """One classifier per part, all as two batched products.

    Each is Linear(dim, hidden) -> BatchNorm -> Dropout -> Linear(hidden, identities); with
    ``cosine`` the last layer gives the cosine between feature and class weight (AM-Softmax).
    """

    def __init__(self, n_parts: int, dim: int, n_identities: int, cosine: bool,
                 hidden: int = 256, dropout: float = 0.5):
        super().__init__()
        self.cosine = cosine
        self.reduce = nn.Parameter(torch.empty(n_parts, dim, hidden))
        self.norm = nn.BatchNorm1d(n_parts * hidden)  # its shift is the first layer's bias
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Parameter(torch.empty(n_parts, hidden, n_identities))
        self.bias = None if cosine else nn.Parameter(torch.zeros(n_parts, 1, n_identities))
        nn.init.normal_(self.reduce, std=(2 / dim) ** 0.5)
        nn.init.normal_(self.classify, std=0.001)  # small: cosine directions then turn fast

    def neck(self, features: Float[Tensor, "batch parts dim"]
             ) -> Float[Tensor, "batch parts hidden"]:
        """What the last layers classify: each part after Linear and BatchNorm."""
        hidden = torch.bmm(features.transpose(0, 1), self.reduce).transpose(0, 1)
        return self.norm(hidden.flatten(1)).view_as(hidden)

    def forward(self, neck: Float[Tensor, "batch parts hidden"]
                ) -> Float[Tensor, "batch parts identities"]:
        hidden = self.dropout(neck.flatten(1)).view_as(neck).transpose(0, 1)
        if self.cosine:
            logits = torch.bmm(normalize(hidden, dim=2), normalize(self.classify, dim=1))
        else:
            logits = torch.baddbmm(self.bias, hidden, self.classify)
        return logits.transpose(0, 1)


class LATransformer(nn.Module):
    """Locally aware transformer: the patch grid pooled into parts, each with its own classifier.

    Part i is the mean L_i of grid row i; with ``y_pooling`` (L_i + C_i) / 2 with C_i the mean of
    grid column i (Eq. 2). The classifiers see (G + lambda L_i) / (1 + lambda), G the class token
    and lambda ``global_weight``, as the public code computes it. The embedding concatenates the
    L2-normalised parts: these same mixtures (``feature="mixed"``), the plain local means
    (``"local"``, as the public test code does, so that lambda acts in training alone), or what the
    classifiers make of the mixtures (``"neck"``: behind their batch normalisation, as Luo et al.
    2019, arXiv:1903.07071, compare features).

    Takes uint8 images of the backbone's own size and normalises them as its weights expect.
    """

    def __init__(self, backbone: nn.Module, n_identities: int, *, y_pooling: bool = False,
                 global_weight: float = 8.0, feature: str = "mixed", cosine: bool = False):
        super().__init__()
        self.grid = square_grid(backbone)
        self.backbone = backbone
        self.y_pooling = y_pooling
        self.global_weight = global_weight
        self.feature = feature
        self.image_size = tuple(backbone.patch_embed.img_size)
        self.classifiers = PartClassifiers(self.grid, backbone.num_features, n_identities, cosine)
        for name in ("mean", "std"):
            value = torch.tensor(backbone.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, 255 * value, persistent=False)

    def tokens(self, images: UInt8[Tensor, "batch 3 height width"]
               ) -> Float[Tensor, "batch token dim"]:
        """The backbone's last tokens: class token, others it may have, then the patches by row."""
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, this model takes "
                             f"{self.image_size}: resize them or build it with that image_size")
        return self.backbone.forward_features((images - self.mean) / self.std)

    def parts(self, tokens: Float[Tensor, "batch token dim"]
              ) -> tuple[Float[Tensor, "batch parts dim"], Float[Tensor, "batch parts dim"]]:
        """The local and the mixed part features of a batch."""
        patches = tokens[:, self.backbone.num_prefix_tokens:].unflatten(1, (self.grid, self.grid))
        local = patches.mean(2)
        if self.y_pooling:
            local = (local + patches.mean(1)) / 2
        mixed = (tokens[:, :1] + self.global_weight * local) / (1 + self.global_weight)
        return local, mixed

    def features(self, tokens: Float[Tensor, "batch token dim"]
                 ) -> Float[Tensor, "batch parts width"]:
        """What retrieval compares part by part, before it is brought to unit length."""
        local, mixed = self.parts(tokens)
        if self.feature == "neck":
            return self.classifiers.neck(mixed)
        return mixed if self.feature == "mixed" else local

    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> ReidOutput:
        parts = self.parts(self.tokens(images))
        local, mixed = gather_rows(torch.stack(parts, 1)).unbind(1)
        neck = self.classifiers.neck(mixed)
        features = {"local": local, "mixed": mixed, "neck": neck}[self.feature]
        return ReidOutput(self.classifiers(neck), self._embedding(features))

    def embed(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Unit-length retrieval features, ``parts`` times the width of a part."""
        return self._embedding(self.features(self.tokens(images)))

    def _embedding(self, features: Tensor) -> Tensor:
        return normalize(features, dim=2).flatten(1) / self.grid ** 0.5


def square_grid(backbone: nn.Module) -> int:
    """Side of the backbone's patch grid; ValueError where LA-Transformer cannot stand on it."""
    name = type(backbone).__name__
    if getattr(backbone, "cls_token", None) is None:
        raise ValueError(f"{name} has no class token; LA-Transformer needs a ViT that has one, "
                         "such as vit_tiny_patch16_224")
    grid, size = (getattr(getattr(backbone, "patch_embed", None), what, None)
                  for what in ("grid_size", "img_size"))
    if grid is None:
        raise ValueError(f"{name} has no patch grid; LA-Transformer needs a plain ViT")
    rows, columns = grid
    patch = backbone.patch_embed.patch_size
    if (rows * patch[0], columns * patch[1]) != tuple(size):
        raise ValueError(f"image size {tuple(size)} is not a multiple of {name}'s patch {patch}")
    if rows != columns:
        raise ValueError(f"{name} has a {rows} x {columns} patch grid; row and column parts need "
                         "a square one: use a square image size")
    return rows


def build_backbone(name: str, image_size: int = 224, pretrained: bool = True,
                   args: Mapping[str, Any] | None = None) -> nn.Module:
    """A timm ViT without head. Pretrained weights come from ``REIDLIB_WEIGHTS``, else timm's hub.

    An ``image_size`` other than the weights' own resamples their position embedding (bicubic).

    Raises:
        ValueError: unknown name or argument, weights of another model, size not a multiple of
            the patch.
        FileNotFoundError: no weights in that folder and none from the hub.
    """
    import timm  # here and below, for it takes over a second and most notebooks build no model

    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models()) or ["see timm.list_models()"]
        raise ValueError(f"unknown backbone {name!r}: timm {timm.__version__} does not have it; "
                         f"close: {', '.join(close)}")
    args = dict(args or {})
    if not pretrained:
        return _create(name, num_classes=0, img_size=image_size, **args)
    path = find_weights(name)
    backbone = _load_file(name, args, path) if path else _load_hub(name, args)
    square_grid(backbone)
    backbone.reset_classifier(0)
    if backbone.patch_embed.img_size != (image_size, image_size):
        _resize(backbone, name, image_size)
    return backbone


def save(model: LATransformer, path: Path, backbone: Mapping[str, Any],
         head: Mapping[str, Any]) -> None:
    """Write a trained model as safetensors, with what ``load`` needs to build it again.

    ``backbone``: arguments of ``build_backbone`` but ``pretrained``; ``head``: those of
    ``LATransformer`` but the backbone.
    """
    built = json.dumps({"backbone": dict(backbone), "head": dict(head)}, sort_keys=True)
    with whole_file(path) as partial:
        save_file(model.state_dict(), partial, {"reidlib": built})


def load(path: Path | str) -> LATransformer:
    """A model that ``save`` wrote, ready to embed. Needs no other file and no network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or was not written by ``save``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, "pt") as file:
            built = json.loads(file.metadata()["reidlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no model of reidlib ({error or 'no description'}); "
                         "`make weights` and finished runs write such files") from error
    model = LATransformer(build_backbone(pretrained=False, **built["backbone"]), **built["head"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of the model that it describes: "
                         f"{str(error).splitlines()[-1].strip()}") from error
    return model.eval()


def find_weights(name: str) -> Path | None:
    """``<name>[.*].safetensors`` in ``REIDLIB_WEIGHTS``; None without one, an error with two."""
    files = [*weights_root().glob(f"{name}.safetensors"),
             *weights_root().glob(f"{name}.*.safetensors")]
    if len(files) > 1:
        raise ValueError(f"{weights_root()} holds several weights for {name}: "
                         f"{', '.join(sorted(f.name for f in files))}; name one in full as the "
                         "backbone, or leave one there")
    return files[0] if files else None


def _create(name: str, **kwargs) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, **kwargs)
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"timm cannot build {name} with {kwargs}: {error}") from error


def _load_file(name: str, args: dict, path: Path) -> nn.Module:
    from timm.models import load_checkpoint

    backbone = _create(name, **args)
    try:
        load_checkpoint(backbone, str(path), strict=True)
    except Exception as error:  # safetensors, key and shape errors share no base class
        raise ValueError(f"{path} does not hold the weights of {name}: "
                         f"{str(error).splitlines()[0]}") from error
    return backbone


def _load_hub(name: str, args: dict) -> nn.Module:
    try:
        return _create(name, pretrained=True, **args)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"no weights for {name}: looked for {name}*.safetensors in {weights_root()} (set "
            "REIDLIB_WEIGHTS to another folder) and on timm's hub, which said: "
            f"{str(error).splitlines()[0].rstrip('.')}. Download them where there is a network "
            "and put the file into that folder, or set pretrained: false") from error


def _resize(backbone: nn.Module, name: str, image_size: int) -> None:
    try:
        backbone.set_input_size(img_size=image_size)
    except (AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} was made for {backbone.patch_embed.img_size} pixels and cannot "
                         f"take {image_size}: {error}") from error
