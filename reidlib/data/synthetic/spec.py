"""Sizes and difficulty of a drawn data set."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from reidlib.utils.errors import check_choice, plain
from reidlib.utils.parameters import STRICT, Count, NotNegative, Seed, Share, Size

N_OUTFITS = 8  # as many as person.OUTFITS


@dataclass(frozen=True, config=STRICT)
class SyntheticSpec:
    """Sizes and difficulty of the drawn data set; the sizes are PKU-Reid's.

    Fewer ``outfits`` and less ``contrast`` make it harder; so does more of the values below them.
    """

    train_ids: Size = 62
    test_ids: Size = 12
    seed: Seed = 0
    n_query: Size = 28  # queries, drawn from the test pictures, people taking turns
    n_query_copies: Count = 17  # of these, how many also stay in the gallery, byte for byte
    orientations: Size = 8  # pictures per person and camera: a full turn in equal steps
    outfits: Annotated[Size, Field(le=N_OUTFITS)] = 4  # (upper, lower) colour pairs, shared by all
    contrast: Share = 0.5  # of patterns: between a garment's first and second colour
    colour_cast: NotNegative = 1.0  # difference between the cameras; 0 = none, 1 = as in CAMERAS
    brightness: NotNegative = 0.15  # standard deviation of a picture's exposure, relative
    noise: NotNegative = 8.0  # standard deviation, grey levels of 255
    blur: NotNegative = 0.8  # mean Gaussian radius, pixels
    occlusion: Share = 0.25  # probability that something stands in front of the person
    shift: NotNegative = 4.0  # standard deviation of the position, pixels, and of the size, percent

    @model_validator(mode="after")
    def _fits_together(self) -> "SyntheticSpec":
        if self.train_ids + self.test_ids > 999:
            raise ValueError(f"train_ids is {self.train_ids} and test_ids {self.test_ids}; "
                             "expected 999 people at most")
        if self.n_query_copies > self.n_query:
            raise ValueError(f"n_query_copies is {self.n_query_copies}; expected n_query, "
                             f"{self.n_query}, at most")
        return self


def make_spec(values: Mapping[str, Any]) -> SyntheticSpec:
    """The default drawings, changed by ``values``; ValueError for an unknown key or a bad value."""
    for key in values:
        check_choice("parameter of the drawings", key, [f.name for f in fields(SyntheticSpec)])
    try:
        return SyntheticSpec(**values)
    except ValidationError as error:
        raise ValueError(plain(error)) from error
