"""Draws a small re-ID data set in PKU-Reid's layout: people, two cameras, orientations."""

import json
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

from reidlib.data.synthetic.person import make_appearance
from reidlib.data.synthetic.scene import CAMERAS, draw_person
from reidlib.data.synthetic.spec import SyntheticSpec
from reidlib.utils.console import log
from reidlib.utils.paths import resolved, write_text

DRAWN_BY = "reidlib.synthetic"  # written into every drawn folder: never change it
DRAWING = 1  # raise it when the pictures change, so that folders drawn before are drawn again
SUMS = "SHA256SUMS"  # next to spec.json: what was drawn
Key = tuple[int, int, int]  # person, camera, orientation


def list_keys(first: int, last: int, spec: SyntheticSpec) -> list[Key]:
    """All pictures of the people ``first`` to ``last``."""
    return [(person, camera, orientation) for person in range(first, last + 1)
            for camera in CAMERAS for orientation in range(1, spec.orientations + 1)]


def choose_queries(spec: SyntheticSpec) -> tuple[list[Key], set[Key]]:
    """The queries, and those of them that are absent from the gallery.

    Every person keeps a gallery picture of either camera: each query has a cross-camera match.
    """
    rng = np.random.default_rng((spec.seed, 0))
    keys = list_keys(spec.train_ids + 1, spec.train_ids + spec.test_ids, spec)
    turns = rng.permuted(np.arange(len(keys)).reshape(spec.test_ids, -1), axis=1).T
    queries = [keys[i] for i in turns.flat][:spec.n_query]
    left, absent = Counter(key[:2] for key in keys), set()
    for i in rng.permutation(len(queries)).tolist():
        if len(absent) < spec.n_query - spec.n_query_copies and left[queries[i][:2]] > 1:
            absent.add(queries[i])
            left[queries[i][:2]] -= 1
    if len(queries) < spec.n_query or len(absent) < spec.n_query - spec.n_query_copies:
        raise ValueError(f"{len(keys)} test pictures are too few for {spec.n_query} queries, "
                         f"{spec.n_query_copies} of them copies")
    return queries, absent


def draw_all(root: Path, spec: SyntheticSpec) -> None:
    """Draw every picture once; a query that stays in the gallery is a copy of the file."""
    queries, absent = choose_queries(spec)
    for key in list_keys(1, spec.train_ids + spec.test_ids, spec):
        person, camera, orientation = key
        folders = ["val/gallery"] * (key not in absent) + ["val/query"] * (key in queries)
        paths = [root / folder / f"{person:03d}" / f"{camera:02d}_{orientation}.png"
                 for folder in (folders if person > spec.train_ids else ["train"])]
        rng = np.random.default_rng((spec.seed, *key))
        picture = draw_person(make_appearance(person, spec), camera, orientation, rng, spec)
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(paths[0], compress_level=1)
        for path in paths[1:]:
            shutil.copyfile(paths[0], path)


def checksums(root: Path) -> list[str]:
    """A line ``<SHA-256>  <path>`` for each picture below ``root``, as sha256sum writes it."""
    return [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}"
            for path in sorted(root.rglob("*.png"))]


def is_ours(root: Path) -> bool:
    """Whether the folder holds what `write_dataset` wrote, and nothing else."""
    try:
        record = json.loads((root / "spec.json").read_text(encoding="utf-8"))
        names = {path.name for path in root.iterdir()}
    except (OSError, ValueError):
        return False
    return (isinstance(record, dict) and record.get("drawn_by") == DRAWN_BY
            and names <= {"train", "val", "spec.json", SUMS})


def write_dataset(root: Path, spec: SyntheticSpec) -> Path:
    """Draw the data set into ``root``, completely or not at all; returns the resolved folder.

    A folder that holds the pictures of this spec is left as it is. One of another spec, or whose
    pictures have changed, is replaced. Raises ValueError if ``root`` holds anything else.
    """
    root = resolved(root)
    text = json.dumps({"drawn_by": DRAWN_BY, "drawing": DRAWING, **asdict(spec)}, indent=2) + "\n"
    if root.exists() and not is_ours(root):
        raise ValueError(f"{root} exists and is not a complete drawn data set; if nothing in it is "
                         "yours, delete it and it is drawn again")
    if root.exists() and (root / "spec.json").read_text(encoding="utf-8") == text:
        drawn = (root / SUMS).read_text(encoding="utf-8") if (root / SUMS).is_file() else ""
        changed = sorted({line[66:] for line in {*drawn.splitlines()} ^ {*checksums(root)}})
        if not changed:
            return root
        log(f"{root}: pictures that are not as drawn, or without a checksum ({len(changed)}): "
            f"{', '.join(changed[:5])}; all are drawn again")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as temporary:
        new = Path(temporary, "new")
        draw_all(new, spec)
        write_text(new / "spec.json", text)
        write_text(new / SUMS, "\n".join(checksums(new)) + "\n")
        if root.exists():
            root.rename(Path(temporary, "old"))
        new.rename(root)
    return root
