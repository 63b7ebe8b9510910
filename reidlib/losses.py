"""Identity losses over parts, triplet losses over distances, and what each system adds up.

The paper's own (Sec. 3.1) are ``ReidLoss``: part cross-entropy, AM-Softmax, batch-hard triplet.
"""

import inspect
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus


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


def part_angular_softmax(cosines: Float[Tensor, "batch parts identities"],
                         norms: Float[Tensor, "batch parts scaled"], ids: Int[Tensor, "batch"],
                         margin: int = 2, share: float = 1.0, smoothing: float = 0.0
                         ) -> Float[Tensor, ""]:
    """Sum over parts of angular margins: norm * psi(angle) for the true identity, norm * cos else.

    A-Softmax (Liu et al. 2017, arXiv:1704.08063) where ``norms`` are those of the features,
    (batch, parts, 1); L-Softmax (Liu et al. 2016, arXiv:1612.02295, eq. 4) where they are times
    those of the class weights, (batch, parts, identities).

    Args:
        margin: the m of psi, see ``angular_margin``.
        share: of psi in the true identity's logit, the rest is the cosine: 1 / (1 + lambda) of the
            papers' annealing. See ``margin_share``.
    """
    cosines = cosines.to(torch.promote_types(cosines.dtype, torch.float32))  # bf16 is too coarse
    columns = _columns(ids, cosines)
    true = cosines.gather(2, columns)
    target = true + share * (angular_margin(true, margin) - true)
    return part_cross_entropy(norms * cosines.scatter(2, columns, target), ids, smoothing)


def angular_margin(cosines: Float[Tensor, "*n"], margin: int) -> Float[Tensor, "*n"]:
    """psi = (-1)^k cos(m angle) - 2 k for angles in [k pi / m, (k + 1) pi / m]; m is ``margin``.

    cos(m angle) is the Chebyshev polynomial T_m of the cosine, and k the number of the m - 1 inner
    borders that the angle has passed: no arc cosine, whose gradient is infinite at 1 and -1.
    """
    borders = [math.cos(i * math.pi / margin) for i in range(1, margin)]
    k = sum((cosines <= border).to(cosines.dtype) for border in borders)
    before, multiple = torch.ones_like(cosines), cosines
    for _ in borders:
        before, multiple = multiple, 2 * cosines * multiple - before
    return (1 - 2 * (k % 2)) * multiple - 2 * k


def margin_share(done: float, full_at: float = 0.5, most: float = 1 / 6) -> float:
    """The ``share`` of an angular margin: 0 at the start, ``most`` from ``full_at`` on.

    ``done`` and ``full_at`` are shares of the training; the papers count iterations of long ones.
    A sixth is lambda = 5, where the public code of A-Softmax stops (Liu et al. 2017, from memory).
    """
    return most * min(1.0, done / full_at)


def batch_hard_triplet(emb: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"],
                       margin: float = 0.3) -> Float[Tensor, ""]:
    """Mean over anchors of relu(farthest positive - nearest negative + margin), Euclidean.

    Hermans et al. 2017 (arXiv:1703.07737), eq. 5. An anchor without a positive other than itself
    or without a negative forms no triplet and is left out; with no anchor left the loss is 0.
    """
    positive, negative = _hardest(emb, ids)
    return _mean(torch.relu(positive - negative + margin), emb)


def soft_margin_triplet(emb: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"]
                        ) -> Float[Tensor, ""]:
    """Mean over anchors of ln(1 + exp(farthest positive - nearest negative)), Euclidean.

    Hermans et al. 2017, Sec. 2; which anchors count is as in ``batch_hard_triplet``.
    """
    positive, negative = _hardest(emb, ids)
    return _mean(softplus(positive - negative), emb)


def aligned_distance(a: Float[Tensor, "n stripes dim"], b: Float[Tensor, "m stripes dim"],
                     exact: bool = True) -> Float[Tensor, "n m"]:
    """Length of the shortest path through the stripes' distances, for each pair of images.

    Zhang et al. 2017 (arXiv:1711.08184), eqs. 1 and 2: d_ij = tanh(|a_i - b_j| / 2); the path goes
    from the first stripes to the last ones, a stripe down on one side at a time. To score without
    gradients, ``exact=False`` takes distances from a matrix product: several times faster, and
    off by up to 1e-3 where stripes coincide.
    """
    n, stripes, _ = a.shape
    measure = _distances if exact else torch.cdist
    dist = measure(a.flatten(0, 1), b.flatten(0, 1)).view(n, stripes, len(b), stripes)
    cells = (dist / 2).tanh().permute(1, 3, 0, 2).contiguous()
    nowhere = torch.full_like(cells[0, 0], torch.inf)
    above = [torch.zeros_like(nowhere)] + [nowhere] * (stripes - 1)
    for row in cells:
        left = nowhere
        for j, cell in enumerate(row):
            left = above[j] = cell + torch.minimum(above[j], left)
    return above[-1]


