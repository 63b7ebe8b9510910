"""Embeddings -> Ranking -> scores under a named protocol, with flipped features."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib import metrics
from reidlib.paths import whole_file

FLIPS = ("none", "query", "both")
RANKS = (1, 5, 10)
CMC_LENGTH = 50


@dataclass(frozen=True)
class Protocol:
    """Which gallery images count for a query, and how average precision is taken."""

    name: str
    drop_same_camera: bool     # same identity seen by the query's own camera
    drop_junk: bool            # identity "-1" of Market-1501
    drop_copies: bool          # byte-identical to the query image
    depth: int | None          # look at this many nearest only
    rule: str                  # see metrics.average_precision
    source: str


PROTOCOLS = {p.name: p for p in (
    Protocol("standard", True, True, False, None, "rectangle",
             "Market-1501 as torchreid and TransReID score it"),
    Protocol("lat-top10", False, False, False, 10, "rectangle",
             "public LA-Transformer test code; the paper's numbers"),
    Protocol("all-gallery", False, False, False, None, "rectangle",
             "every gallery image, full ranking"),
    Protocol("leak-free", False, False, True, None, "rectangle",
             "all-gallery without byte-identical copies of the query"),
    Protocol("market-matlab", True, True, False, None, "trapezoid",
             "the original Market-1501 script"),
)}


def get_protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some images and of their mirrors, with what the protocols ask about them."""

    emb: np.ndarray       # (image, dim) float32, unit length
    mirrored: np.ndarray  # (image, dim) float32, unit length
    paths: np.ndarray     # (image,) text, as in the manifest; so are the rest
    ids: np.ndarray
    cams: np.ndarray
    sha256: np.ndarray

    def __post_init__(self):
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry an image expected in every field, found {lengths}")
        for emb in (self.emb, self.mirrored):
            bad = np.flatnonzero(~np.isfinite(emb).all(1))
            if len(bad):
                raise ValueError(f"embedding of {self.paths[bad[0]]} is not finite "
                                 f"({len(bad)} such images)")

    def save(self, path: Path) -> None:
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Embedded":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    def features(self, flip: bool) -> np.ndarray:
        """The embeddings, or with ``flip`` the unit-length mean of image and mirror (Sec. 3.3)."""
        if not flip:
            return self.emb
        mean = (self.emb + self.mirrored) / 2
        return mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)


