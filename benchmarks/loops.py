"""The loops that people write by hand: from files to vectors in Parquet, without this project's engine."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from storage.recipe import Transform
from tasks.encoder.backbone.networks import find_classifier, load_network
from tasks.encoder.backbone.weights import Weights

Decode = Callable[[Path], Tensor]


@dataclass(frozen=True)
class Loop:
    """A network in evaluation mode, less its classifier, and how it is fed."""

    network: nn.Module
    decode: Decode
    device: torch.device
    batch: int
    workers: int
    loaders: "dict[tuple[int, int], DataLoader[Tensor]]" = field(default_factory=dict)

    def feed(self, paths: Sequence[Path], workers: int | None = None) -> "DataLoader[Tensor]":
        """Make a loader, or give the one made before: its workers, if it has any, stay for all passes."""
        count = self.workers if workers is None else workers
        if (len(paths), count) not in self.loaders:
            cuda = self.device.type == "cuda"
            start = _start_apart() if cuda and count else None
            self.loaders[len(paths), count] = DataLoader(
                _Files(paths, self.decode),
                self.batch,
                num_workers=count,
                pin_memory=cuda,
                persistent_workers=count > 0,
                multiprocessing_context=start,
            )
        return self.loaders[len(paths), count]


def _start_apart() -> BaseContext:
    """Start workers from a process that knows nothing of the GPU: some of those forked beside its threads die."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload([__name__])
    return start


class _Files(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], decode: Decode) -> None:
        self.paths, self.decode = paths, decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.decode(self.paths[index])


def load_plain(architecture: str, weights: Weights) -> nn.Module:
    """Load a network without its classifier, in float32."""
    network = load_network(architecture, weights)
    network.set_submodule(find_classifier(network)[0], nn.Identity())
    return network


def read_pillow(transform: Transform) -> Decode:
    """Make the transform of torchvision's reference scripts: Pillow, then a normalised float tensor."""
    steps = v2.Compose(
        [
            v2.Resize(transform.resize, v2.InterpolationMode(transform.interpolation)),
            v2.CenterCrop(list(transform.crop)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(transform.mean), list(transform.std)),
        ]
    )
    return partial(_open, steps)


def read_fast(transform: Transform) -> Decode:
    """Make the transform that torchvision's documentation gives for speed: tensors of bytes, antialiased resize."""
    steps = v2.Compose(
        [
            v2.Resize(transform.resize, v2.InterpolationMode(transform.interpolation), antialias=True),
            v2.CenterCrop(list(transform.crop)),
        ]
    )
    return partial(_decode, steps)


def _open(steps: v2.Compose, path: Path) -> Tensor:
    made: Tensor = steps(Image.open(path).convert("RGB"))
    return made


def _decode(steps: v2.Compose, path: Path) -> Tensor:
    made: Tensor = steps(decode_image(read_file(str(path)), ImageReadMode.RGB))
    return made


def run_common(loop: Loop, paths: Sequence[Path], to: Path) -> None:
    """Run the loop people write: float32, eager, channels first, a copy back for every batch."""
    with torch.no_grad():
        parts = [loop.network(images.to(loop.device)).cpu() for images in loop.feed(paths)]
    _save(torch.cat(parts), paths, to)


def make_honest(loop: Loop, transform: Transform, dtype: torch.dtype, *, compiled: bool) -> Callable[..., None]:
    """Make the loop an expert writes: bytes to the device, normalised there, channels last, 16 bits, compiled."""
    network = loop.network.to(device=loop.device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (torch.tensor(each, device=loop.device).view(1, 3, 1, 1) for each in (transform.mean, transform.std))

    def forward(images: Tensor) -> Tensor:
        pixels = images.to(memory_format=torch.channels_last).float().div(255).sub(mean).div(std)
        vectors: Tensor = network(pixels.to(dtype)).float()
        return vectors

    options: dict[str, Any] = {"mode": "reduce-overhead"} if loop.device.type == "cuda" else {}
    step = torch.compile(forward, dynamic=False, **options) if compiled else forward

    @torch.inference_mode()
    def run(paths: Sequence[Path], to: Path, workers: int | None = None) -> None:
        with inductor.patch(freezing=loop.device.type == "cpu"):
            made = [step(images.to(loop.device, non_blocking=True)).clone() for images in loop.feed(paths, workers)]
        _save(torch.cat(made), paths, to)

    return run


def _save(vectors: Tensor, paths: Sequence[Path], to: Path) -> None:
    flat = pa.array(vectors.cpu().numpy().ravel())
    columns = {
        "path": [str(path) for path in paths],
        "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    pq.write_table(pa.table(columns), to)
