"""timm backbones: built by name, with weights from a folder or from timm's hub."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from torch import nn

from reidlib.utils.paths import weights_root


def square_grid(backbone: nn.Module) -> int:
    """Side of the backbone's patch grid; ValueError where LA-Transformer cannot use it."""
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
    import timm  # here and below: it takes over a second, and most notebooks build no model

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
        raise _no_weights(name, error) from error


def check_weights(name: str) -> None:
    """FileNotFoundError, within seconds, where pretrained weights are not here nor on the hub."""
    if find_weights(name):
        return
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        source = timm.get_pretrained_cfg(name)
        if not source or not source.hf_hub_id:
            raise OSError("no such weights")
        if not try_to_load_from_cache(source.hf_hub_id, "model.safetensors"):
            urlopen(Request(f"{constants.ENDPOINT}/{source.hf_hub_id}", method="HEAD"), timeout=5)
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, error) from error


def _no_weights(name: str, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"no weights for {name}: looked for {name}*.safetensors in {weights_root()} (set "
        "REIDLIB_WEIGHTS to another folder) and on timm's hub, which said: "
        f"{str(error).splitlines()[0].rstrip('.')}. Download them where there is a network "
        "and put the file into that folder, or set pretrained: false")


def _resize(backbone: nn.Module, name: str, image_size: int) -> None:
    try:
        backbone.set_input_size(img_size=image_size)
    except (AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} was made for {backbone.patch_embed.img_size} pixels and cannot "
                         f"take {image_size}: {error}") from error

