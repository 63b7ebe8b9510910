"""The work that training and embedding are measured on: drawn people and a bare backbone."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import timm
import torch
from torch import Tensor, nn

from reidlib.data.batches import number_ids
from reidlib.data.datasets import read_dataset
from reidlib.data.images import open_images
from reidlib.data.synthetic.dataset import write_dataset
from reidlib.data.synthetic.spec import SyntheticSpec
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import make_config
from reidlib.experiments.train import build_model
from reidlib.models.la_transformer import LATransformer
from reidlib.utils.distributed import accelerated
from tests.benchmarks.measure import PeakMemory

BACKBONES = ("tiny", "small", "base")


@dataclass(frozen=True)
class Pictures:
    """Pictures on disk, the manifest of them, and the decoded array."""

    root: Path
    manifest: pd.DataFrame
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Step:
    """One batch of one backbone. The floor is the bare timm backbone on a tensor in memory."""

    backbone: str
    batch: int
    precision: str = "fp32"
    device: str = "cpu"
    image_size: int = 224
    training: bool = True
    batches: int = 4          # with different pictures
    small: bool = False       # a backbone of two narrow blocks, for tests

    def __str__(self) -> str:
        return f"vit_{self.backbone}_patch16 {self.image_size} px x {self.batch}, {self.precision}"

    def make(self) -> tuple["Step", Pictures]:
        """Itself and pictures for its batches."""
        count = self.batch * self.batches
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        write_dataset(folder / "people", SyntheticSpec(
            train_ids=max(2, -(-count // 8)), test_ids=2, n_query=4, n_query_copies=2,
            orientations=4))
        dataset = read_dataset("synthetic", folder / "people")
        people = dataset.manifest.query("split == 'train'").head(count)
        images = open_images(dataset.root, people, self.image_size, folder / "a.npy")
        return self, Pictures(dataset.root, people, images, number_ids(people["id"].tolist())[0])

    def tiny(self) -> "Step":
        return replace(self, batch=8, batches=2, image_size=32, small=True)

    def watch_memory(self) -> PeakMemory:
        return CudaMemory() if self.device == "cuda" else PeakMemory()

    def floor(self, _, pictures: Pictures) -> Callable[[], None]:
        """Forward, and in training backward and optimiser step, of the backbone alone."""
        model = self.bare().to(self.device)
        inputs = torch.randn(self.batch, 3, self.image_size, self.image_size, device=self.device)
        optimiser = torch.optim.Adam(model.parameters(), fused=True)

        def train() -> None:
            with self.autocast():
                output = model(inputs)
            output.float().square().mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self.wait()

        @torch.inference_mode()
        def embed() -> None:
            with self.autocast():
                model(inputs)
            self.wait()

        return train if self.training else embed

    def bare(self) -> nn.Module:
        return timm.create_model(self.name, num_classes=0, img_size=self.image_size,
                                 **self.arguments)

    def model(self, n_identities: int) -> LATransformer:
        return build_model(self.config(), pd.DataFrame({"id": range(n_identities)}))

    def config(self) -> TrainConfig:
        return make_config("improved", 0, {
            "backbone": self.name, "backbone_args": self.arguments, "pretrained": False,
            "image_size": self.image_size, "batch_size": self.batch, "precision": self.precision,
            "schedule": "end-to-end"})

    @property
    def name(self) -> str:
        return f"vit_{self.backbone}_patch16_224"

    @property
    def arguments(self) -> dict:
        return {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2} if self.small else {}

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    def accelerator(self, **options):
        return accelerated(torch.device(self.device), self.precision, **options)

    def wait(self) -> None:
        """A device works on after the call returns."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class CudaMemory:
    """As ``PeakMemory``, of the CUDA device."""

    def __init__(self):
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    def stop(self) -> float:
        return (torch.cuda.max_memory_allocated() - self.before) / 2**20
