"""A reader as a process of its own, which fills rows of memory that it shares with the process that started it."""

import contextlib
import io
import mmap
import os
import pickle
import select
import subprocess
import sys

import numpy as np
from PIL import Image

from storage.recipe import Transform
from tasks.embed.read_chunk import Chunk, Order, read_chunk
from tasks.encoder.allocator import keep_freed_memory
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.transform import Pixels

START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from tasks.embed.reader_process import serve; serve()"
)
DIED = (EOFError, OSError, pickle.UnpicklingError)
"""What talking to a process raises that is there no more."""


class ReaderProcess:
    """A process that reads for one thread; it ends when its standard input does, whatever becomes of its parent."""

    def __init__(self, memory: int, shape: tuple[int, ...], transform: Transform) -> None:
        """Start it; it makes itself ready meanwhile."""
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, a text of ours
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[memory],
            start_new_session=True,  # an interrupt from the keyboard is the parent's
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise EOFError("has no pipes")
        self.orders, self.answers = self.process.stdin, self.process.stdout
        self.told = False
        self._give(sys.path)
        self._give((memory, shape, transform))

    def is_ready(self, patience: float | None) -> bool:
        """Tell whether it waits for orders, at the latest after so many seconds; None waits until it does.

        Raises:
            EOFError: where it ended instead.
        """
        if not self.told and select.select([self.answers], [], [], patience)[0]:
            self.told = bool(self._take())
        return self.told

    def ask(self, order: Order) -> Chunk:
        """Have an order read.

        Raises:
            EOFError: where the process dies of it.
            OSError: where it is dead.
        """
        self._give(order)
        chunk = self._take()
        if not isinstance(chunk, Chunk):
            raise EOFError(f"answered {chunk!r}")  # noqa: TRY004 - as good as dead
        return chunk

    def end(self) -> int:
        """Wait until it has ended; give its status."""
        self.process.communicate()
        return self.process.returncode

    def _give(self, what: object) -> None:
        pickle.dump(what, self.orders)
        self.orders.flush()

    def _take(self) -> object:
        return pickle.load(self.answers)  # noqa: S301 - of our own process


def serve() -> None:
    """Read what comes on the standard input, as a process of its own, until it ends."""
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    memory, shape, transform = pickle.load(orders)  # noqa: S301 - of the process that started this one
    rows = map_rows(memory, shape)
    keep_freed_memory()
    decode(_draw_probe(), transform)  # imports what that takes
    answer: object = True
    with contextlib.suppress(EOFError, BrokenPipeError):  # who started this process is gone, or wants no more
        while True:
            pickle.dump(answer, answers)
            answers.flush()
            answer = read_chunk(rows, pickle.load(orders))  # noqa: S301 - as above


def map_rows(memory: int | None, shape: tuple[int, ...]) -> Pixels:
    """Map memory that processes share as rows of pixels; without any, take this process's own."""
    if memory is None:
        return np.empty(shape, np.uint8)
    size = int(np.prod(shape))
    os.ftruncate(memory, size)
    rows: Pixels = np.frombuffer(mmap.mmap(memory, size), np.uint8).reshape(shape)
    return rows


def _draw_probe() -> bytes:
    to = io.BytesIO()
    Image.new("RGB", (32, 32)).save(to, "JPEG")
    return to.getvalue()
