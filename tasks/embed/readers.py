"""Readers: threads that fill rows of pixels, each by itself or through a process of its own.

On many cores, threads spend more time waiting for the interpreter's lock than decoding; processes do not, and they
write into the same shared rows.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from storage.plural import pluralize
from storage.recipe import Transform
from tasks.embed.read_chunk import Chunk, Order, fail, read_chunk
from tasks.embed.reader_process import DIED, ReaderProcess, map_rows
from tasks.encoder.embedder import Pin

logger = logging.getLogger(__name__)


class Readers:
    """A pool of threads, and the rows [capacity, height, width, 3], uint8, that they fill.

    With ``processes``, each thread delegates to a process, and reads by itself until that is ready. A process that dies
    is replaced, and its images are read again one by one; an image that kills the replacement too is a failure.
    """

    def __init__(self, count: int, transform: Transform, capacity: int, pin: Pin, *, processes: bool) -> None:
        """Allocate the rows; processes start with the first orders."""
        self.count, self.transform, self.processes = count, transform, processes
        self.pool = ThreadPoolExecutor(count, "reader")
        self.memory = os.memfd_create("frostline") if processes and hasattr(os, "memfd_create") else None
        self.rows = map_rows(self.memory, (capacity, *transform.crop, 3))
        self.local = threading.local()
        weakref.finalize(self, _release, pin(self.rows), self.memory)

    def read(self, order: Order) -> Chunk:
        """Fill the rows of an order; images that cannot be read or decoded are the chunk's failures."""
        process = self.get_process(0)
        if process is None:
            return read_chunk(self.rows, order)
        try:
            return process.read(order)
        except DIED:
            images = pluralize(len(order.items), "image")
            logger.warning("a reader process %s: reading its %s again, one by one", self._reap(), images)
            singles = [
                replace(order, items=(item,), start=order.start + number) for number, item in enumerate(order.items)
            ]
            return _join(order, [self._read_single(single) for single in singles])

    def _read_single(self, order: Order) -> Chunk:
        process = self.get_process(None)
        if process is None:
            return read_chunk(self.rows, order)
        try:
            return process.read(order)
        except DIED:
            self.rows[order.start] = 0
            return Chunk(order, {0: fail(order.items[0], "decode", f"its reader process {self._reap()}")})

    def get_process(self, timeout: float | None) -> ReaderProcess | None:
        """Return this thread's process; None if it is not ready within this many seconds, or there is none.

        A timeout of None waits until the process is ready or has ended.
        """
        if self.memory is None:
            return None
        process: ReaderProcess | None = getattr(self.local, "process", None)
        try:
            if process is None:
                process = self.local.process = ReaderProcess(self.memory, self.rows.shape, self.transform)
            return process if process.is_ready(timeout) else None
        except DIED as error:
            ending = f"cannot start ({error})" if process is None else f"{self._reap()} before its first image"
            logger.warning("a reader process %s: reading in threads", ending)
            self.memory = None
            return None

    def _reap(self) -> str:
        """Remove this thread's process once it has ended; return how it ended."""
        status: int = self.local.process.end()
        del self.local.process
        return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _join(order: Order, singles: list[Chunk]) -> Chunk:
    """Merge the chunks of an order's single images."""
    failures = {number: chunk.failures[0] for number, chunk in enumerate(singles) if chunk.failures}
    reading, decoding = sum(chunk.reading for chunk in singles), sum(chunk.decoding for chunk in singles)
    return Chunk(order, failures, reading, decoding, sum(chunk.bytes for chunk in singles))


def _release(unpin: Callable[[], None], memory: int | None) -> None:
    unpin()
    if memory is not None:
        os.close(memory)
