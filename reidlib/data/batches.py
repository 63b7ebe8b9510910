"""In-memory images -> training batches: identity sampling, each process's share, augmentation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.transforms import v2


class IdentitySampler:
    """Batches of P identities x K images (Hermans et al. 2017), new ones every epoch.

    Each image is used once an epoch: an identity's images are shuffled and cut into groups of K,
    and no identity is twice in a batch. A group that is not full is filled with other images of the
    same identity, repeated if there are too few. The last batches of an epoch may hold fewer
    identities; one with a single identity has no negative and is left out. Each process gets
    complete groups; groups that cannot be shared evenly are left out.
    """

    def __init__(self, ids: Int[np.ndarray, "image"], n_identities: int, n_images: int,
                 seed: int = 0, n_processes: int = 1):
        if len(np.unique(ids)) < 2:
            raise ValueError("triplets need at least 2 identities, found "
                             f"{len(np.unique(ids))} in {len(ids)} images")
        if n_identities % n_processes:
            raise ValueError(f"{n_identities} identities a batch cannot be split evenly over "
                             f"{n_processes} processes: change batch_size or their number")
        self.p, self.k, self.seed = n_identities, n_images, seed
        self.n_processes = n_processes
        self.by_id = [np.flatnonzero(ids == i) for i in np.unique(ids)]

    def batches(self, epoch: int) -> list[Int[np.ndarray, "batch"]]:
        """Image indices of each batch of an epoch; the same for the same (seed, epoch)."""
        rng, batches = np.random.default_rng((self.seed, epoch)), []
        groups = [(i, group) for i, own in enumerate(self.by_id) for group in self._split(own, rng)]
        waiting = [groups[i] for i in rng.permutation(len(groups))]
        while waiting:
            taken, later = {}, []
            for i, group in waiting:
                if i not in taken and len(taken) < self.p:
                    taken[i] = group
                else:
                    later.append((i, group))
            even = len(taken) - len(taken) % self.n_processes
            if even > 1:
                batches.append(np.concatenate(list(taken.values())[:even]))
            waiting = later
        return batches

    def _split(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        missing = -len(own) % self.k
        extra = rng.choice(own, missing, replace=missing > len(own))
        return np.concatenate([rng.permutation(own), extra]).reshape(-1, self.k)


class ShuffleSampler:
    """Plain batches: each image once an epoch, in a new order; one that is not full is left out."""

    def __init__(self, n_images: int, batch_size: int, seed: int = 0):
        self.n_images, self.batch_size, self.seed = n_images, min(batch_size, n_images), seed

    def batches(self, epoch: int) -> list[Int[np.ndarray, "batch"]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n_images)
        return list(order[:self.n_images - self.n_images % self.batch_size]
                    .reshape(-1, self.batch_size))


@dataclass(frozen=True)
class Batches:
    """Training batches on a device: sampled, mirrored with probability 1/2, perhaps erased in part.

    How an image is changed is drawn from (seed, epoch) and its place in the epoch. So an epoch is
    the same whatever ran before it, and in any number of processes.

    Args:
        images: all of them, in memory or memory-mapped; those of a batch go to ``device``.
        cams: numbers of the sampled images' cameras, for a model that takes them.
        pad: pixels of black around an image before a window of its size is cut out at random.
        erasing: share of the images in which a random rectangle is painted over (Zhong et al.
            2020, arXiv:1708.04896).
        fill: colour of that rectangle, R, G, B from 0 to 255.
        rows: where in ``images`` the sampler's images are; None: it samples all of them.
        share: number of rows of a batch -> those that this process works on (default: all).
    """

    images: UInt8[Tensor, "image 3 height width"]
    ids: Int[Tensor, "sampled"]
    sampler: IdentitySampler | ShuffleSampler
    device: torch.device
    erasing: float = 0.0
    fill: tuple[float, float, float] = (127.5, 127.5, 127.5)
    rows: Int[Tensor, "sampled"] | None = None
    cams: Int[Tensor, "sampled"] | None = None
    pad: int = 0
    share: Callable[[int], slice] = slice

    def epoch(self, epoch: int) -> "Epoch":
        return Epoch(self, epoch)


class Epoch:
    """One epoch of ``Batches``: pairs (this process's images, the complete batch's identities).

    With cameras the first is itself a pair, (images, cameras).
    """

    def __init__(self, source: Batches, epoch: int):
        self.source, self.number = source, epoch
        self.chosen = source.sampler.batches(epoch)

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[tuple[Tensor | tuple[Tensor, Tensor], Tensor]]:
        source = self.source
        rng = np.random.default_rng((source.sampler.seed, self.number, 1))
        erase = v2.RandomErasing(source.erasing, value=list(source.fill))
        for chosen in self.chosen:
            mirrored, seeds = rng.random(len(chosen)) < 0.5, rng.integers(2**62, size=len(chosen))
            mine = source.share(len(chosen))
            sampled = torch.from_numpy(chosen)
            rows = sampled if source.rows is None else source.rows[sampled]
            images = source.images[rows[mine]]
            if source.pad:
                corners = rng.integers(2 * source.pad + 1, size=(len(chosen), 2))
                images = _moved(images, source.pad, corners[mine])
            if source.erasing:  # torchvision draws once a call, so image by image
                images = torch.stack([_seeded(erase, image, int(seed))
                                      for image, seed in zip(images, seeds[mine], strict=True)])
            images = self._to_device(images)
            mirror = self._to_device(torch.from_numpy(mirrored[mine]))
            images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
            inputs = images if source.cams is None else (
                images, self._to_device(source.cams[sampled[mine]]))
            yield inputs, self._to_device(source.ids[sampled])

    def _to_device(self, values: Tensor) -> Tensor:
        if self.source.device.type == "cuda":
            return values.pin_memory().to(self.source.device, non_blocking=True)
        return values


def _moved(images: Tensor, pad: int, corners: np.ndarray) -> Tensor:
    """Windows of the images' own size in the padded images, each from its (top, left) corner."""
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    return torch.stack([image[:, top:top + height, left:left + width]
                        for image, (top, left) in zip(padded, corners.tolist(), strict=True)])


def _seeded(transform: v2.Transform, image: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
        torch.default_generator.manual_seed(seed)  # not CUDA's too: dropout draws from that
        return transform(image)


def number_ids(ids: Sequence[str]) -> tuple[Int[Tensor, "image"], list[str]]:
    """Class numbers of identities, in sorted order of their names, and those names."""
    names, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), names.tolist()
