"""Writing a backbone as an ONNX file, which other runtimes than torch run."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from storage.locations.atomic import write_file
from storage.recipe import Recipe
from tasks.encoder.backbone.forward import Forward

OPSET = 17
INPUT, OUTPUT = "pixels", "vectors"


class _Exported(nn.Module):
    """A forward pass as a module, with its network as a part, so that its weights are written."""

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network = network
        self._run = forward

    def forward(self, pixels: Tensor) -> Tensor:
        return self._run(pixels)


def export_onnx(network: nn.Module, forward: Forward, recipe: Recipe, batch: int, path: Path) -> None:
    """Write a forward pass, normalising included: pixels [n, height, width, 3], uint8, to vectors [n, dim], float32.

    Args:
        network: The network that ``forward`` runs, on a CPU.
        forward: The forward pass up to the cut.
        recipe: Its recipe.
        batch: The number of images in the batch that is traced; a runtime may run any number.
        path: The file to write.

    Raises:
        Exception: of any kind, if an operation of the network has no counterpart in ONNX.
    """
    pixels = torch.zeros(batch, *recipe.transform.crop, 3, dtype=torch.uint8)
    module = _Exported(network, forward).eval()
    with write_file(path) as unfinished, _hush(), torch.no_grad():
        torch.onnx.export(
            module,
            (pixels,),
            str(unfinished),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs two more packages and ten times as long
        )


@contextlib.contextmanager
def _hush() -> Iterator[None]:
    """Drop what the exporter prints about its own future."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
