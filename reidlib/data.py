"""A checked manifest -> in-memory images -> batches: decoding, identity sampling, augmentation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from reidlib.progress import bar


def load_images(root: Path, paths: Sequence[str], size: int) -> UInt8[Tensor, "image 3 size size"]:
    """Decode images as RGB and resize them once, bicubic, to ``size`` x ``size`` pixels.

    All images stay in memory: 150 kB each at 224 pixels.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)
    for i, path in enumerate(bar(paths, len(paths), "decoding images", "image")):
        picture = Image.fromarray(load_picture(Path(root) / path))
        images[i] = picture.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def load_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """One image as it is stored, RGB."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


class IdentitySampler:
    """Batches of P identities x K images (Hermans et al. 2017), new ones every epoch.

    Every image comes up once an epoch: an identity's images are shuffled and dealt in groups of K,
    no identity twice in a batch. An identity whose images do not fill its last group (or which has
    fewer than K) fills it with others of its own images, repeated where it must. The last batches
    of an epoch hold fewer identities where they do not come out even; one that would hold a single
    identity has no negative and is left out.
    """

    def __init__(self, ids: Int[np.ndarray, "image"], n_identities: int, n_images: int,
                 seed: int = 0):
        if len(np.unique(ids)) < 2:
            raise ValueError("triplets need at least 2 identities, found "
                             f"{len(np.unique(ids))} in {len(ids)} images")
        self.p, self.k, self.seed = n_identities, n_images, seed
        self.by_id = [np.flatnonzero(ids == i) for i in np.unique(ids)]

    def batches(self, epoch: int) -> Iterator[Int[np.ndarray, "batch"]]:
        """Image indices of each batch of an epoch; the same for the same (seed, epoch)."""
        rng = np.random.default_rng((self.seed, epoch))
        groups = [(i, group) for i, own in enumerate(self.by_id) for group in self._deal(own, rng)]
        waiting = [groups[i] for i in rng.permutation(len(groups))]
        while waiting:
            taken, later = {}, []
            for i, group in waiting:
                if i not in taken and len(taken) < self.p:
                    taken[i] = group
                else:
                    later.append((i, group))
            if len(taken) > 1:
                yield np.concatenate(list(taken.values()))
            waiting = later

    def _deal(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        missing = -len(own) % self.k
        extra = rng.choice(own, missing, replace=missing > len(own))
        return np.concatenate([rng.permutation(own), extra]).reshape(-1, self.k)


class ShuffleSampler:
    """Plain batches: every image once an epoch, in a new order; an odd last batch is left out."""

    def __init__(self, n_images: int, batch_size: int, seed: int = 0):
        self.n_images, self.batch_size, self.seed = n_images, min(batch_size, n_images), seed

    def batches(self, epoch: int) -> Iterator[Int[np.ndarray, "batch"]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n_images)
        for start in range(0, self.n_images - self.batch_size + 1, self.batch_size):
            yield order[start:start + self.batch_size]


class Batches:
    """Training batches on a device: sampled, each image mirrored with probability 1/2.

    Seeded from (seed, epoch), so that an epoch is the same whichever epochs ran before it.
    """

    def __init__(self, images: UInt8[Tensor, "image 3 height width"], ids: Int[Tensor, "image"],
                 sampler: IdentitySampler | ShuffleSampler, device: torch.device):
        self.images, self.ids, self.sampler, self.device = images, ids, sampler, device

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((self.sampler.seed, epoch, 1))
        for chosen in self.sampler.batches(epoch):
            index = torch.from_numpy(chosen)
            images, ids = self.images[index].to(self.device), self.ids[index].to(self.device)
            mirror = torch.from_numpy(rng.random(len(chosen)) < 0.5).to(self.device)
            yield torch.where(mirror[:, None, None, None], images.flip(-1), images), ids


def number_ids(ids: Sequence[str]) -> tuple[Int[Tensor, "image"], list[str]]:
    """Class numbers of identities, in sorted order of their names, and those names."""
    names, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), names.tolist()

