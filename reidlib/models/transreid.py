"""Images and cameras -> branch logits and one embedding: TransReID on any timm ViT.

He et al. 2021 (arXiv:2102.04378): overlapping patches (Sec. 3.1) are the backbone's, see
``build_backbone``; the jigsaw patch module is Sec. 3.2, side information Sec. 3.3. What the paper
leaves open is as its public code has it.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from reidlib.models.backbone import input_of, patch_grid
from reidlib.models.base import Gather, ReidModel, own_rows


class TransReIDOutput(NamedTuple):
    """The global branch, then the local ones; of all processes where there are several."""

    logits: Float[Tensor, "batch branches identities"]
    features: Float[Tensor, "batch branches dim"]  # before the necks: what triplets compare


def jigsaw(patches: Float[Tensor, "batch patch dim"], groups: int = 4, shift: int = 5
           ) -> Float[Tensor, "batch {groups} size dim"]:
    """The patches in groups that each cover the image (Sec. 3.2: shift, then shuffle).

    The first ``shift - 1`` go to the end (the public code counts the class token, which stays);
    then the two halves take turns, and the order is cut into groups. What remains is dropped:
    210 patches are 4 x 52.
    """
    n = patches.shape[1]
    moved = patches.roll(1 - shift, 1)[:, :n - n % 2]
    shuffled = moved.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    size = shuffled.shape[1] // groups
    return shuffled[:, :groups * size].unflatten(1, (groups, size))


class TransReID(ReidModel):
    """A global branch and ``groups`` local ones, each with its own neck and classifier (BNNeck).

    The last block and norm exist twice: one for the global branch, one shared by the local ones,
    each of which sees the class token and its group of patches. The neck is a batch normalisation
    whose bias stays 0 (Luo et al. 2019, arXiv:1903.07071), the classifier has no bias.

    Args:
        cameras: side information: every token gets ``camera_weight`` (lambda) times a learnt
            vector of its image's camera. Their names; none: without.
        groups: of patches, and so local branches; 0: without, the paper's baseline.
    """

    def __init__(self, backbone: nn.Module, n_identities: int, *,
                 cameras: Sequence[str] = (), camera_weight: float = 3.0, groups: int = 4,
                 shift: int = 5, gather: Gather = own_rows):
        super().__init__(*input_of(backbone), gather)
        patch_grid(backbone)  # refuses what has none
        dim, branches = backbone.num_features, 1 + groups
        self.groups, self.shift, self.camera_weight = groups, shift, camera_weight
        if groups:  # within the backbone: it is pretrained, and learns at that rate
            backbone.local_branch = nn.Sequential(deepcopy(backbone.blocks[-1]),
                                                  deepcopy(backbone.norm))
        self.backbone = backbone
        self.cameras = tuple(cameras)
        if cameras:
            self.camera_vectors = nn.Parameter(torch.empty(len(cameras), dim))
            nn.init.trunc_normal_(self.camera_vectors, std=0.02)
        self.neck = nn.BatchNorm1d(branches * dim)
        self.neck.bias.requires_grad_(False)
        self.classify = nn.Parameter(torch.empty(branches, dim, n_identities))
        nn.init.normal_(self.classify, std=0.001)

    def features(self, images: UInt8[Tensor, "batch 3 height width"],
                 cams: Int[Tensor, "batch"] | None) -> Float[Tensor, "batch branches dim"]:
        """The class token of each branch, the global one first."""
        vit = self.backbone
        tokens = vit._pos_embed(vit.patch_embed(self.normalised(images)))
        if self.cameras:
            tokens = tokens + self.camera_weight * self._side_information(cams)[:, None]
        elif cams is not None:
            raise ValueError("cameras given to a model without side information: build it with "
                             "cameras, or leave them out")
        shared = vit.blocks[:-1](vit.norm_pre(vit.patch_drop(tokens)))
        whole = vit.norm(vit.blocks[-1](shared))[:, :1]
        if not self.groups:
            return whole
        prefix, patches = shared.tensor_split([vit.num_prefix_tokens], 1)
        parts = jigsaw(patches, self.groups, self.shift)
        parts = torch.cat([prefix[:, None].expand(-1, self.groups, -1, -1), parts], 2)
        local = vit.local_branch(parts.flatten(0, 1))[:, 0]
        return torch.cat([whole, local.unflatten(0, (-1, self.groups))], 1)

    def _side_information(self, cams: Int[Tensor, "batch"] | None) -> Float[Tensor, "batch dim"]:
        if cams is None:
            raise ValueError("this model has side information: give the number of each image's "
                             "camera, -1 where training never saw it")
        if cams.min() < -1 or cams.max() >= len(self.cameras):
            raise ValueError(f"camera numbers from {cams.min()} to {cams.max()}; expected 0 to "
                             f"{len(self.cameras) - 1}, or -1 for one that training never saw")
        mean = self.camera_vectors.mean(0, keepdim=True)
        return torch.cat([self.camera_vectors, mean])[cams]  # -1: the last

    def forward(self, images: UInt8[Tensor, "batch 3 height width"],
                cams: Int[Tensor, "batch"] | None = None) -> TransReIDOutput:
        features = self.gather(self.features(images, cams))
        neck = self.neck(features.flatten(1)).view_as(features)
        logits = torch.bmm(neck.transpose(0, 1), self.classify).transpose(0, 1)
        return TransReIDOutput(logits, features)

    def embed(self, images: UInt8[Tensor, "batch 3 height width"],
              cams: Int[Tensor, "batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Unit length, from before the necks: the global branch, and each local one / groups.

        With side information and a camera that training never saw (-1, or no ``cams`` at all) the
        image gets the mean of the learnt vectors.
        """
        if self.cameras and cams is None:
            cams = torch.full((len(images),), -1, device=images.device)
        whole, local = self.features(images, cams).tensor_split([1], 1)
        return normalize(torch.cat([whole, local / max(self.groups, 1)], 1).flatten(1), dim=1)
