"""Images -> logits and one embedding: Deep Cosine Metric Learning's small residual network.

Wojke and Bewley 2018 (arXiv:1812.00442), their network and their cosine softmax classifier.
Trained from scratch; what the paper leaves open is as its public code has it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from reidlib.models.base import Gather, ReidModel, own_rows

IMAGE_SIZE = (128, 64)
WIDTHS = ((32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128))  # of the residual blocks


class DeepCosineOutput(NamedTuple):
    """What training needs of one batch, that of all processes where there are several."""

    logits: Float[Tensor, "batch 1 identities"]  # cosines times softplus(scale)
    scale: Float[Tensor, ""]                      # k, before softplus


def shift_norm(layer: type[nn.Module], width: int) -> nn.Module:
    """Batch normalisation that learns a shift and no scale.

    Its running statistics take a tenth of each batch, as is usual in torch. The public code's
    thousandth remembers the start for thousands of steps: after 2,500 steps, 25 epochs of
    Market-1501, 8 % of the statistics would be those of no image.
    """
    norm = layer(width, eps=1e-3, momentum=0.1)
    norm.weight.requires_grad_(False)
    return norm


class Residual(nn.Module):
    """Pre-activation block; where it widens, stride 2 and a 1 x 1 projection of the input."""

    def __init__(self, n_in: int, n_out: int, first: bool, dropout: float):
        super().__init__()
        stride = 1 if n_in == n_out else 2
        before = [] if first else [shift_norm(nn.BatchNorm2d, n_in), nn.ELU()]
        self.change = nn.Sequential(
            *before, nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            shift_norm(nn.BatchNorm2d, n_out), nn.ELU(), nn.Dropout(dropout),
            nn.Conv2d(n_out, n_out, 3, padding=1))
        self.project = (nn.Identity() if n_in == n_out else
                        nn.Conv2d(n_in, n_out, 1, stride, bias=False))

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        return self.project(x) + self.change(x)


class DeepCosine(ReidModel):
    """16 layers at 128 x 64 pixels, a 128-dimensional feature of unit length, a cosine classifier.

    Logits are softplus(k) times the cosine of feature and class weight, k learnt from 0.
    In several processes the convolutions' batch normalisation sees each process's own images.
    """

    def __init__(self, n_identities: int, *, dim: int = 128, dropout: float = 0.4,
                 gather: Gather = own_rows):
        super().__init__(IMAGE_SIZE, (0.0,) * 3, (1.0,) * 3, gather)
        stem = [layer for n_in in (3, 32) for layer in (
            nn.Conv2d(n_in, 32, 3, padding=1, bias=False), shift_norm(nn.BatchNorm2d, 32),
            nn.ELU())]
        blocks = [Residual(*widths, first=i == 0, dropout=dropout)
                  for i, widths in enumerate(WIDTHS)]
        self.layers = nn.Sequential(*stem, nn.MaxPool2d(3, 2, padding=1), *blocks, nn.Flatten(),
                                    nn.Dropout(dropout), nn.Linear(16 * 8 * 128, dim, bias=False))
        self.last = nn.Sequential(shift_norm(nn.BatchNorm1d, dim), nn.ELU())
        self.classify = nn.Parameter(torch.empty(dim, n_identities))
        self.scale = nn.Parameter(torch.zeros(()))
        for weight in (w for w in self.parameters() if w.ndim > 1):
            nn.init.trunc_normal_(weight, std=1e-3, a=-2e-3, b=2e-3)

    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> DeepCosineOutput:
        features = self.last(self.gather(self._map(images)))
        cosines = normalize(features, dim=1) @ normalize(self.classify, dim=0)
        return DeepCosineOutput((softplus(self.scale) * cosines)[:, None], self.scale)

    def _map(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden"]:
        # with channels last a CPU trains on a third more images a second
        return self.layers(self.normalised(images).contiguous(memory_format=torch.channels_last))

    def embed(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The unit-length feature."""
        return normalize(self.last(self._map(images)), dim=1)
