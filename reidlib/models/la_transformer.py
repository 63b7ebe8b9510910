"""Images -> part logits and one embedding: LA-Transformer on the patch grid of any timm ViT.

Sharma, Kapil, Chapman 2021 (arXiv:2106.03720); y-pooling is Eq. 2 of the reproduced paper.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from reidlib.models.backbone import input_of, patch_grid
from reidlib.models.base import Gather, ReidModel, own_rows
from reidlib.utils.errors import check_choice


class ReidOutput(NamedTuple):
    """What training needs of one batch, that of all processes where there are several."""

    logits: Float[Tensor, "batch parts identities"]  # cosines where the classifiers are cosine
    embedding: Float[Tensor, "batch dim"]             # what retrieval compares, unless it is raw


class AngularOutput(NamedTuple):
    """The same for a loss with an angular margin, which scales the cosines by their norms."""

    logits: Float[Tensor, "batch parts identities"]  # cosines
    embedding: Float[Tensor, "batch dim"]
    norms: Float[Tensor, "batch parts scaled"]        # see ``PartClassifiers.with_norms``


class PartClassifiers(nn.Module):
    """One classifier per part, all as two batched products.

    Each is Linear(dim, hidden) -> BatchNorm -> Dropout -> Linear(hidden, identities); with
    ``cosine`` the last layer gives the cosine between feature and class weight (AM-Softmax).
    ``angular``, which needs ``cosine``: "a-softmax" or "l-softmax", see ``with_norms``.
    """

    def __init__(self, n_parts: int, dim: int, n_identities: int, cosine: bool,
                 hidden: int = 256, dropout: float = 0.5, angular: str | None = None):
        super().__init__()
        self.cosine = cosine
        self.angular = angular
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
        return self._logits(self._dropped(neck))

    def with_norms(self, neck: Float[Tensor, "batch parts hidden"]
                   ) -> tuple[Float[Tensor, "batch parts identities"],
                              Float[Tensor, "batch parts scaled"]]:
        """Cosines, and what an angular margin multiplies them by: the norms of the features.

        (batch, parts, 1); for L-Softmax times those of the class weights, (batch, parts,
        identities). Batch normalisation makes a feature about sqrt(hidden) long, so no scale is
        needed on top.
        """
        hidden = self._dropped(neck)
        norms = hidden.norm(dim=2, keepdim=True)
        if self.angular == "l-softmax":
            norms = norms * self.classify.norm(dim=1)
        return self._logits(hidden), norms

    def _dropped(self, neck: Tensor) -> Tensor:
        return self.dropout(neck.flatten(1)).view_as(neck)

    def _logits(self, hidden: Tensor) -> Tensor:
        hidden = hidden.transpose(0, 1)
        if self.cosine:
            logits = torch.bmm(normalize(hidden, dim=2), normalize(self.classify, dim=1))
        else:
            logits = torch.baddbmm(self.bias, hidden, self.classify)
        return logits.transpose(0, 1)


class LATransformer(ReidModel):
    """Locally aware transformer: the patch grid pooled into parts, each with its own classifier.

    Part i is the mean L_i of grid row i; with ``y_pooling`` (L_i + C_i) / 2 with C_i the mean of
    grid column i (Eq. 2). On a grid that is not square, C_i is bin i of the columns, pooled to as
    many bins as there are rows. The classifiers see (G + lambda L_i) / (1 + lambda), G the class
    token and lambda ``local_weight``, as the public code computes it. The embedding concatenates
    the L2-normalised parts: these same mixtures (``feature="mixed"``), the plain local means
    (``"local"``, as the public test code does, so that lambda acts in training alone), or what the
    classifiers make of the mixtures (``"neck"``: after their batch normalisation, as Luo et al.
    2019, arXiv:1903.07071, compare features).

    ``dropout``: of what the classifiers see. Before a cosine it turns the feature: one half leaves
    an angle whose cosine is 0.71 on average. ``raw``: losses that compare images get the embedding
    before its parts have unit length; retrieval does not.
    """

    def __init__(self, backbone: nn.Module, n_identities: int, *, y_pooling: bool = False,
                 local_weight: float = 8.0, feature: str = "mixed", cosine: bool = False,
                 angular: str | None = None, dropout: float = 0.5, raw: bool = False,
                 gather: Gather = own_rows):
        super().__init__(*input_of(backbone), gather)
        check_choice("feature", feature, ("mixed", "local", "neck"))
        if angular is not None:
            check_choice("angular margin", angular, ("a-softmax", "l-softmax"))
        self.grid = patch_grid(backbone)
        self.backbone = backbone
        self.y_pooling = y_pooling
        self.local_weight = local_weight
        self.feature = feature
        self.raw = raw
        self.classifiers = PartClassifiers(self.grid[0], backbone.num_features, n_identities,
                                           cosine or angular is not None, dropout=dropout,
                                           angular=angular)

    def tokens(self, images: UInt8[Tensor, "batch 3 height width"]
               ) -> Float[Tensor, "batch token dim"]:
        """The backbone's last tokens: class token, others it may have, then the patches by row."""
        return self.backbone.forward_features(self.normalised(images))

    def parts(self, tokens: Float[Tensor, "batch token dim"]
              ) -> tuple[Float[Tensor, "batch parts dim"], Float[Tensor, "batch parts dim"]]:
        """The local and the mixed part features of a batch."""
        patches = tokens[:, self.backbone.num_prefix_tokens:].unflatten(1, self.grid)
        local = patches.mean(2)
        if self.y_pooling:
            local = (local + pool_to(patches.mean(1), self.grid[0])) / 2
        mixed = (tokens[:, :1] + self.local_weight * local) / (1 + self.local_weight)
        return local, mixed

    def features(self, tokens: Float[Tensor, "batch token dim"]
                 ) -> Float[Tensor, "batch parts width"]:
        """What retrieval compares part by part, before it is brought to unit length."""
        local, mixed = self.parts(tokens)
        if self.feature == "neck":
            return self.classifiers.neck(mixed)
        return mixed if self.feature == "mixed" else local

    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> ReidOutput | AngularOutput:
        parts = self.parts(self.tokens(images))
        local, mixed = self.gather(torch.stack(parts, 1)).unbind(1)
        neck = self.classifiers.neck(mixed)
        features = {"local": local, "mixed": mixed, "neck": neck}[self.feature]
        if self.classifiers.angular is not None:
            cosines, norms = self.classifiers.with_norms(neck)
            return AngularOutput(cosines, self._compared(features), norms)
        return ReidOutput(self.classifiers(neck), self._compared(features))

    def embed(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Unit-length retrieval features, ``parts`` times the width of a part."""
        return self._embedding(self.features(self.tokens(images)))

    def _compared(self, features: Tensor) -> Tensor:
        """What losses that compare images get; raw, it is about as long as one part."""
        return (features.flatten(1) / self.grid[0] ** 0.5 if self.raw else
                self._embedding(features))

    def _embedding(self, features: Tensor) -> Tensor:
        return normalize(features, dim=2).flatten(1) / self.grid[0] ** 0.5


def pool_to(columns: Float[Tensor, "batch columns dim"], n: int) -> Float[Tensor, "batch {n} dim"]:
    """Adaptive average pooling to ``n`` columns; torch's own has no deterministic CUDA gradient."""
    width = columns.shape[1]
    bins = [slice(i * width // n, -(-(i + 1) * width // n)) for i in range(n)]
    return columns if width == n else torch.stack([columns[:, own].mean(1) for own in bins], 1)
