"""The complete ranked gallery of each query, for figures that show images."""

from dataclasses import dataclass

import numpy as np

from reidlib.data.manifest import JUNK_ID
from reidlib.evaluation.embeddings import Embeddings, flipped, pool
from reidlib.evaluation.protocols import Protocol, get_protocol


@dataclass(frozen=True)
class Ranking:
    """Every query's gallery, nearest first, and what a protocol counts of it.

    Equal similarities rank wrong images before right ones, so that a tie never helps and the
    order of files never matters.
    """

    protocol: Protocol
    query: Embeddings
    gallery: Embeddings
    order: np.ndarray  # (query, gallery) gallery indices, nearest first
    hits: np.ndarray   # (query, gallery) bool along the ranking: same person
    keep: np.ndarray   # (query, gallery) bool along the ranking: the protocol counts this image

    def kept(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Gallery indices and hits of query ``i``, nearest first, only what the protocol counts."""
        return self.order[i][self.keep[i]], self.hits[i][self.keep[i]]


def rank_gallery(query: Embeddings, gallery: Embeddings, protocol: str = "standard",
                 flip: str = "none") -> Ranking:
    """Rank the gallery for each query by cosine similarity under a named protocol.

    Where the protocol asks with every test image, the two are pooled first; where it looks at the
    nearest few, only these count. ``flip``: see ``embeddings.flipped``.
    """
    rules = get_protocol(protocol)
    if rules.draws:
        raise ValueError(f"protocol {protocol!r} scores {rules.draws} drawn galleries and has no "
                         "one ranking to show; standard ranks the full gallery by its rules")
    if rules.every_image:
        query, gallery = pool(query, gallery)
    asked, shown = flipped(query, gallery, flip)
    similarity = asked @ shown.T
    same = query.ids[:, None] == gallery.ids[None, :]
    order = np.lexsort((same, -similarity), axis=1)
    keep = rules.keeps(same, query.cams[:, None] == gallery.cams[None, :],
                       gallery.ids[None, :] == JUNK_ID,
                       query.sha256[:, None] == gallery.sha256[None, :])
    hits, keep = (np.take_along_axis(values, order, 1) for values in (same, keep))
    if rules.depth:
        keep &= keep.cumsum(1) <= rules.depth
    return Ranking(rules, query, gallery, order, hits, keep)
