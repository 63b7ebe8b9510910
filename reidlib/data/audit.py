"""What a checked manifest says about its data set before anything is trained on it."""

import pandas as pd

from reidlib.data.manifest import JUNK_ID, SPLITS

TINY = 32  # pixels of the shorter side


def audit(manifest: pd.DataFrame) -> pd.DataFrame:
    """Look for what makes scores mean less than they seem to.

    Returns one row per check: ``check`` (its name), ``count`` (images or identities concerned),
    ``of`` (out of how many) and ``words`` (one plain sentence). Junk images belong to no identity.
    """
    people = manifest[manifest["id"] != JUNK_ID]
    rows = [*_sizes(manifest, people), _shared_people(people), *_copies(manifest),
            _one_camera(people), _no_match(manifest), _tiny(manifest), _unequal(people)]
    return pd.DataFrame(rows, columns=["check", "count", "of", "words"])


def check_scorable(manifest: pd.DataFrame) -> None:
    """Raise ValueError if no query could be scored across cameras, or all show one person."""
    people = manifest.loc[manifest["split"] == "query", "id"].unique()
    if len(people) < 2:
        raise ValueError(f"all queries show one person ({', '.join(people)}); at least 2 are "
                         "needed for a wrong answer to be possible and for an interval")
    _, without, queries, _ = _no_match(manifest)
    if without == queries:
        cams = ", ".join(sorted(manifest["cam"].unique())[:5])
        raise ValueError(
            f"no query has a match from another camera (cameras found: {cams}), so the protocol "
            "`standard` would score nothing: give the gallery images of the query people from "
            "another camera. reidlib.evaluation.scoring.evaluate with protocols=('all-gallery', "
            "'leak-free', 'lat-top10') does without")


def _row(check: str, count: int, of: int, what: str, fact: str, so: str) -> tuple:
    """``so`` is what follows from the fact; it is said only if the fact is found."""
    verb = "is" if count == 1 else "are"
    consequence = f": {so}" if count else ""
    return check, count, of, f"{count} of {of} {what} {verb} {fact}{consequence}."


def _sizes(manifest: pd.DataFrame, people: pd.DataFrame) -> list[tuple]:
    rows = []
    for split in SPLITS:
        images = int((manifest["split"] == split).sum())
        ids = people.loc[people["split"] == split, "id"].nunique()
        junk = images - int((people["split"] == split).sum())
        rows.append((f"{split} images", images, len(manifest),
                     f"The {split} split has {images} images of {ids} identities"
                     + (f", and {junk} of them show no person (junk)." if junk else ".")))
    return rows


def _shared_people(people: pd.DataFrame) -> tuple:
    train = set(people.loc[people["split"] == "train", "id"])
    test = set(people.loc[people["split"] != "train", "id"])
    return _row("identities in train and test", len(train & test), len(test), "test identities",
                "in the training images, too", "the model knows them from training")


def _copies(manifest: pd.DataFrame) -> list[tuple]:
    """Byte-identical files: query and gallery, train and test, within one split."""
    part = {split: manifest.loc[manifest["split"] == split, "sha256"] for split in SPLITS}
    test = pd.concat([part["query"], part["gallery"]])
    again = int(manifest.duplicated(["split", "sha256"]).sum())
    return [
        _row("query copies in gallery", int(part["query"].isin(part["gallery"]).sum()),
             len(part["query"]), "query images", "byte-identical to a gallery image",
             "right at rank 1 whatever the model, unless the protocol drops the copies"),
        _row("train copies in test", int(part["train"].isin(test).sum()), len(part["train"]),
             "training images", "byte-identical to a query or gallery image",
             "memorised in training"),
        _row("copies within a split", again, len(manifest), "images",
             "byte-identical to an earlier image of the same split", "counted twice"),
    ]


def _one_camera(people: pd.DataFrame) -> tuple:
    cams = people.groupby("id")["cam"].nunique()
    return _row("identities of one camera", int((cams == 1).sum()), len(cams), "identities",
                "seen by one camera only", "of no use for matching across cameras")


def _no_match(manifest: pd.DataFrame) -> tuple:
    query = manifest[manifest["split"] == "query"]
    gallery = manifest.loc[manifest["split"] == "gallery", ["id", "cam"]].drop_duplicates()
    pairs = query.merge(gallery, on="id", suffixes=("", "_gallery"))
    found = pairs.loc[pairs["cam"] != pairs["cam_gallery"], "path"].nunique()
    return _row("queries without a match", len(query) - found, len(query), "query images",
                "without a gallery image of the same person from another camera",
                "not scored by protocols across cameras")


def _tiny(manifest: pd.DataFrame) -> tuple:
    tiny = manifest[["width", "height"]].min(axis=1) < TINY
    return _row("tiny images", int(tiny.sum()), len(manifest), "images",
                f"less than {TINY} pixels wide or high", "hardly showing a person")


def _unequal(people: pd.DataFrame) -> tuple:
    images = people.loc[people["split"] == "train", "id"].value_counts()
    middle = int(images.quantile(0.5, interpolation="lower"))
    count = int((images != middle).sum())
    return ("unequal image counts", count, len(images),
            f"Training identities have {images.min()} to {images.max()} images (median {middle}); "
            f"{count} of {len(images)} have more or fewer than the median.")
