"""The backbone on the CPU: one lane per core."""

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from storage.recipe import Recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.forward import Forward
from tasks.encoder.embedder import Backbone, Lanes

MAX_LANES = 8
BATCH = 8  # images per lane: its layers then fit in a core's cache


def open_cpu(forward: Forward, recipe: Recipe, batch: int, *, compiled: bool) -> tuple[Backbone, Lanes]:
    """Open one lane per core, up to eight: unlike with one batch on all cores, none waits for the slowest thread."""
    cores = torch.get_num_threads()
    count = min(cores, MAX_LANES)

    def enter() -> None:
        torch.set_num_threads(cores // count)  # for this thread only: OpenMP counts per thread

    @torch.inference_mode()
    def embed(pixels: npt.NDArray[np.uint8]) -> Matrix:
        try:
            return cast("Matrix", run(torch.from_numpy(pixels)).numpy())
        except RuntimeError as error:
            if "not enough memory" in str(error):
                raise MemoryError(str(error)) from error
            raise

    run = compile_forward(forward, recipe, batch, enter) if compiled else forward
    return embed, Lanes(count, enter, f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}", batch)


def compile_forward(forward: Forward, recipe: Recipe, batch: int, enter: Callable[[], None]) -> Forward:
    """Compile for one batch size, with the weights folded in, in a thread set up like those that will run it."""
    from torch._inductor import config as inductor  # takes as long to import as the rest of torch

    run = cast("Forward", torch.compile(forward, dynamic=False))

    @torch.inference_mode()
    def warm_up() -> None:
        with inductor.patch(freezing=True):
            run(torch.zeros(batch, *recipe.transform.crop, 3, dtype=torch.uint8))

    with ThreadPoolExecutor(1, initializer=enter) as thread:
        thread.submit(warm_up).result()
    return run
