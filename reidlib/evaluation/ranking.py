"""The ranked gallery of one query at a time, for figures that show images."""

from dataclasses import dataclass

import numpy as np

from reidlib.data.manifest import JUNK_ID
from reidlib.evaluation.embeddings import Embeddings, flipped, pool
from reidlib.evaluation.protocols import Protocol, get_protocol


@dataclass(frozen=True)
class Ranking:
    """What ranks the gallery for any query, and what a protocol counts of it.

    Sorted when it is asked for: all rankings of a large data set would fill gigabytes.
    """

    protocol: Protocol
    query: Embeddings
    gallery: Embeddings
    asked: np.ndarray  # (query, dim) features that are compared
    shown: np.ndarray  # (gallery, dim)

    def rank(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query ``i``'s gallery, nearest first: indices, same person, counted by the protocol.

        Equal similarities rank wrong images before right ones, so that a tie never helps and the
        order of files never matters.
        """
        query, gallery = self.query, self.gallery
        same = query.ids[i] == gallery.ids
        order = np.lexsort((same, -(self.shown @ self.asked[i])))
        keep = self.protocol.keeps(same, query.cams[i] == gallery.cams, gallery.ids == JUNK_ID,
                                   query.sha256[i] == gallery.sha256)[order]
        if self.protocol.depth:
            keep &= keep.cumsum() <= self.protocol.depth
        return order, same[order], keep

    def kept(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Gallery indices and hits of query ``i``, nearest first, only what the protocol counts."""
        order, hits, keep = self.rank(i)
        return order[keep], hits[keep]


def rank_gallery(query: Embeddings, gallery: Embeddings, protocol: str = "standard",
                 flip: str = "none") -> Ranking:
    """Rank the gallery by cosine similarity under a named protocol.

    Where the protocol asks with every test image, the two are pooled first; where it looks at the
    nearest few, only these count. ``flip``: see ``embeddings.flipped``.
    """
    rules = get_protocol(protocol)
    if rules.draws:
        raise ValueError(f"protocol {protocol!r} scores {rules.draws} drawn galleries and has no "
                         "one ranking to show; standard ranks the full gallery by its rules")
    if rules.every_image:
        query, gallery = pool(query, gallery)
    return Ranking(rules, query, gallery, *flipped(query, gallery, flip))
