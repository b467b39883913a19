"""A reader in a process of its own, which fills rows of memory that it shares with its parent."""

import contextlib
import io
import mmap
import os
import pickle
from dataclasses import replace
from typing import cast

import numpy as np
from PIL import Image

from storage.child_process import ChildProcess, receive
from storage.recipe import Transform
from tasks.embed.read_chunk import Chunk, Order, read_chunk
from tasks.encoder.allocator import retain_freed_memory
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.transform import Pixels

DIED = (EOFError, OSError, pickle.UnpicklingError)
"""What communicating with a process that has died raises."""


class ReaderProcess:
    """A process that reads for one thread; it ends when its parent does, however that ends."""

    def __init__(self, memory: int, shape: tuple[int, ...], transform: Transform) -> None:
        """Start the process, which loads its libraries meanwhile."""
        self.process = ChildProcess(serve, pass_fds=[memory], answers=True)
        self.ready = False
        self.process.send((memory, shape, transform))

    def is_ready(self, timeout: float | None) -> bool:
        """Return whether it waits for orders, after this many seconds at most; None waits until it does.

        Raises:
            EOFError: if it has ended instead.
        """
        if not self.ready and self.process.has_answer(timeout):
            self.ready = bool(self.process.take())
        return self.ready

    def read(self, order: Order) -> Chunk:
        """Have the process fill the rows of an order.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: if it has died or dies while reading.
        """
        self.process.send(order)
        chunk = self.process.take()
        if not isinstance(chunk, Chunk):
            raise EOFError(f"answered {chunk!r}")  # noqa: TRY004 - handled as if it had died
        return chunk

    def end(self) -> int:
        """Make it end and wait until it has; return its exit status."""
        return self.process.end()


def serve() -> None:
    """Fill the rows of orders until the parent ends or sends no more; runs in a process of its own."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps what libraries print out of the answers
    memory, shape, transform = cast("tuple[int, tuple[int, ...], Transform]", receive())
    rows = map_rows(memory, shape)
    retain_freed_memory()
    decode(_draw_probe(), transform)  # imports what decoding needs
    answer: object = True
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has ended, or needs no more
        while True:
            pickle.dump(answer, answers)
            answers.flush()
            order = cast("Order", receive())
            answer = read_chunk(rows, replace(order, budget=replace(order.budget, shared=memory)))


def map_rows(memory: int | None, shape: tuple[int, ...]) -> Pixels:
    """Map shared memory as rows of pixels, uint8; without any, allocate memory of this process.

    Args:
        memory: A file descriptor.
        shape: (rows, height, width, 3).
    """
    if memory is None:
        return np.empty(shape, np.uint8)
    size = int(np.prod(shape))
    os.ftruncate(memory, size)
    rows: Pixels = np.frombuffer(mmap.mmap(memory, size), np.uint8).reshape(shape)
    return rows


def _draw_probe() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32)).save(data, "JPEG")
    return data.getvalue()
