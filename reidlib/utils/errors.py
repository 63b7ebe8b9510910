"""Error messages that name the bad values, what was expected and what to do."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class NotebookError(RuntimeError):
    """A notebook that did not run to its end; the message names it and says what to do."""


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """ValueError where ``value`` is not ``known``; the message has the nearest known one."""
    if value not in known:
        raise ValueError(unknown(what, value, known))


def unknown(what: str, value: str, known: Iterable[str]) -> str:
    """The message for a name that is not known."""
    close = difflib.get_close_matches(str(value), list(known), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {value!r}{hint}; known: {', '.join(known)}"


def refuse(where: Path, bad: Iterable[str], problem: str, advice: str,
           error: type[Exception] = ValueError) -> None:
    """Raise ``error`` if there are ``bad`` values: names the place, the first five, their number.
    """
    bad = [str(value) for value in bad]
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise error(f"{where}: {problem} ({len(bad)}): {shown}; {advice}")


# pydantic's type of error -> what it expected, in the words of a parameter file
EXPECTED = {
    "int_type": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "finite_number": "a finite number", "bool_type": "true or false", "string_type": "text",
    "literal_error": "{expected}", "tuple_type": "a list", "too_short": "a list that is not empty",
    **dict.fromkeys(("mapping_type", "dict_type", "dataclass_type"), "`key: value` lines"),
    "greater_than": "a number above {gt}", "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}", "less_than_equal": "{le} or less",
}


def plain(error) -> str:
    """Pydantic's ``ValidationError`` in one line: each parameter, its value, what was expected."""
    found = {}
    for one in error.errors():
        parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"]]
        name = "".join(parts).removeprefix(".").removesuffix(".[key]")
        if one["type"] == "value_error":  # a check of ours, which names everything itself
            text = str(one["ctx"]["error"])
        elif one["type"] == "unexpected_keyword_argument":
            text = f"unknown parameter {name!r}"
        elif one["type"] == "missing":
            text = f"{name} is missing"
        else:
            expected = EXPECTED.get(one["type"], one["msg"]).format(**one.get("ctx", {}))
            text = f"{name} is {one['input']!r}; expected {expected}"
        found.setdefault(one["loc"][:1], text)  # a list is too short where its one item is bad
    return "; ".join(found.values())
