"""Ranked pictures of photos -> one HTML page that needs no other file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reidlib.utils.paths import write_text
from reidlib.utils.text import render

TEMPLATE = Path(__file__).with_name("templates") / "ranked_page.html.j2"
Ranked = Mapping[Path, Sequence[tuple[Path, float]]]  # query -> images and cosines, nearest first


def write_ranked_page(path: Path, ranked: Ranked, left_out: Sequence[str], model: Path,
                      gallery: Path, picture: Callable[[Path], str]) -> Path:
    """Write the page: each query, its ranked pictures with rank, cosine and name; returns its path.

    ``picture`` gives an image as an address for ``<img src>``. ``left_out``: see ``rank_photos``.
    """
    return write_text(path, render(
        TEMPLATE, {"picture": picture, "below": lambda image: below(image, gallery)},
        ranked=ranked, left_out=[*map(printable, left_out)], model=printable(model),
        gallery=printable(gallery), most=max(map(len, ranked.values()))))


def ranked_text(ranked: Ranked, left_out: Sequence[str], gallery: Path) -> str:
    """Each query and its answers with rank and cosine, a line each, and what was left out."""
    lines = []
    for query, answers in ranked.items():
        lines += [printable(query), *(f"{place:4}  {cosine:.3f}  {below(path, gallery)}"
                                      for place, (path, cosine) in enumerate(answers, start=1))]
    return "\n".join([*lines, *(f"left out: {printable(reason)}" for reason in left_out)])


def below(image: Path, folder: Path) -> str:
    """The image's path from the folder, if it is in there, to be shown."""
    return printable(image.relative_to(folder) if folder in image.parents else image)


def printable(text: Path | str) -> str:
    """A question mark for what is in a file's name and is no text."""
    return str(text).encode(errors="replace").decode()
