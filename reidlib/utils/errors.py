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


def plain(error) -> str:
    """Pydantic's ``ValidationError`` in one line: each value, and what was expected."""
    found = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"] if not str(part).startswith("function"))
        if "error" in one.get("ctx", {}) and not name:
            found.append(str(one["ctx"]["error"]))
        else:
            expected = one["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            found.append(f"{name} is {one['input']!r}; {expected}")
    return "; ".join(found)
