"""Messages name the bad values, what was expected and what to do."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidlib.utils.errors import check_choice, plain, refuse


def test_an_unknown_name_comes_with_the_nearest_known_one():
    check_choice("preset", "best", ["best"])
    with pytest.raises(ValueError, match=r"^unknown preset 'bst' \(did you mean 'best'\?\); known: "
                                         "best, ypool$"):
        check_choice("preset", "bst", ["best", "ypool"])
    with pytest.raises(ValueError, match="^unknown preset 'xyz'; known: best, ypool$"):
        check_choice("preset", "xyz", ["best", "ypool"])


def test_five_of_many_bad_values_are_shown():
    refuse(Path("data"), [], "files that are no image", "leave them out")
    with pytest.raises(FileNotFoundError, match=r"^data: files that are no image \(7\): 0, 1, 2, 3,"
                                                " 4 and 2 more; leave them out$"):
        refuse(Path("data"), "0123456", "files that are no image", "leave them out",
               FileNotFoundError)
    with pytest.raises(ValueError, match=r"\(1\): a.png; leave"):
        refuse(Path("data"), ["a.png"], "files that are no image", "leave them out")


@pytest.mark.parametrize("kind, value, expected", [
    (Annotated[int, Field(strict=True)], "3", "a whole number"), (float, "x", "a number"),
    (float, [], "a number"), (Annotated[bool, Field(strict=True)], 1, "true or false"),
    (str, 3, "text"), (dict, 3, "`key: value` lines"), (tuple[int, ...], 3, "a list"),
    (Literal["a", "b"], "c", "'a' or 'b'"),
    (Annotated[float, Field(gt=0.5)], 0, "a number above 0.5"),
    (Annotated[int, Field(ge=2)], 1, "2 or more"), (Annotated[int, Field(le=9)], 10, "9 or less"),
    (Annotated[float, Field(lt=0.5)], 1.0, "a number below 0.5"),
    (Annotated[list, Field(min_length=1)], [], "a list that is not empty"),
    (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "a finite number"),
])
def test_what_pydantic_expected_in_plain_words(kind, value, expected):
    @dataclass
    class Config:
        size: kind

    with pytest.raises(ValidationError) as caught:
        Config(size=value)
    assert plain(caught.value) == f"size is {value!r}; expected {expected}"


def test_each_parameter_is_named_once():
    @dataclass(config=ConfigDict(extra="forbid"))
    class Config:
        size: int = 0
        seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)

    with pytest.raises(ValidationError) as caught:
        Config(size="many", seeds=[-1], sede=3)
    assert plain(caught.value).split("; ", 1)[0] == "size is 'many'"
    assert "seeds[0] is -1; expected 0 or more" in plain(caught.value)
    assert plain(caught.value).count("seeds") == 1 and "'sede'" in plain(caught.value)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, dict]).validate_python({"fast": 3})
    assert plain(caught.value) == "fast is 3; expected `key: value` lines"
