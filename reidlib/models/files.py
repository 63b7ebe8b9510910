"""Trained models as safetensors files that say how to build the model again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reidlib.models.backbone import build_backbone
from reidlib.models.la_transformer import LATransformer
from reidlib.utils.paths import atomic_write, todays_names


def save(model: LATransformer, path: Path, backbone: Mapping[str, Any],
         head: Mapping[str, Any]) -> None:
    """Write a trained model as safetensors, with what ``load`` needs to build it again.

    ``backbone``: arguments of ``build_backbone`` but ``pretrained``; ``head``: those of
    ``LATransformer`` but the backbone.
    """
    built = json.dumps({"backbone": dict(backbone), "head": dict(head)}, sort_keys=True)
    with atomic_write(path) as partial:
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
        model = LATransformer(build_backbone(pretrained=False, **built["backbone"]),
                              **todays_names(built["head"]))
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a model of reidlib ({error or 'no description'}); "
                         "`make weights` and finished runs write such files") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of the model that it describes: "
                         f"{str(error).splitlines()[-1].strip()}") from error
    return model.eval()