@dataclass(frozen=True)
class Ranking:
    """Every query's gallery, nearest first; what search, scoring and drawing share.

    Equal similarities rank wrong images before right ones, so that a tie never helps and the
    order of files never matters.
    """

    protocol: Protocol
    query: Embedded
    gallery: Embedded
    order: np.ndarray  # (query, gallery) gallery indices, nearest first
    hits: np.ndarray   # (query, gallery) bool along the ranking: same person
    keep: np.ndarray   # (query, gallery) bool along the ranking: the protocol counts this image

    def __post_init__(self):
        shape = (len(self.query.ids), len(self.gallery.ids))
        for name in ("order", "hits", "keep"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")

    def kept(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Gallery indices and hits of query ``i``, nearest first, only what the protocol counts."""
        return self.order[i][self.keep[i]], self.hits[i][self.keep[i]]


def rank_gallery(query: Embedded, gallery: Embedded, protocol: str = "standard",
                 flip: str = "none") -> Ranking:
    """Rank the gallery for each query by cosine similarity under a named protocol.

    ``flip``: average the features of image and mirror for no image, for the ``query`` (the paper)
    or for ``both`` sides.
    """
    rules = get_protocol(protocol)
    if flip not in FLIPS:
        raise ValueError(f"unknown flip {flip!r}; known: {', '.join(FLIPS)}")
    if not len(query.ids) or not len(gallery.ids):
        raise ValueError(f"{len(query.ids)} query and {len(gallery.ids)} gallery images: "
                         "retrieval needs at least one of each")
    if query.emb.shape[1] != gallery.emb.shape[1]:
        raise ValueError(f"query embeddings are {query.emb.shape[1]} wide, gallery embeddings "
                         f"{gallery.emb.shape[1]}: embed both with the same model")
    similarity = query.features(flip != "none") @ gallery.features(flip == "both").T
    same = query.ids[:, None] == gallery.ids[None, :]
    order = np.lexsort((same, -similarity), axis=1)
    keep = _kept(query, gallery, same, rules)
    along = np.take_along_axis
    return Ranking(rules, query, gallery, order, along(same, order, 1), along(keep, order, 1))


def _kept(query: Embedded, gallery: Embedded, same: np.ndarray, rules: Protocol) -> np.ndarray:
    keep = np.ones_like(same)
    if rules.drop_same_camera:
        keep &= ~(same & (query.cams[:, None] == gallery.cams[None, :]))
    if rules.drop_junk:
        keep &= gallery.ids[None, :] != "-1"
    if rules.drop_copies:
        keep &= query.sha256[:, None] != gallery.sha256[None, :]
    return keep


def score_queries(ranking: Ranking) -> pd.DataFrame:
    """One row a query: path, id, cam, AP, INP, first_hit (rank from 1); NaN where not scored.

    A query without a single valid match is not scored. Under a protocol that looks at the nearest
    few, INP is not defined (NaN) and a first hit beyond them does not count (infinite).
    """
    rules, rows = ranking.protocol, []
    for i in range(len(ranking.query.ids)):
        _, hits = ranking.kept(i)
        if not hits.any():
            rows.append((np.nan, np.nan, np.nan))
        elif rules.depth is None:
            rows.append((metrics.average_precision(hits, rules.rule),
                         metrics.inverse_negative_penalty(hits), metrics.first_hit(hits)))
        else:
            first = metrics.first_hit(hits)
            rows.append((metrics.average_precision_at(hits, rules.depth), np.nan,
                         first if first <= rules.depth else np.inf))
    table = pd.DataFrame(rows, columns=["AP", "INP", "first_hit"], dtype=float)
    query = ranking.query
    return pd.concat([pd.DataFrame({"path": query.paths, "id": query.ids, "cam": query.cams}),
                      table], axis=1)


def summarise_queries(per_query: pd.DataFrame, protocol: str) -> dict[str, float | int | None]:
    """mAP, mINP, rank-1/5/10, n_query and n_valid_query of a per-query table.

    Raises:
        ValueError: no query has a valid match under the protocol.
    """
    valid = per_query.dropna(subset="AP")
    if valid.empty:
        cameras = per_query["cam"].nunique()
        raise ValueError(
            f"no query has a valid match under protocol {protocol!r}: every match is from the "
            f"query's own camera or there is none ({len(per_query)} queries, {cameras} camera(s)). "
            "Cross-camera scores need a gallery image of the person from another camera; "
            "all-gallery and leak-free keep the own camera's images")
    inp = valid["INP"].mean()
    return {"mAP": float(valid["AP"].mean()), "mINP": None if np.isnan(inp) else float(inp),
            **{f"rank{k}": float((valid["first_hit"] <= k).mean()) for k in RANKS},
            "n_query": len(per_query), "n_valid_query": len(valid)}


def evaluate(query: Embedded, gallery: Embedded, flips=FLIPS, protocols=tuple(PROTOCOLS)
             ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, per-query table and CMC curves under every protocol and flip, in long form."""
    scores, tables, curves = [], [], []
    for flip in flips:
        for protocol in protocols:
            key = {"protocol": protocol, "flip": flip}
            per_query = score_queries(rank_gallery(query, gallery, protocol, flip))
            scores.append({**key, **summarise_queries(per_query, protocol)})
            tables.append(per_query.assign(**key))
            length = min(CMC_LENGTH, len(gallery.ids), get_protocol(protocol).depth or CMC_LENGTH)
            curve = metrics.cmc(per_query["first_hit"].dropna().to_numpy(), length)
            curves.append(pd.DataFrame({**key, "rank": np.arange(1, length + 1), "cmc": curve}))
    return pd.DataFrame(scores), pd.concat(tables), pd.concat(curves)


@torch.inference_mode()
def embed(model: nn.Module, images: Tensor, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of uint8 images ``(image, 3, height, width)`` and of their mirrors, float32."""
    model.eval()
    device = next(model.parameters()).device
    plain, mirrored = [], []
    for batch in images.split(batch_size):
        batch = batch.to(device)
        plain.append(model.embed(batch).float().cpu())
        mirrored.append(model.embed(batch.flip(-1)).float().cpu())
    return torch.cat(plain).numpy(), torch.cat(mirrored).numpy()
