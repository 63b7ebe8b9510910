"""Global and local distance together against a loop over pairs."""

import numpy as np
import torch

from reidlib.evaluation import aligned as aligned_module
from reidlib.evaluation.aligned import aligned, embed_stripes
from reidlib.losses import aligned_distance
from reidlib.models.aligned_reid import AlignedReID


def test_similarity_is_minus_the_sum_of_both_distances(make_embeddings, monkeypatch):
    monkeypatch.setattr(aligned_module, "CELLS", 100)  # a few queries at a time
    rng = np.random.default_rng(0)
    query = make_embeddings([0, 40, 80], list("abc"), list("111"))
    gallery = make_embeddings([5, 30, 60, 90], list("abcd"), list("2222"))
    stripes = [rng.normal(size=(n, 4, 8)).astype(np.float16) for n in (3, 4)]
    similarity = aligned(query, gallery, *stripes)
    ours, theirs = (torch.from_numpy(x.astype(np.float32)) for x in stripes)
    for i in range(3):
        for j in range(4):
            want = (np.linalg.norm(query.emb[i] - gallery.emb[j])
                    + aligned_distance(ours[[i]], theirs[[j]]).item())
            np.testing.assert_allclose(similarity(slice(i, i + 1))[0, j], -want, rtol=1e-4)
    np.testing.assert_array_equal(similarity(slice(0, 3))[1:2], similarity(slice(1, 2)))


def test_stripes_are_the_models_own(make_backbone, make_images):
    model, images = AlignedReID(make_backbone(), 5).eval(), make_images(3)
    found = embed_stripes(model, images, batch_size=2)
    assert found.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(found).float(), model.embed_local(images),
                               rtol=0, atol=1e-3)
