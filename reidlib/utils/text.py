"""Numbers, tables and pages as text."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def percent(mean: float | None, std: float = float("nan"), signed: bool = False,
            ends: tuple[float, float] | None = None) -> str:
    """The one place where fractions become percentages: mean ± std [low, high]."""
    if pd.isna(mean):
        return "–"
    sign = "+" * signed
    return (f"{100 * mean:{sign}.1f}" + ("" if pd.isna(std) else f" ± {100 * std:.1f}")
            + (f" [{100 * ends[0]:{sign}.1f}, {100 * ends[1]:{sign}.1f}]" if ends else ""))


def to_markdown(table: pd.DataFrame) -> str:
    """A GitHub table; columns of numbers to the right, of text to the left."""
    cells = table.astype(str)
    marks = ["--:" if _is_numbers(cells[name]) else ":--" for name in cells]
    lines = [cells.columns, marks, *cells.to_numpy()]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def aligned(table: pd.DataFrame) -> str:
    """A table for a terminal; columns of numbers to the right, of text to the left."""
    columns = []
    for name, cells in table.astype(str).items():
        side, width = "><"[not _is_numbers(cells)], max(len(name), *cells.str.len())
        columns.append([f"{cell:{side}{width}}" for cell in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _is_numbers(cells: pd.Series) -> bool:
    return bool(cells.str.fullmatch(r"[-+–±.,<\d \[\]]+").all())


def render(template: Path, filters: Mapping[str, Callable] | None = None, **values: Any) -> str:
    """A page from its Jinja2 template; the filters ``percent`` and ``table`` are those above.

    A name that the template asks for and that was not given is an error. The empty lines of
    left-out parts become one.
    """
    pages = Environment(loader=FileSystemLoader(template.parent), undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"percent": percent, "table": to_markdown, **(filters or {})}
    text = pages.get_template(template.name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", text)).strip() + "\n"
