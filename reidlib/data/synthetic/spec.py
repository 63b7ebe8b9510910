"""Sizes and difficulty of a drawn data set."""

from dataclasses import dataclass

N_OUTFITS = 8  # as many as person.OUTFITS


@dataclass(frozen=True)
class SyntheticSpec:
    """Sizes and difficulty of the drawn data set; the sizes are PKU-Reid's.

    Of the difficulty knobs, fewer ``outfits`` and less ``contrast`` are harder, else more is.
    """

    train_ids: int = 62
    test_ids: int = 12
    seed: int = 0
    n_query: int = 28  # queries, drawn from the test pictures, people taking turns
    n_query_copies: int = 17  # of these, how many also stay in the gallery, byte for byte
    orientations: int = 8  # pictures per person and camera: a full turn in equal steps
    outfits: int = 4  # (upper, lower) colour pairs that all people share, 1 to N_OUTFITS
    contrast: float = 0.5  # of patterns, 0 to 1: between a garment's first and second colour
    colour_cast: float = 1.0  # difference between the cameras; 0 = none, 1 = as in CAMERAS
    brightness: float = 0.15  # standard deviation of a picture's exposure, relative
    noise: float = 8.0  # standard deviation, grey levels of 255
    blur: float = 0.8  # mean Gaussian radius, pixels
    occlusion: float = 0.25  # probability that something stands in front of the person
    shift: float = 4.0  # standard deviation of the position, pixels, and of the size, percent

    def __post_init__(self):
        people = self.train_ids + self.test_ids
        if min(self.train_ids, self.test_ids, self.orientations) < 1 or people > 999:
            raise ValueError(f"every size must be at least 1, people at most 999: {self}")
        if not (1 <= self.outfits <= N_OUTFITS and 0 <= self.contrast <= 1 and self.seed >= 0):
            raise ValueError(f"outfits (1 to {N_OUTFITS}), contrast or seed is off: {self}")
        if not 0 <= self.n_query_copies <= self.n_query:
            raise ValueError(f"n_query_copies must be 0 to n_query: {self}")
