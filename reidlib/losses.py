"""Losses of the paper (Sec. 3.1): part cross-entropy, AM-Softmax, batch-hard triplet, their sum."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def part_cross_entropy(logits: Float[Tensor, "batch parts identities"],
                       ids: Int[Tensor, "batch"], smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Sum over parts of the mean cross-entropy (Sharma et al. 2021, Sec. 3.3).

    ``smoothing``: share of the target that is spread evenly over all identities (Szegedy et al.
    2016, arXiv:1512.00567, Sec. 7).
    """
    n_parts = logits.shape[1]
    return n_parts * cross_entropy(logits.flatten(0, 1), ids.repeat_interleave(n_parts),
                                   label_smoothing=smoothing)


def part_am_softmax(cosines: Float[Tensor, "batch parts identities"], ids: Int[Tensor, "batch"],
                    margin: float = 0.35, scale: float = 30.0, smoothing: float = 0.0
                    ) -> Float[Tensor, ""]:
    """Sum over parts of AM-Softmax: scale * (cos - margin) for the true identity, scale * cos else.

    Wang et al. 2018 (arXiv:1801.05599), eq. 6.
    """
    true = torch.zeros_like(cosines).scatter_(2, _columns(ids, cosines), 1.0)
    return part_cross_entropy(scale * (cosines - margin * true), ids, smoothing)


def batch_hard_triplet(emb: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"],
                       margin: float = 0.3) -> Float[Tensor, ""]:
    """Mean over anchors of relu(farthest positive - nearest negative + margin), Euclidean.

    Hermans et al. 2017 (arXiv:1703.07737), eq. 5. An anchor without a positive other than itself
    or without a negative forms no triplet and is left out; with no anchor left the loss is 0.
    """
    same = ids[:, None] == ids[None, :]
    itself = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    positive = same & ~itself
    anchors = positive.any(1) & ~same.all(1)
    # the exact mode: the gradient between coincident points is 0, and equal points are at 0
    dist = torch.cdist(emb, emb, compute_mode="donot_use_mm_for_euclid_dist")
    hardest_positive = dist.masked_fill(~positive, -torch.inf).amax(1)[anchors]
    hardest_negative = dist.masked_fill(same, torch.inf).amin(1)[anchors]
    if not anchors.any():
        return emb.sum() * 0.0  # keeps the graph: backward gives zeros, not an error
    return torch.relu(hardest_positive - hardest_negative + margin).mean()


class ReidLoss:
    """The terms a run trains with: an identity term over the parts, a triplet term if asked for.

    Args:
        am_margin: AM-Softmax margin; None is plain cross-entropy.
        am_scale: AM-Softmax scale.
        triplet_margin: margin of the batch-hard triplet on the embedding; None leaves it out.
        smoothing: label smoothing of the identity term.
    """

    def __init__(self, am_margin: float | None = None, am_scale: float = 30.0,
                 triplet_margin: float | None = None, smoothing: float = 0.0):
        self.am_margin, self.am_scale, self.triplet_margin = am_margin, am_scale, triplet_margin
        self.smoothing = smoothing

    def __call__(self, logits: Float[Tensor, "batch parts identities"],
                 emb: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"]
                 ) -> dict[str, Float[Tensor, ""]]:
        """Named terms; the loss is their sum (the paper adds them unweighted)."""
        if self.am_margin is None:
            terms = {"identity": part_cross_entropy(logits, ids, self.smoothing)}
        else:
            terms = {"identity": part_am_softmax(logits, ids, self.am_margin, self.am_scale,
                                                 self.smoothing)}
        if self.triplet_margin is not None:
            terms["triplet"] = batch_hard_triplet(emb, ids, self.triplet_margin)
        return terms


def _columns(ids: Tensor, logits: Tensor) -> Tensor:
    return ids[:, None, None].expand(-1, logits.shape[1], 1)
