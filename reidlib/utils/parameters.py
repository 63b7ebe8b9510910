"""Types of the values that a parameter file gives, which pydantic checks."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _no_switch(value: Any) -> Any:
    """``true`` is not a number, though Python takes it for 1."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _image_size(value: Any) -> int | tuple[int, int]:
    """One number for a square, else (height, width)."""
    sides = value if isinstance(value, list | tuple) else [value] * 2
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 2048 for side in sides):
        raise ValueError(f"image_size is {value!r}; expected pixels from 1 to 2048: one number for "
                         "a square, or [height, width]")
    return sides[0] if sides[0] == sides[1] else tuple(sides)


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """An image size as a pair; one number is a square."""
    return (size, size) if isinstance(size, int) else tuple(size)


ImageSize = Annotated[Any, BeforeValidator(_image_size)]
Number = Annotated[float, BeforeValidator(_no_switch)]  # YAML reads 3e-4 as text: that is fine
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Size = Annotated[int, Field(strict=True, ge=1)]
Switch = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what NumPy takes
