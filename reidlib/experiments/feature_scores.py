"""Features of any model -> per-query scores under every protocol, by both distances."""

from functools import partial
from pathlib import Path

import pandas as pd

from reidlib.data.manifest import JUNK_ID
from reidlib.evaluation.features import Features, labels, read_features
from reidlib.evaluation.match_ranks import cosine, euclidean
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.evaluation.scoring import by_sides, query_tables, summarise_queries
from reidlib.experiments.records import Scored
from reidlib.utils.console import progress_bar
from reidlib.utils.errors import refuse

RERANKED = "re-ranked cosine"
NO_CONTENT = "it needs the array or column sha256, of each image's file, to find copies"


def score_file(path: Path, flip: str = "none", reranked: bool = True,
               against: Path | None = None) -> tuple[Scored, Scored | None]:
    """Score a file of features and, if there is one, the file that it is compared with.

    Both have the same images. ``flip``: see ``embeddings.flipped``; ``reranked``: the cosine once
    more after re-ranking, where not every image is a query.

    Raises:
        FileNotFoundError, ValueError: see ``read_features``; the two files have other images; a
            flip without mirrors; a feature of zeros; no protocol can be scored.
    """
    files = [path] if against is None else [path, against]
    found = [read_features(file) for file in files]
    for file, features in zip(files, found, strict=True):
        _check_flip(file, features, flip)
    if against is not None:
        _check_same(path, against, *map(labels, found))
    scored = [_score(file, features, flip, reranked)
              for file, features in zip(files, found, strict=True)]
    return scored[0], scored[1] if against is not None else None


def _check_flip(path: Path, features: Features, flip: str) -> None:
    if flip != "none" and not features.has_mirrored:
        raise ValueError(f"{path} has no features of mirrored images for the flip {flip!r}: add "
                         "the array mirrored, or leave out --flip")


def _check_same(path: Path, against: Path, mine: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """ValueError that names the images which only one of the two has, or has with other labels."""
    if mine.columns.tolist() != theirs.columns.tolist():
        bare = path if "sha256" in theirs else against
        raise ValueError(f"{bare} has no sha256, the file it is compared with has: give both or "
                         "none, so that the same copies are left out")
    both = mine.merge(theirs, how="outer", indicator=True)
    alone = both[both["_merge"] != "both"]
    where = alone["_merge"].astype(str).map({"left_only": "only here", "right_only": "only there"})
    refuse(path, alone["split"] + " " + alone["path"] + " of identity " + alone["id"] + ", camera "
           + alone["cam"] + " (" + where + ")",
           f"cannot be compared with {against}: images that are not in both, or not with the same "
           "labels", "compare features of the same queries and gallery")


def _score(path: Path, features: Features, flip: str, reranked: bool) -> Scored:
    """Every protocol by every distance; ValueError where none can be scored."""
    query, gallery = features.query, features.gallery
    try:
        units = query.unit_length(), gallery.unit_length()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    protocols = [name for name, rules in PROTOCOLS.items()
                 if features.has_sha256 or not rules.drop_copies]
    left_out = {name: NO_CONTENT for name in PROTOCOLS if name not in protocols}
    work = [("cosine", units, partial(cosine, flip=flip), protocols),
            (RERANKED, units, partial(cosine, flip=flip, reranked=True),
             [name for name in protocols if PROTOCOLS[name].reranks]),
            ("Euclidean", (query, gallery), partial(euclidean, flip=flip), protocols)]
    work = [one for one in work if reranked or one[0] != RERANKED]
    tables = []
    for row, sides, measure, chosen in progress_bar(work, len(work), f"scoring {path.name}",
                                                    "distance", least=0):
        for *pair, shared in by_sides(*sides, chosen):
            for protocol, table in query_tables(*pair, measure(*pair), shared):
                reason = _unscored(table, protocol)
                if reason:
                    left_out[protocol] = reason
                else:
                    tables.append(table.assign(row=row, protocol=protocol))
    if not tables:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"{path}: no protocol can be scored. {reasons}")
    return Scored(pd.concat(tables, ignore_index=True), left_out, _images(features))


def _unscored(per_query: pd.DataFrame, protocol: str) -> str:
    """Why there is no score with an interval; "" if there is one."""
    people = per_query.dropna(subset="AP")["id"].unique()
    if len(people) == 1:
        return f"all scored queries show identity {people[0]}; an interval needs at least 2"
    try:
        summarise_queries(per_query, protocol)
    except ValueError as error:
        return str(error)
    return ""


def _images(features: Features) -> dict[str, int]:
    query, gallery = features.query, features.gallery
    return {"queries": len(query.ids), "people": len(set(query.ids)), "gallery": len(gallery.ids),
            "junk": int((gallery.ids == JUNK_ID).sum()), "training": features.n_train,
            "width": query.emb.shape[1], "sha256": features.has_sha256}
