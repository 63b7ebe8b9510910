"""Types of the values that a parameter file gives, which pydantic checks."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _no_switch(value: Any) -> Any:
    """``true`` is not a number, though Python takes it for 1."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


Number = Annotated[float, BeforeValidator(_no_switch)]  # YAML reads 3e-4 as text: that is fine
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Size = Annotated[int, Field(strict=True, ge=1)]
Switch = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what NumPy takes
