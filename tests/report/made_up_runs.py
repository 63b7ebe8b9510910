"""Made-up finished runs of the studies of Table 1: records and per-query tables."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from reidlib.experiments.records import publish_run, write_run
from reidlib.experiments.study import load_study, write_study
from reidlib.utils.paths import Workspace

COUNTS = {"train": {"identities": 427, "images": 4145}, "query": {"identities": 12, "images": 37},
          "gallery": {"identities": 12, "images": 320}}
HARDWARE = {"cpu": "AMD EPYC", "threads": 2, "cores": 2, "device": "cpu"}


def queries(level, n_people, seed=0, spread=0.1, **key):
    """Three queries a person and one that is not scored; AP lies around ``level``."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(n_people), 3)
    ap = np.clip(level + rng.normal(0, spread, n_people)[ids] + rng.normal(0, spread / 2, len(ids)),
                 0, 1)
    table = pd.DataFrame({
        "path": [f"{i}.jpg" for i in range(len(ids))], "id": ids.astype(str), "cam": "c1",
        "AP": ap, "INP": ap / 2, "first_hit": np.select([ap > 0.65, ap > 0.55], [1.0, 3.0], 7.0)})
    for k in (1, 5, 10):
        table[f"rank{k}"] = (table["first_hit"] <= k).astype(float)
    missed = {"path": "none.jpg", "id": "none", "cam": "c1"}
    return pd.concat([table, pd.DataFrame([missed])], ignore_index=True).assign(**key)


def finish(root, study, preset, levels, n_people=12, parameters=5_500_000, local=None, spread=0.1,
           data=None, seed=0):
    """A finished run: ``levels`` of mAP under both rules, ``local`` those of global + local.

    Each epoch takes 90 seconds and shows one image more than the one before, the first 1,000.
    """
    saved, workspace = replace(load_study(study), checksum="data"), Workspace(study, root)
    write_study(saved, workspace)
    config = saved.config(preset, 0)
    plain = {"flip": "none", "reranked": False}
    parts = [queries(level, n_people, seed + number, spread, protocol=protocol, **plain, **extra)
             for extra, found in (({"local": False} if local else {}, levels),
                                  ({"local": True}, local or ())) for number, (protocol, level)
             in enumerate(zip(("standard", "lat-top10"), found, strict=False))]
    table = pd.concat(parts)
    keys = ["protocol", "flip", "reranked", *(["local"] if local else [])]
    scores = [{**dict(zip(keys, key, strict=True)), "mAP": own["AP"].mean(),
               "mINP": own["INP"].mean(), **own[["rank1", "rank5", "rank10"]].mean(),
               "n_query": len(own), "n_valid_query": int(own["AP"].count())}
              for key, own in table.groupby(keys)]
    cost = {"hardware": HARDWARE, "versions": {}, "train_seconds": 90.0 * config.epochs}
    if parameters:
        cost["parameters"] = parameters
    record = {"run_id": config.run_id, "preset": preset, "seed": 0, "cost": cost,
              "fingerprint": config.fingerprint("data"), "scores": scores, "verification": [],
              "data": {"name": data or saved.dataset, "checksum": "data", "counts": COUNTS},
              "config": json.loads(json.dumps(vars(config)))}
    epochs = np.arange(config.epochs)
    history = pd.DataFrame({"epoch": epochs, "images": 1000 + epochs,
                            "accuracy": epochs / 10})
    folder = workspace.artifacts / config.run_id
    write_run(folder, record, {"history": history, "cmc": pd.DataFrame({"rank": [1]}),
                               "per_query": table})
    publish_run(folder, workspace.runs / config.run_id)
