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
    train, query, gallery = (manifest[manifest["split"] == split] for split in SPLITS)
    tested = people.loc[people["split"] != "train", "id"].drop_duplicates()
    test_images = pd.concat([query, gallery])["sha256"]
    cams = people.groupby("id")["cam"].nunique()
    rows = [
        *(_size(manifest, split) for split in SPLITS),
        _row("identities in train and test", tested.isin(train["id"]), "test identities",
             "in the training images, too", "the model knows them from training"),
        _row("query copies in gallery", query["sha256"].isin(gallery["sha256"]), "query images",
             "byte-identical to a gallery image",
             "right at rank 1 whatever the model, unless the protocol drops the copies"),
        _row("train copies in test", train["sha256"].isin(test_images), "training images",
             "byte-identical to a query or gallery image", "memorised in training"),
        _row("copies within a split", manifest.duplicated(["split", "sha256"]), "images",
             "byte-identical to an earlier image of the same split", "counted twice"),
        _row("identities of one camera", cams == 1, "identities", "seen by one camera only",
             "of no use for matching across cameras"),
        _row("queries without a match", _without_match(manifest), "query images",
             "without a gallery image of the same person from another camera",
             "not scored by protocols across cameras"),
        _row("tiny images", manifest[["width", "height"]].min(axis=1) < TINY, "images",
             f"less than {TINY} pixels wide or high", "hardly showing a person"),
        _unequal(train["id"].value_counts()),
    ]
    return pd.DataFrame(rows, columns=["check", "count", "of", "words"])


def check_scorable(manifest: pd.DataFrame) -> None:
    """Raise ValueError if no query could be scored across cameras, or all show one person."""
    people = manifest.loc[manifest["split"] == "query", "id"].unique()
    if len(people) < 2:
        raise ValueError(f"all queries show one person ({', '.join(people)}); at least 2 are "
                         "needed for a wrong answer to be possible and for an interval")
    if _without_match(manifest).all():
        cams = ", ".join(sorted(manifest["cam"].unique())[:5])
        raise ValueError(
            f"no query has a match from another camera (cameras found: {cams}), so the protocol "
            "`standard` would score nothing: give the gallery images of the query people from "
            "another camera. reidlib.evaluation.scoring.evaluate with protocols=('all-gallery', "
            "'leak-free', 'lat-top10') does without")


def _row(check: str, found: pd.Series, what: str, fact: str, so: str) -> tuple:
    """``found``: bool, one entry an image or identity. ``so``: what follows, said if any is."""
    count, of = int(found.sum()), len(found)
    verb = "is" if count == 1 else "are"
    consequence = f": {so}" if count else ""
    return check, count, of, f"{count} of {of} {what} {verb} {fact}{consequence}."


def _size(manifest: pd.DataFrame, split: str) -> tuple:
    images = manifest[manifest["split"] == split]
    ids = images.loc[images["id"] != JUNK_ID, "id"]
    junk = len(images) - len(ids)
    return (f"{split} images", len(images), len(manifest),
            f"The {split} split has {len(images)} images of {ids.nunique()} identities"
            + (f", and {junk} of them show no person (junk)." if junk else "."))


def _without_match(manifest: pd.DataFrame) -> pd.Series:
    """Which queries have no gallery image of their person from another camera."""
    query = manifest[manifest["split"] == "query"]
    gallery = manifest.loc[manifest["split"] == "gallery", ["id", "cam"]].drop_duplicates()
    pairs = query.merge(gallery, on="id", suffixes=("", "_gallery"))
    return ~query["path"].isin(pairs.loc[pairs["cam"] != pairs["cam_gallery"], "path"])


def _unequal(images: pd.Series) -> tuple:
    """``images``: how many each training identity has."""
    middle = int(images.quantile(0.5, interpolation="lower"))
    count = int((images != middle).sum())
    return ("unequal image counts", count, len(images),
            f"Training identities have {images.min()} to {images.max()} images (median {middle}); "
            f"{count} of {len(images)} have more or fewer than the median.")
