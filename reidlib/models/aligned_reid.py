"""Images -> logits, a global feature and horizontal stripes: AlignedReID on any timm backbone.

Zhang et al. 2017 (arXiv:1711.08184), Sec. 3.1; its distance between stripes (Eqs. 1 and 2) is
``reidlib.losses.aligned_distance``. The identity logits and stripes of unit length are those of
AlignedReID++ (Luo et al. 2019). Mutual learning (Sec. 3.2) is left out.
"""

from typing import NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from reidlib.models.backbone import input_of, patch_grid
from reidlib.models.base import Gather, ReidModel, own_rows


class AlignedReIDOutput(NamedTuple):
    """What training needs of one batch, that of all processes where there are several."""

    logits: Float[Tensor, "batch 1 identities"]   # of the global feature
    features: Float[Tensor, "batch dim"]          # global
    local: Float[Tensor, "batch stripes channels"]   # unit length, from top to bottom


class AlignedReID(ReidModel):
    """A global and a local branch on the backbone's map of features.

    The global feature is the mean of the map. A stripe is the mean of one of its rows, then a 1 x 1
    convolution to ``channels``, batch normalisation, ReLU and unit length: 8 stripes for a
    ResNet at 256 x 128, one a row of patches for a ViT.
    """

    def __init__(self, backbone: nn.Module, n_identities: int, *, channels: int = 128,
                 gather: Gather = own_rows):
        super().__init__(*input_of(backbone), gather)
        self.backbone = backbone
        self.stripe = nn.Sequential(nn.Conv1d(backbone.num_features, channels, 1, bias=False),
                                    nn.BatchNorm1d(channels), nn.ReLU())
        self.classify = nn.Linear(backbone.num_features, n_identities)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)

    def map(self, images: UInt8[Tensor, "batch 3 height width"]
            ) -> Float[Tensor, "batch rows columns dim"]:
        """The last feature map: a ViT's patch tokens by row and column, a convolution's output."""
        found = self.backbone.forward_features(self.normalised(images))
        if found.ndim == 3:
            grid = patch_grid(self.backbone, class_token=False)
            return found[:, self.backbone.num_prefix_tokens:].unflatten(1, grid)
        channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"  # as Swin has it
        return found if channels_last else found.movedim(1, 3)

    def stripes(self, rows: Float[Tensor, "batch stripes dim"]
                ) -> Float[Tensor, "batch stripes channels"]:
        """The local features, from the means of the map's rows."""
        return normalize(self.stripe(rows.transpose(1, 2)).transpose(1, 2), dim=2)

    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> AlignedReIDOutput:
        rows = self.gather(self.map(images).mean(2))
        features = rows.mean(1)
        return AlignedReIDOutput(self.classify(features)[:, None], features, self.stripes(rows))

    def embed(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The global feature, unit length: what the paper compares."""
        return normalize(self.map(images).mean((1, 2)), dim=1)

    def embed_local(self, images: UInt8[Tensor, "batch 3 height width"]
                    ) -> Float[Tensor, "batch stripes channels"]:
        """The stripes, for scoring by global and local distance together."""
        return self.stripes(self.map(images).mean(2))
