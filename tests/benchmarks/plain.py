"""Training as it is usually written down: what reidlib's throughput is compared with.

Pictures are decoded by Pillow in the workers of a DataLoader, again in every epoch; the parts have
their own classifiers, one after the other, in full precision; a value is read off every step.
"""

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from reidlib.losses import ReidLoss
from tests.benchmarks.measure import THREADS
from tests.benchmarks.workload import Pictures, Step

WORKERS = min(8, THREADS)


class Files(Dataset):
    def __init__(self, pictures: Pictures, size: int, training: bool):
        self.paths = [pictures.root / path for path in pictures.manifest["path"]]
        self.labels = pictures.labels.tolist()
        self.transform = v2.Compose([
            v2.Resize((size, size), v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(0.5 * training), v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[i]) as picture:
            return self.transform(picture.convert("RGB")), self.labels[i]


def loader(step: Step, pictures: Pictures) -> DataLoader:
    return DataLoader(Files(pictures, step.image_size, step.training), step.batch,
                      shuffle=step.training, num_workers=0 if step.small else WORKERS,
                      persistent_workers=not step.small, pin_memory=step.device == "cuda")


class PlainModel(nn.Module):
    """The improved model with a module a part: y-pooling, cosine classifiers."""

    def __init__(self, backbone: nn.Module, n_identities: int, hidden: int = 256):
        super().__init__()
        self.backbone, dim = backbone, backbone.num_features
        self.grid = backbone.patch_embed.grid_size[0]
        self.reduce = nn.ModuleList([nn.Sequential(
            nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5))
            for _ in range(self.grid)])
        self.classify = nn.ModuleList([nn.Linear(hidden, n_identities, bias=False)
                                       for _ in range(self.grid)])

    def features(self, images: Tensor) -> list[Tensor]:
        tokens = self.backbone.forward_features(images)
        patches = tokens[:, 1:].unflatten(1, (self.grid, self.grid))
        return [(tokens[:, 0] + 8 * (patches[:, i].mean(1) + patches[:, :, i].mean(1)) / 2) / 9
                for i in range(self.grid)]

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        features, cosines = self.features(images), []
        for feature, reduce, classify in zip(features, self.reduce, self.classify, strict=True):
            cosines.append(normalize(reduce(feature)) @ normalize(classify.weight).T)
        return cosines, self.embed(features)

    def embed(self, features: list[Tensor]) -> Tensor:
        return torch.cat([normalize(f) for f in features], 1) / self.grid ** 0.5


def plain_loss(cosines: list[Tensor], emb: Tensor, ids: Tensor) -> Tensor:
    """AM-Softmax of every part (margin 0.35, scale 30) and the batch-hard triplet (0.3)."""
    loss = 0.0
    for cosine in cosines:
        shifted = cosine.clone()
        shifted[torch.arange(len(ids)), ids] -= 0.35
        loss = loss + cross_entropy(30 * shifted, ids)
    distance = torch.cdist(emb, emb)
    for i, row in enumerate(distance):
        same = ids == ids[i]
        if same.sum() > 1 and not same.all():
            hardest = row[same].max() - row[~same].min() + 0.3
            loss = loss + torch.relu(hardest) / len(ids)
    return loss


def does_the_same_work(step: Step, pictures: Pictures) -> bool:
    """With reidlib's weights put in, parts, embeddings and loss are reidlib's."""
    n, ours = int(pictures.labels.max()) + 1, step.model(int(pictures.labels.max()) + 1).eval()
    plain, heads = PlainModel(ours.backbone, n).eval(), ours.classifiers
    with torch.no_grad():
        for i, (reduce, classify) in enumerate(zip(plain.reduce, plain.classify, strict=True)):
            reduce[0].weight.copy_(heads.reduce[i].T)
            reduce[0].bias.zero_()
            classify.weight.copy_(heads.classify[i].T)
        images, ids = pictures.images[:step.batch], pictures.labels[:step.batch]
        cosines, emb = plain((images / 255 - 0.5) / 0.5)
        output = ours(images)
        loss = sum(ReidLoss(0.35, 30.0, 0.3)(*output, ids).values())
    return bool(torch.allclose(torch.stack(cosines, 1), output.logits, atol=1e-4)
                and torch.allclose(emb, output.embedding, atol=1e-4)
                and torch.allclose(plain_loss(cosines, emb, ids), loss, rtol=1e-4))


def train_plainly(step: Step, pictures: Pictures):
    """One epoch each time it is called; returns the mean loss."""
    model = PlainModel(step.bare(), int(pictures.labels.max()) + 1).to(step.device)
    optimiser, batches = torch.optim.Adam(model.parameters(), lr=3e-4), loader(step, pictures)

    def epoch() -> float:
        model.train()
        losses = []
        for images, ids in batches:
            images, ids = images.to(step.device), ids.to(step.device)
            optimiser.zero_grad()
            loss = plain_loss(*model(images), ids)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        step.wait()
        return sum(losses) / len(losses)

    return epoch


def embed_plainly(step: Step, pictures: Pictures):
    """Embeddings of all pictures and of their mirrors."""
    model = PlainModel(step.bare(), int(pictures.labels.max()) + 1).to(step.device).eval()
    batches = loader(step, pictures)

    @torch.no_grad()
    def all_images() -> Tensor:
        found = []
        for images, _ in batches:
            images = images.to(step.device)
            found += [torch.cat([model.embed(model.features(side))
                                 for side in (images, images.flip(-1))], 1).cpu()]
        return torch.cat(found)

    return all_images
