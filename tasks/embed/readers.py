"""Readers: threads that fill rows of pixels, each by itself or through a process of its own.

On many cores, threads wait for the interpreter's lock more than they decode; processes write into the same rows.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from storage.recipe import Transform
from tasks.embed.read_chunk import Chunk, Order, fail, read_chunk
from tasks.embed.reader_process import DIED, ReaderProcess, map_rows
from tasks.encoder.embedder import Pin

logger = logging.getLogger(__name__)


class Readers:
    """A pool of threads, and the rows [places, height, width, 3], uint8, that they fill.

    ``apart``, each thread has a process read, and reads by itself until that is ready. A process that dies is replaced,
    and its images are read one by one: one that kills the next process, too, fails.
    """

    def __init__(self, count: int, transform: Transform, places: int, pin: Pin, *, apart: bool) -> None:
        """Take the memory; the processes start with the first orders."""
        self.count, self.transform, self.apart = count, transform, apart
        self.pool = ThreadPoolExecutor(count, "reader")
        self.memory = os.memfd_create("frostline") if apart and hasattr(os, "memfd_create") else None
        self.rows = map_rows(self.memory, (places, *transform.crop, 3))
        self.own = threading.local()
        weakref.finalize(self, _let_go, pin(self.rows), self.memory)

    def read(self, order: Order) -> Chunk:
        """Fill the rows of an order."""
        process = self.find_process(0)
        if process is None:
            return read_chunk(self.rows, order)
        try:
            return process.read(order)
        except DIED:
            logger.warning("a reader %s: its %d images are read again, one by one", self._bury(), len(order.items))
            singles = [replace(order, items=(item,), at=order.at + number) for number, item in enumerate(order.items)]
            return _join(order, [self._read_single(single) for single in singles])

    def _read_single(self, order: Order) -> Chunk:
        process = self.find_process(None)
        if process is None:
            return read_chunk(self.rows, order)
        try:
            return process.read(order)
        except DIED:
            self.rows[order.at] = 0
            return Chunk(order, {0: fail(order.items[0], "decode", f"its reader {self._bury()}")})

    def find_process(self, patience: float | None) -> ReaderProcess | None:
        """Give this thread's process; None where it is not ready in so many seconds, or there is none."""
        if self.memory is None:
            return None
        process: ReaderProcess | None = getattr(self.own, "process", None)
        try:
            if process is None:
                process = self.own.process = ReaderProcess(self.memory, self.rows.shape, self.transform)
            return process if process.is_ready(patience) else None
        except DIED as error:
            ended = str(error) if process is None else self._bury()
            logger.warning("a reader's process %s before its first image: reading in threads", ended)
            self.memory = None
            return None

    def _bury(self) -> str:
        """Forget this thread's process; tell how it ended."""
        status: int = self.own.process.end()
        del self.own.process
        return f"died of signal {-status}" if status < 0 else f"ended with status {status}"


def _join(order: Order, singles: list[Chunk]) -> Chunk:
    """Make one chunk of those of single images."""
    failures = {number: chunk.failures[0] for number, chunk in enumerate(singles) if chunk.failures}
    reading, decoding = sum(chunk.reading for chunk in singles), sum(chunk.decoding for chunk in singles)
    return Chunk(order, failures, reading, decoding, sum(chunk.bytes for chunk in singles))


def _let_go(unpin: Callable[[], None], memory: int | None) -> None:
    unpin()
    if memory is not None:
        os.close(memory)
