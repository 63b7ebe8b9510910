"""Embedding images and their mirrors: reidlib and the usual code, next to the bare forward pass.

In full precision, as runs embed whatever they train in. Seconds are of one batch, once: an image
and its mirror are two. `--device cuda` fills the rows of the GPU.
"""

from dataclasses import replace

import numpy as np

from reidlib.evaluation.embeddings import embed
from tests.benchmarks.measure import Candidate, main
from tests.benchmarks.plain import does_the_same_work, embed_plainly
from tests.benchmarks.training import both_devices, in_full_precision
from tests.benchmarks.workload import Pictures, Step


def embed_reidlib(step: Step, pictures: Pictures):
    model = step.model(int(pictures.labels.max()) + 1).to(step.device)

    def all_images() -> tuple[np.ndarray, np.ndarray]:
        return embed(model, pictures.images, step.batch)

    return all_images


def of_unit_length(found: tuple[np.ndarray, np.ndarray], step: Step, pictures: Pictures) -> bool:
    return all(np.allclose(np.linalg.norm(emb, axis=1), 1, atol=1e-4)
               and len(emb) == len(pictures.images) for emb in found)


def candidates(steps: list[Step], growth: list[Step]) -> list[Candidate]:
    steps, growth = ([replace(step, training=False) for step in in_full_precision(some)]
                     for some in (steps, growth))
    rows = []
    for step in steps:
        rows += [Candidate("floor forward of the bare backbone", step, step.floor, lambda *_: True,
                           ("torch", "timm")),
                 _reidlib(step),
                 Candidate("plain PIL in workers, a module a part", step, embed_plainly,
                           lambda _, *data: does_the_same_work(*data),
                           ("torch", "timm", "torchvision"), 3, 2 * step.batches)]
    return rows + [_reidlib(step, 2) for step in growth]


def _reidlib(step: Step, repeats: int = 5) -> Candidate:
    return Candidate("reidlib embed", step, embed_reidlib, of_unit_length, ("torch", "timm"),
                     repeats, 2 * step.batches)


if __name__ == "__main__":
    small = [replace(Step("tiny", 32).tiny(), precision=p) for p in ("fp32", "bf16")]
    main("embedding", {"full": both_devices(candidates), "small": candidates(small, [])},
         ("cpu", "cuda"))
