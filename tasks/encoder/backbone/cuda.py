"""The backbone on a CUDA GPU: lanes whose copies overlap with each other's kernels."""

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
WARM_UPS = 3  # passes before recording: libraries choose their kernels in the first ones


class _Lane:
    """One thread's stream, pinned host memory and device memory, for a fixed batch size.

    If ``recorded``, the pass is recorded once as a CUDA graph and replayed for each batch, which saves launching the
    kernels one by one.
    """

    def __init__(self, forward: Forward, shape: tuple[int, ...], device: torch.device, *, recorded: bool) -> None:
        self.forward = forward
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.host_input = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.input = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS if recorded else 1):
                self.output = forward(self.input)
        self.stream.synchronize()
        if recorded:
            torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - the graph then gets its own
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.output = forward(self.input)
        self.host_output = torch.empty(self.output.shape, dtype=self.output.dtype, pin_memory=True)

    def run(self, pixels: npt.NDArray[np.uint8]) -> Matrix:
        """Copy in, run and copy back, in order on this lane's stream, which overlaps with those of other lanes."""
        source = torch.from_numpy(pixels)
        if not source.is_pinned():
            source = self.host_input.copy_(source)
        with torch.cuda.stream(self.stream):
            self.input.copy_(source, non_blocking=True)
            if self.graph:
                self.graph.replay()
            else:
                self.output = self.forward(self.input)
            self.host_output.copy_(self.output, non_blocking=True)
        self.stream.synchronize()
        return cast("Matrix", self.host_output.numpy().copy())


def open_cuda(forward: Forward, recipe: Recipe, device: torch.device, *, compiled: bool) -> tuple[Backbone, Lanes]:
    """Open a few lanes on one GPU; if ``compiled``, their passes are fused and recorded."""
    if recipe.dtype == "float32":  # TensorFloat-32 has only 10 bits of precision
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    run = cast("Forward", torch.compile(forward, dynamic=False)) if compiled else forward
    local, opening = threading.local(), threading.Lock()

    @torch.inference_mode()
    def embed(pixels: npt.NDArray[np.uint8]) -> Matrix:
        with _raise_memory_error():
            lane: _Lane | None = getattr(local, "lane", None)
            if lane is None or lane.input.shape != pixels.shape:
                local.lane = None  # frees the larger one after the batch was halved
                with opening:
                    local.lane = lane = _Lane(run, pixels.shape, device, recorded=compiled)
            return lane.run(pixels)

    name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, driver {_read_driver()}"
    return embed, Lanes(LANES, lambda: torch.cuda.set_device(device), name, BATCH, pin_rows, processes=True)


def pin_rows(rows: Pixels) -> Callable[[], None]:
    """Pin rows, so that the device copies from them directly; return the function that undoes it."""
    cuda, start = torch.cuda.cudart(), rows.ctypes.data  # type: ignore[no-untyped-call]
    if int(cuda.cudaHostRegister(start, rows.nbytes, 0)):
        return lambda: None
    return lambda: cuda.cudaHostUnregister(start) and None


@contextlib.contextmanager
def _raise_memory_error() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error


def _read_driver() -> str:
    """Read the driver's version; "unknown" if the system does not state it."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:  # noqa: PTH123 - not a regular file
            match = DRIVER.search(file.readline())
    except OSError:
        match = None
    return match.group() if match else "unknown"
