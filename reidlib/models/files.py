"""Models from descriptions, and trained ones as safetensors files that hold theirs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reidlib.models.aligned_reid import AlignedReID
from reidlib.models.backbone import build_backbone
from reidlib.models.base import Gather, ReidModel, own_rows
from reidlib.models.deep_cosine import DeepCosine
from reidlib.models.la_transformer import LATransformer
from reidlib.models.transreid import TransReID
from reidlib.utils.paths import atomic_write, todays_names

MODELS = {"la-transformer": LATransformer, "transreid": TransReID, "aligned-reid": AlignedReID,
          "deep-cosine": DeepCosine}


def build(description: Mapping[str, Any], pretrained: bool = False,
          gather: Gather = own_rows) -> ReidModel:
    """A model, freshly initialised.

    ``description``: "model", one of ``MODELS`` (default: the first); "backbone", arguments of
    ``build_backbone`` but ``pretrained``, or None for a model that has none of timm's; "head",
    the model's own arguments. "trained_on", the name of a data set, goes with it into files.
    """
    kind = MODELS[description.get("model", "la-transformer")]
    head = todays_names(description["head"])
    if description["backbone"] is None:
        return kind(**head, gather=gather)
    backbone = build_backbone(pretrained=pretrained, **description["backbone"])
    return kind(backbone, **head, gather=gather)


def save(model: ReidModel, path: Path, description: Mapping[str, Any]) -> None:
    """Write a trained model as safetensors, with its ``description`` (see ``build``)."""
    with atomic_write(path) as partial:
        save_file(model.state_dict(), partial,
                  {"reidlib": json.dumps(description, sort_keys=True)})


def load(path: Path | str) -> ReidModel:
    """A model that ``save`` wrote, ready to embed. Needs no other file and no network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or was not written by ``save``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}: " + (
            "it is a folder; name a .safetensors file in it" if Path(path).is_dir() else
            "`make weights` and finished runs write such files"))
    try:
        with safe_open(path, "pt") as file:
            built = json.loads(file.metadata()["reidlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = build(built)
        model.trained_on = built.get("trained_on")
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a model of reidlib ({error or 'no description'}); "
                         "`make weights` and finished runs write such files") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of the model that it describes: "
                         f"{str(error).splitlines()[-1].strip()}") from error
    return model.eval()

