"""The backbone on a CUDA GPU: lanes whose copies run beside each other's kernels."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from storage.recipe import Recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.forward import Forward
from tasks.encoder.embedder import Backbone, Lanes
from tasks.encoder.pixels.transform import Pixels

LANES = 3
BATCH = 256
DRIVER = re.compile(r"\b\d+\.\d+(\.\d+)*\b")
WARM_UPS = 3  # before a recording: libraries choose their kernels in the first passes


class _Lane:
    """One thread's stream, its pinned host memory, and its place on the device; a fixed batch size.

    With ``recorded``, the pass is recorded as a CUDA graph once and replayed for each batch, which saves launching
    every kernel anew.
    """

    def __init__(self, forward: Forward, shape: tuple[int, ...], device: torch.device, *, recorded: bool) -> None:
        self.forward = forward
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.given = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS if recorded else 1):
                self.made = forward(self.given)
        self.stream.synchronize()
        if recorded:
            torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - the graph's own is then new, and nobody else frees it
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.made = forward(self.given)
        self.back = torch.empty(self.made.shape, dtype=self.made.dtype, pin_memory=True)

    def run(self, pixels: npt.NDArray[np.uint8]) -> Matrix:
        """Copy in, run, copy back, all in order on this lane's stream; other lanes' go beside."""
        source = torch.from_numpy(pixels)
        if not source.is_pinned():
            source = self.host.copy_(source)
        with torch.cuda.stream(self.stream):
            self.given.copy_(source, non_blocking=True)
            if self.graph:
                self.graph.replay()
            else:
                self.made = self.forward(self.given)
            self.back.copy_(self.made, non_blocking=True)
        self.stream.synchronize()
        return cast("Matrix", self.back.numpy().copy())


def open_cuda(forward: Forward, recipe: Recipe, device: torch.device, *, compiled: bool) -> tuple[Backbone, Lanes]:
    """Run a few lanes on one GPU; compiled, their passes are fused and recorded."""
    if recipe.dtype == "float32":  # TensorFloat-32 has 10 bits of precision: not what the recipe says
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    run = cast("Forward", torch.compile(forward, dynamic=False)) if compiled else forward
    own, opening = threading.local(), threading.Lock()

    @torch.inference_mode()
    def embed(pixels: npt.NDArray[np.uint8]) -> Matrix:
        with _explain_memory():
            lane: _Lane | None = getattr(own, "lane", None)
            if lane is None or lane.host.shape != pixels.shape:
                own.lane = None  # frees the larger one after a halving
                with opening:
                    own.lane = lane = _Lane(run, pixels.shape, device, recorded=compiled)
            return lane.run(pixels)

    name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, driver {_read_driver()}"
    return embed, Lanes(LANES, lambda: torch.cuda.set_device(device), name, BATCH, pin_rows, apart=True)


def pin_rows(rows: Pixels) -> Callable[[], None]:
    """Let the device copy from rows while others are filled; gives what undoes that. Unpinned, a copy comes between."""
    cuda, start = torch.cuda.cudart(), rows.ctypes.data  # type: ignore[no-untyped-call]
    if int(cuda.cudaHostRegister(start, rows.nbytes, 0)):
        return lambda: None
    return lambda: cuda.cudaHostUnregister(start) and None


@contextlib.contextmanager
def _explain_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error


def _read_driver() -> str:
    """Read the driver's version where the system tells it."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as told:  # noqa: PTH123 - a file of the kernel's
            found = DRIVER.search(told.readline())
    except OSError:
        found = None
    return found.group() if found else "unknown"
