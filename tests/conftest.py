"""Small made-up models, embeddings and studies that several test files share."""

import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; test processes share the cores

import numpy as np
import pytest
import torch

from reidlib.data.synthetic.dataset import write_dataset
from reidlib.evaluation.embeddings import Embeddings
from reidlib.experiments import prepare
from reidlib.models.backbone import build_backbone
from reidlib.models.la_transformer import LATransformer


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With -n, one process has all tests of a file, and one all notebooks, in their order."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            name = super()._split_scope(nodeid)
            return "notebooks" if name.endswith(".ipynb") else name

    return Files(config, log)


def pytest_collection_modifyitems(items):
    """The longest file comes first, so that at the end no process waits for it alone."""
    items.sort(key=lambda item: item.path.name != "test_own_data.py")


@pytest.fixture(scope="session", autouse=True)
def drawn_once(tmp_path_factory):
    """Studies copy the people that another test had drawn: drawing them takes seconds."""
    drawings = {}

    def copied(root, spec):
        if spec not in drawings:
            drawings[spec] = write_dataset(tmp_path_factory.mktemp("drawn") / "people", spec)
        if not root.exists():
            shutil.copytree(drawings[spec], root)
        return write_dataset(root, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "write_dataset", copied)
        yield


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


@pytest.fixture
def make_backbone():
    """A tiny ViT, by default on 32-pixel images: 4 x 4 patches, 16 wide, 2 blocks."""

    def make(image_size=32, stride=None, **args):
        return build_backbone("vit_tiny_patch16_224", image_size, False, {
            "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, **args}, stride)

    return make


@pytest.fixture
def make_model(make_backbone):
    """A tiny LA-Transformer, by default on 32-pixel images."""

    def make(n_identities=5, image_size=32, **options):
        return LATransformer(make_backbone(image_size), n_identities, **options)

    return make


@pytest.fixture
def make_images():
    def make(n, size=32, seed=0):
        rng = np.random.default_rng(seed)
        height, width = (size, size) if isinstance(size, int) else size
        return torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8))

    return make


@pytest.fixture
def make_embeddings():
    """Embeddings from 2-D directions (degrees): nearer angles are more similar."""

    def make(angles, ids, cams, sha256=None, mirrored=None):
        def unit(degrees):
            radians = np.radians(np.asarray(degrees, float))
            return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)

        n = len(ids)
        return Embeddings(unit(angles), unit(angles if mirrored is None else mirrored),
                          np.array([f"{i}.png" for i in range(n)], dtype=str),
                          np.array(ids, dtype=str), np.array(cams, dtype=str),
                          np.array(sha256 or [f"{id(ids)}-{i}" for i in range(n)], dtype=str))

    return make
