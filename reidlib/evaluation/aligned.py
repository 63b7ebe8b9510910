"""AlignedReID's other way to compare images: by global and local distance together."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from reidlib.evaluation.embeddings import Embeddings, check_features
from reidlib.evaluation.match_ranks import Similarity
from reidlib.losses import aligned_distance

CELLS = 2 ** 24  # of the stripes' distances held at a time, 64 MB


@torch.inference_mode()
def embed_stripes(model: nn.Module, images: Tensor, batch_size: int = 64
                  ) -> Float[np.ndarray, "image stripes channels"]:
    """AlignedReID's stripes of uint8 images ``(image, 3, height, width)``, float16 to save memory.
    """
    model.eval()
    device = next(model.parameters()).device
    return np.concatenate([model.embed_local(batch.to(device)).half().cpu().numpy()
                           for batch in images.split(batch_size)])


def aligned(query: Embeddings, gallery: Embeddings,
            query_stripes: Float[np.ndarray, "query stripes channels"],
            gallery_stripes: Float[np.ndarray, "gallery stripes channels"]) -> Similarity:
    """The negated sum of global and aligned local distance, for a block of queries.

    Global is the Euclidean distance of the unit-length embeddings, local the shortest path of
    ``losses.aligned_distance`` (Zhang et al. 2017, arXiv:1711.08184, Eqs. 1 and 2). Their sum, both
    with the weight 1, is how AlignedReID++ compares images (Luo et al. 2019).
    """
    check_features(query.emb, gallery.emb)
    ours, theirs = (torch.from_numpy(x.astype(np.float32))
                    for x in (query_stripes, gallery_stripes))
    step = max(1, CELLS // (len(theirs) * theirs.shape[1] ** 2))

    def negative_distance(rows: slice) -> np.ndarray:
        apart = np.sqrt((2 - 2 * query.emb[rows] @ gallery.emb.T).clip(0))
        local = torch.cat([aligned_distance(own, theirs, exact=False)
                           for own in ours[rows].split(step)])
        return -(apart + local.numpy())

    return negative_distance
