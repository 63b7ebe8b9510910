"""What training and retrieval ask of every model: images of one size, normalised inside."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from reidlib.utils.console import log

Gather = Callable[[Tensor], Tensor]


def own_rows(rows: Tensor) -> Tensor:
    """The ``gather`` of a single process."""
    return rows


class ReidModel(nn.Module):
    """Base of the models. Each takes uint8 images of ``image_size`` (height, width).

    ``forward`` gives a NamedTuple: first ``logits`` (batch, parts, identities), then what else the
    model's loss takes before the identities. ``embed`` gives unit-length retrieval features.

    ``cameras`` are the names of those that a model knows; where there are any, ``forward`` and
    ``embed`` take their numbers next to the images. ``trained_on``: the name of the data set of a
    model that was read from a file, where the file says it.

    Args:
        mean, std: per colour, of pixels from 0 to 1.
        gather: this process's rows -> those of all processes; heads and losses see the latter.
    """

    cameras: tuple[str, ...] = ()
    trained_on: str | None = None

    def __init__(self, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float],
                 gather: Gather):
        super().__init__()
        self.image_size = tuple(image_size)
        self.gather = gather
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(value).view(3, 1, 1), persistent=False)

    def normalised(self, images: UInt8[Tensor, "batch 3 height width"]
                   ) -> Float[Tensor, "batch 3 height width"]:
        """The images as the weights expect them; ValueError where they have another size."""
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, this model takes "
                             f"{self.image_size}: resize them or build it with that image_size")
        return (images - self.mean) / self.std

    def camera_numbers(self, cams: Iterable[str]) -> Int[Tensor, "image"] | None:
        """Numbers of cameras by name, -1 for one that training never saw.

        None for a model that takes no cameras.
        """
        if not self.cameras:
            return None
        cams, number = list(cams), {name: i for i, name in enumerate(self.cameras)}
        unknown = sorted(set(cams) - set(number))
        if unknown:
            log(f"training never saw camera {', '.join(unknown)}, only {', '.join(number)}: images "
                "from there get the mean of the learnt vectors")
        return torch.tensor([number.get(name, -1) for name in cams])
