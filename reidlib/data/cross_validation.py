"""Identity cross-validation: each person is tested by a model that never saw them."""

import numpy as np
import pandas as pd

from reidlib.data.manifest import JUNK_ID, SPLITS
from reidlib.utils.errors import check_choice


def split_identities(manifest: pd.DataFrame, n_folds: int, fold: int, people: str = "all"
                     ) -> pd.DataFrame:
    """The manifest with the identities of one fold as test people, all others as training people.

    Identities are split into folds in random order, always the same, so that their numbers differ
    by one at most. Of byte-identical images of one identity and camera the first is left. A test
    person's first image in each camera is a query, the rest gallery: ``standard-all`` makes every
    one of them a query. Junk is left out.

    Args:
        people: "all", or "train" for the training people alone: what is chosen on their folds has
            never seen a test person.

    Raises:
        ValueError: fewer than 2 folds or than 2 identities a fold, no such fold, unknown people.
    """
    check_choice("people", people, ("all", "train"))
    shown = manifest[manifest["id"] != JUNK_ID]
    if people == "train":
        shown = shown[shown["split"] == "train"]
    shown = shown.drop_duplicates(["sha256", "id", "cam"])
    ids = np.unique(shown["id"])
    if not 2 <= n_folds <= len(ids) // 2 or not 0 <= fold < n_folds:
        raise ValueError(f"fold {fold} of {n_folds} of {len(ids)} identities: expected 2 to "
                         f"{len(ids) // 2} folds, numbered from 0")
    tested = np.random.default_rng(0).permutation(ids)[fold::n_folds]
    test = shown["id"].isin(tested)
    first = test & ~shown.duplicated(["id", "cam"])
    split = np.select([first, test], ["query", "gallery"], "train")
    changed = shown.assign(split=pd.Categorical(split, SPLITS, ordered=True))
    return changed.sort_values(["split", "path"], ignore_index=True).astype({"split": str})


def hold_out(ids: pd.Series, n: int, seed: int) -> np.ndarray:
    """Mask of the images of ``n`` identities, drawn by seed: validation, never trained on."""
    names = np.unique(ids)
    if n and len(names) < n + 2:
        raise ValueError(f"validation_ids is {n}, but of {len(names)} training identities at least "
                         "2 must be left to train on")
    drawn = np.random.default_rng((seed, 2)).choice(names, n, replace=False)
    return np.isin(ids, drawn)
