"""Small made-up queries and galleries."""

import numpy as np

from reidlib.evaluation.embeddings import Embeddings


def random_pair(seed, n_query=8, n_gallery=40, dim=6):
    """Queries and gallery with junk, copies, several cameras and people."""
    rng = np.random.default_rng(seed)

    def make(n, ids):
        emb = rng.normal(size=(2, n, dim)).astype(np.float32)
        emb /= np.linalg.norm(emb, axis=2, keepdims=True)
        return [*emb, np.array([f"{seed}/{i}" for i in range(n)]), rng.choice(ids, n),
                rng.choice(["a", "b", "c"], n), rng.integers(0, 60, n).astype(str)]

    query = make(n_query, ["1", "2", "3", "4"])
    gallery = make(n_gallery, ["1", "2", "3", "4", "-1", "0"])
    for field in range(6):                       # the first query stays in the gallery as a copy
        gallery[field][0] = query[field][0]
    return Embeddings(*query), Embeddings(*gallery)


def rounded(seed):
    """A pair whose similarities tie often: coordinates are whole numbers."""
    query, gallery = random_pair(seed)

    def coarse(images):
        return Embeddings(np.round(images.emb * 2), np.round(images.mirrored * 2), images.paths,
                        images.ids, images.cams, images.sha256)

    return coarse(query), coarse(gallery)