def aligned_triplets(features: Float[Tensor, "batch dim"],
                     local: Float[Tensor, "batch stripes channels"], ids: Int[Tensor, "batch"],
                     margin: float = 0.3) -> Float[Tensor, ""]:
    """Batch-hard triplet loss of the local distance, its pairs chosen by the global features.

    Zhang et al. 2017, Sec. 3.1: the global distance finds the hard pairs, which is cheap.
    """
    positive, same, anchors = _pairs(ids)
    with torch.no_grad():
        dist = _distances(features, features)
        farthest = dist.masked_fill(~positive, -torch.inf).argmax(1)
        nearest = dist.masked_fill(same, torch.inf).argmin(1)
    dist = aligned_distance(local, local)
    chosen = [dist.gather(1, pair[:, None])[anchors, 0] for pair in (farthest, nearest)]
    return _mean(torch.relu(chosen[0] - chosen[1] + margin), local)


class ReidLoss:
    """The terms a run trains with: an identity term over the parts, a triplet term if asked for.

    Args:
        am_margin: AM-Softmax margin; None is plain cross-entropy.
        am_scale: AM-Softmax scale.
        triplet_margin: margin of the batch-hard triplet on the embedding; None leaves it out.
        smoothing: label smoothing of the identity term.
        part_mean: the identity term is the mean over parts, so that it and the triplet term, of
            raw features, are about as large (He et al. 2021 weigh theirs 1 : 1); else their sum.
    """

    def __init__(self, am_margin: float | None = None, am_scale: float = 30.0,
                 triplet_margin: float | None = None, smoothing: float = 0.0,
                 part_mean: bool = False):
        self.am_margin, self.am_scale, self.triplet_margin = am_margin, am_scale, triplet_margin
        self.smoothing, self.part_mean = smoothing, part_mean

    def __call__(self, logits: Float[Tensor, "batch parts identities"],
                 emb: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"]
                 ) -> dict[str, Float[Tensor, ""]]:
        """Named terms; the loss is their sum (the paper adds them unweighted)."""
        identity = (part_cross_entropy(logits, ids, self.smoothing) if self.am_margin is None else
                    part_am_softmax(logits, ids, self.am_margin, self.am_scale, self.smoothing))
        return self._terms(identity, logits.shape[1], emb, ids)

    def _terms(self, identity: Tensor, n_parts: int, emb: Tensor, ids: Tensor
               ) -> dict[str, Tensor]:
        terms = {"identity": identity / n_parts if self.part_mean else identity}
        if self.triplet_margin is not None:
            terms["triplet"] = batch_hard_triplet(emb, ids, self.triplet_margin)
        return terms


class AngularLoss(ReidLoss):
    """The same with L-Softmax or A-Softmax as the identity term; its margin grows in training.

    Args:
        margin: the m of psi, see ``part_angular_softmax``.
        triplet_margin, smoothing, part_mean: as of ``ReidLoss``.
    """

    def __init__(self, margin: int = 2, triplet_margin: float | None = None,
                 smoothing: float = 0.0, part_mean: bool = False):
        super().__init__(triplet_margin=triplet_margin, smoothing=smoothing, part_mean=part_mean)
        self.margin = margin
        self.share = 0.0

    def anneal(self, done: float) -> None:
        """Set the margin's share to that of a point in training: to be called before each step.

        ``done``: share of the training that is done, see ``margin_share``.
        """
        self.share = margin_share(done)

    def __call__(self, cosines: Float[Tensor, "batch parts identities"],
                 emb: Float[Tensor, "batch dim"], norms: Float[Tensor, "batch parts scaled"],
                 ids: Int[Tensor, "batch"]) -> dict[str, Float[Tensor, ""]]:
        """Named terms; the loss is their sum."""
        identity = part_angular_softmax(cosines, norms, ids, self.margin, self.share,
                                        self.smoothing)
        return self._terms(identity, cosines.shape[1], emb, ids)


