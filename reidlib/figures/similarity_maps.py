"""Which patches make two images similar? The cosine as a sum over the patches of one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from reidlib.data.images import load_picture, read_images
from reidlib.evaluation.ranking import Ranking
from reidlib.figures.ranked_lists import ColourBar, RankedRow, ranked_row
from reidlib.models.la_transformer import LATransformer

# from least to most: blue to yellow, also for the colour-blind; light, so that pictures stay seen
LOW, HIGH = np.array([70, 120, 255]), np.array([255, 210, 0])
NOTE = ("cos: cosine similarity of answer and query; the answer's patches and the rest add up to "
        "it. Colour: what a patch adds. Rest: what is in no patch (the class token's share).")


def contributions(model: LATransformer, images: UInt8[Tensor, "image 3 height width"],
                  emb: Float[np.ndarray, "dim"]
                  ) -> tuple[Float[np.ndarray, "image rows columns"], Float[np.ndarray, "image"]]:
    """What each patch of each image adds to its cosine similarity with the embedding ``emb``.

    Part features are linear in the tokens, so that the similarity, their product with ``emb``
    over their length, is a sum over tokens. Returns the patches' summands by grid row and column,
    and the rest: class token, and for the feature ``neck`` the constants of its layers. Patches
    and rest add up to the similarity.
    """
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        tokens = model.tokens(images.to(device))
    tokens.requires_grad_()
    features = model.features(tokens)
    length = features.detach().norm(dim=2, keepdim=True)
    query = torch.from_numpy(emb).to(device).view_as(features[0])
    similarity = (features / length * query).sum((1, 2)) / model.grid[0] ** 0.5
    gradient, = torch.autograd.grad(similarity.sum(), tokens)
    summands = (gradient * tokens).sum(2).detach()
    patches = summands[:, model.backbone.num_prefix_tokens:]
    rest = similarity.detach() - patches.sum(1)
    return patches.unflatten(1, model.grid).cpu().numpy(), rest.cpu().numpy()


def overlay(picture: UInt8[np.ndarray, "height width 3"],
            patches: Float[np.ndarray, "rows columns"], ends: tuple[float, float]
            ) -> UInt8[np.ndarray, "height width 3"]:
    """The picture's brightness in the colours of its patches' contributions: blue at the lower of
    the two ``ends``, yellow at the higher."""
    height, width = picture.shape[:2]
    grid = ((patches - ends[0]) / (ends[1] - ends[0])).clip(0, 1).astype(np.float32)
    share = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    share = np.asarray(share).clip(0, 1)[..., None]
    grey = picture.mean(2, keepdims=True)
    low, high = np.percentile(grey, [1, 99])
    light = ((grey - low) / max(high - low, 1)).clip(0, 1)
    return ((0.2 + 0.8 * light) * (LOW + share * (HIGH - LOW))).round().astype(np.uint8)


def explained_row(model: LATransformer, ranking: Ranking, query: int, name: str, root: Path,
                  k: int = 5) -> RankedRow:
    """``ranked_row`` of the first ``k`` with each answer under its patches' contributions.

    The 2 % of the row's patches that add most are yellow, those that add least blue; labels say
    the similarity and how much of it is not in the patches, the colour bar what a patch adds.
    """
    answers = ranking.kept(query)[0][:k]
    row = ranked_row(ranking, query, name, lambda paths: [load_picture(root / p) for p in paths], k)
    images = read_images([root / path for path in ranking.gallery.paths[answers]], model.image_size)
    patches, rest = contributions(model, images, ranking.query.emb[query])
    low, high = np.percentile(patches, [2, 98]).tolist()  # corners stand out and hide all else
    labels = [f"cos {own.sum() + other:.2f}\nrest {round(other, 2) + 0:.2f}"
              for own, other in zip(patches, rest, strict=True)]
    pictures = [overlay(picture, own, (low, high))
                for picture, own in zip(row.gallery, patches, strict=True)]
    bar = ColourBar(np.stack([LOW, HIGH]) / 255, (f"a patch adds {low:.3f}", f"{high:.3f}"), NOTE)
    return replace(row, gallery=pictures, labels=labels, bar=bar)
