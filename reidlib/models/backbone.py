"""timm backbones: built by name, for any image size, with weights from a folder or timm's hub."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from torch import nn

from reidlib.utils.parameters import height_width
from reidlib.utils.paths import weights_root


def patch_grid(backbone: nn.Module, class_token: bool = True) -> tuple[int, int]:
    """Rows and columns of the backbone's patch grid; ValueError where there is none.

    With ``class_token`` also where it has no such token. Patches side by side must fill the image;
    overlapping ones may leave fewer pixels than their stride at the right and the bottom.
    """
    name, embed = type(backbone).__name__, getattr(backbone, "patch_embed", None)
    if class_token and getattr(backbone, "cls_token", None) is None:
        raise ValueError(f"{name} has no class token; this model needs a ViT that has one, such as "
                         "vit_tiny_patch16_224")
    if getattr(embed, "grid_size", None) is None:
        raise ValueError(f"{name} has no patch grid; this model needs a plain ViT, such as "
                         "vit_tiny_patch16_224")
    grid, patch, size = (tuple(value) for value in
                         (embed.grid_size, embed.patch_size, embed.img_size))
    overlapping = tuple(embed.proj.stride) != patch
    if not overlapping and tuple(np.multiply(grid, patch)) != size:
        raise ValueError(f"image size {size} is not a multiple of {name}'s patch {patch}")
    return grid


def input_of(backbone: nn.Module) -> tuple[tuple[int, int], tuple, tuple]:
    """What the backbone takes: (height, width), and mean and standard deviation of each colour."""
    config = backbone.pretrained_cfg
    size = getattr(getattr(backbone, "patch_embed", None), "img_size", config["input_size"][1:])
    return tuple(size), config["mean"], config["std"]


def build_backbone(name: str, image_size: int | Sequence[int] = 224, pretrained: bool = True,
                   args: Mapping[str, Any] | None = None, stride: int | None = None) -> nn.Module:
    """A timm network without head. Pretrained weights come from ``REIDLIB_WEIGHTS``, else the hub.

    Args:
        image_size: (height, width), or one number for a square. One other than the weights' own
            resamples a ViT's position embedding (bicubic).
        args: further arguments of timm.
        stride: pixels from one patch of a ViT to the next; fewer than its patch has make patches
            overlap (He et al. 2021, arXiv:2102.04378, Sec. 3.1).

    Raises:
        ValueError: unknown name or argument, weights of another model, a size or stride that the
            network cannot take.
        FileNotFoundError: no weights in that folder and none from the hub.
    """
    import timm  # here and below: it takes over a second, and most notebooks build no model

    _check_name(name)
    size = height_width(image_size)
    one_size = timm.get_pretrained_cfg(name.split(".")[0]).fixed_input_size  # as ViTs have
    args = dict(args or {})
    if not pretrained:
        backbone = _create(name, num_classes=0, **args, **({"img_size": size} if one_size else {}))
    else:
        path = find_weights(name)
        backbone = _load_file(name, args, path) if path else _load_hub(name, args)
        backbone.reset_classifier(0)
    if stride is not None:
        _overlap(backbone, name, size, stride)
    elif not one_size:
        backbone.pretrained_cfg["input_size"] = (3, *size)  # a convolution takes any
    elif input_of(backbone)[0] != size:
        _resize(backbone, name, size)
    return backbone


def _check_name(name: str) -> None:
    import timm

    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models()) or ["see timm.list_models()"]
        raise ValueError(f"unknown backbone {name!r}: timm {timm.__version__} does not have it; "
                         f"close: {', '.join(close)}")


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
    """FileNotFoundError, within seconds, where pretrained weights are not here nor on the hub.

    ValueError for a name that timm does not know.
    """
    _check_name(name)
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
    import timm

    try:
        source = timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm knows the model, but not these weights
        source = None
    get = (f"Where there is a network, get model.safetensors of https://huggingface.co/"
           f"{source.hf_hub_id} and put it into that folder as {name}.safetensors, or"
           if source and source.hf_hub_id else "Put the file into that folder, or")
    return FileNotFoundError(
        f"no weights for {name}: looked for {name}*.safetensors in {weights_root()} (set "
        "REIDLIB_WEIGHTS to another folder) and on timm's hub, which said: "
        f"{str(error).splitlines()[0].rstrip('.')}. {get} set pretrained: false")


def _resize(backbone: nn.Module, name: str, size: tuple[int, int]) -> None:
    try:
        backbone.set_input_size(img_size=size)
    except (AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} was made for {input_of(backbone)[0]} pixels and cannot take "
                         f"{size}: {error}") from error


def _overlap(backbone: nn.Module, name: str, size: tuple[int, int], stride: int) -> None:
    """Patches every ``stride`` pixels, and the position embedding resampled to their grid."""
    from timm.layers import resample_abs_pos_embed

    embed, rope = (getattr(backbone, what, None) for what in ("patch_embed", "rope"))
    if rope is not None or getattr(backbone, "pos_embed", None) is None or embed is None:
        raise ValueError(f"{name} cannot have patches with a stride: only plain ViTs, whose "
                         "position embedding is a table, such as vit_tiny_patch16_224")
    if not 1 <= stride <= min(embed.patch_size) <= min(size):
        raise ValueError(f"stride is {stride} with images of {size}; expected 1 to "
                         f"{min(embed.patch_size)}, {name}'s patch, and images as large as it")
    grid = tuple((side - patch) // stride + 1
                 for side, patch in zip(size, embed.patch_size, strict=True))
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    backbone.pos_embed = nn.Parameter(resample_abs_pos_embed(
        backbone.pos_embed.detach(), grid, embed.grid_size, prefix))
    embed.proj.stride = (stride, stride)
    embed.img_size, embed.grid_size, embed.num_patches = size, grid, grid[0] * grid[1]