class AddedTerm:
    """A loss and, as the term ``name``, ``weight`` times another function of the same arguments.

    Raises ValueError where the function has weights of its own, which no optimiser knows, takes
    other arguments, or gives no scalar that can be differentiated.
    """

    def __init__(self, loss: Callable[..., dict[str, Tensor]], function: Callable[..., Tensor],
                 name: str, weight: float):
        if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
            raise ValueError(f"loss {name} has weights of its own, which are not trained; expected "
                             "a function without")
        self.loss, self.function, self.name, self.weight = loss, function, name, weight

    def __call__(self, *given: Tensor) -> dict[str, Float[Tensor, ""]]:
        """Named terms; the loss is their sum."""
        try:
            inspect.signature(self.function).bind(*given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"loss {self.name}: {error}; it is given what the model gives, and "
                             f"the identities: {len(given)} tensors") from error
        value = self.function(*given)
        expected = "expected a tensor of one floating-point number, without dimensions"
        if not isinstance(value, Tensor):
            raise ValueError(f"loss {self.name} gives {type(value).__name__}; {expected}")
        if value.shape or not value.is_floating_point():
            raise ValueError(f"loss {self.name} gives a tensor of shape {tuple(value.shape)} and "
                             f"type {value.dtype}; {expected}")
        if not value.requires_grad:
            raise ValueError(f"loss {self.name} has no gradient; expected a value computed from "
                             "what it is given with torch alone, without detach, item or no_grad")
        return {**self.loss(*given), self.name: self.weight * value}


def transreid_loss(logits: Float[Tensor, "batch branches identities"],
                   features: Float[Tensor, "batch branches dim"], ids: Int[Tensor, "batch"]
                   ) -> dict[str, Float[Tensor, ""]]:
    """TransReID's terms (He et al. 2021, Sec. 3.2), to be added, weighed as its public code does.

    Cross-entropy and soft-margin triplet, each half that of the global branch (the first) and half
    the mean of the local ones.
    """
    n = logits.shape[1]
    weights = [1.0] if n == 1 else [0.5] + [0.5 / (n - 1)] * (n - 1)
    return {"identity": sum(weight * part_cross_entropy(logits[:, [i]], ids)
                            for i, weight in enumerate(weights)),
            "triplet": sum(weight * soft_margin_triplet(features[:, i], ids)
                           for i, weight in enumerate(weights))}


def aligned_reid_loss(logits: Float[Tensor, "batch 1 identities"],
                      features: Float[Tensor, "batch dim"],
                      local: Float[Tensor, "batch stripes channels"], ids: Int[Tensor, "batch"],
                      margin: float = 0.3) -> dict[str, Float[Tensor, ""]]:
    """AlignedReID++'s terms, to be added: identities, global and local triplet."""
    return {"identity": part_cross_entropy(logits, ids),
            "triplet": batch_hard_triplet(features, ids, margin),
            "local": aligned_triplets(features, local, ids, margin)}


def cosine_softmax_loss(logits: Float[Tensor, "batch 1 identities"], scale: Float[Tensor, ""],
                        ids: Int[Tensor, "batch"]) -> dict[str, Float[Tensor, ""]]:
    """Deep Cosine's terms, to be added: cross-entropy, and 0.05 k^2 that holds the scale back."""
    return {"identity": part_cross_entropy(logits, ids), "scale": 0.05 * scale ** 2}


def _columns(ids: Tensor, logits: Tensor) -> Tensor:
    return ids[:, None, None].expand(-1, logits.shape[1], 1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # the exact mode: the gradient between coincident points is 0, and equal points are at 0
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _pairs(ids: Int[Tensor, "batch"]) -> tuple[Bool[Tensor, "batch batch"],
                                               Bool[Tensor, "batch batch"], Bool[Tensor, "batch"]]:
    """Which pairs are positive, which of one identity at all, and who has both kinds of partner."""
    same = ids[:, None] == ids[None, :]
    positive = same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    return positive, same, positive.any(1) & ~same.all(1)


def _hardest(emb: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of each anchor to its farthest positive and its nearest negative."""
    positive, same, anchors = _pairs(ids)
    dist = _distances(emb, emb)
    return (dist.masked_fill(~positive, -torch.inf).amax(1)[anchors],
            dist.masked_fill(same, torch.inf).amin(1)[anchors])


def _mean(values: Tensor, source: Tensor) -> Tensor:
    """Their mean, or a 0 that keeps the graph: backward then gives zeros, not an error."""
    return values.mean() if len(values) else source.sum() * 0.0
