"""Numbers and tables as text."""

import pandas as pd


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
    numbers = r"[-+–±.,\d \[\]]+"
    marks = ["--:" if cells[name].str.fullmatch(numbers).all() else ":--" for name in cells]
    lines = [cells.columns, marks, *cells.to_numpy()]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)

