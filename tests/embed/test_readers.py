"""Reader processes: they yield the same pixels as threads, and one that dies costs at most the image that killed it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg  # noqa: F401 - before the tests put another on the path

from storage.recipe import Transform
from storage.sources.open_image import LocatedImage, Locator
from tasks.embed.pipeline import EmbeddedBatch, embed_files, free_rings
from tasks.embed.read_chunk import Chunk, Order
from tasks.embed.reader_process import ReaderProcess
from tasks.embed.readers import Readers
from tasks.encoder.embedder import Embedder, Lanes
from tasks.encoder.pixels.transform import Pixels
from tasks.encoder.stages import Meter
from tests.embed.test_pipeline import RECIPE, average, gather, item_of, source_of
from tests.pictures import write_image

ROOT = Path(__file__).parents[2]
TRANSFORM = Transform(8, (8, 8), squash=False, interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)
SMOOTH = replace(TRANSFORM, interpolation="bilinear")
DEADLY = b"deadly"
KILLING_DECODER = f"""
import os, signal
def decode_jpeg_header(data):
    if data.endswith({DEADLY!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("left to Pillow")
"""
RUN = """
import sys, time
from tests.embed.test_readers import open_readers, wait_for_process
readers = open_readers()
print(wait_for_process(readers).process.pid, flush=True)
time.sleep(600)
"""


def pin_nothing(_: Pixels) -> Callable[[], None]:
    return lambda: None


def open_readers(transform: Transform = TRANSFORM) -> Readers:
    return Readers(1, transform, 64, pin_nothing, processes=True)


def wait_for_process(readers: Readers) -> ReaderProcess:
    """Wait until the pool's only thread has a process that is ready; return it."""
    process = readers.pool.submit(readers.get_process, 60.0).result()
    assert process is not None
    return process


def read(readers: Readers, folder: Path, items: list[LocatedImage]) -> Chunk:
    return readers.pool.submit(
        readers.read, Order(source_of(folder), readers.transform, 0, tuple(items), 0, last=True)
    ).result()


def write_images(folder: Path, count: int) -> list[LocatedImage]:
    return [item_of(write_image(folder / f"{number:02}.png", "red", number)) for number in range(count)]


def embed(folder: Path, items: list[LocatedImage], *, processes: bool) -> EmbeddedBatch:
    embedder = Embedder(RECIPE, average, batch=4, lanes=Lanes(2, processes=processes))
    rounds = []
    for _ in range(2):
        rounds.append(gather(embed_files(source_of(folder), embedder, items, 1, Meter())))
        if processes:
            wait_for_process(free_rings(embedder)[-1].readers)
    np.testing.assert_array_equal(rounds[0].matrix, rounds[1].matrix)
    return rounds[1]


def test_processes_yield_the_same_vectors_and_failures_as_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [*write_images(tmp_path, 30), LocatedImage(str(uuid.uuid4()), Locator("missing.png"))]
    monkeypatch.setattr("tasks.embed.pipeline.PROCESSES_FROM", 1)
    by_processes, by_threads = (embed(tmp_path, items, processes=processes) for processes in (True, False))
    assert by_processes.image_ids == by_threads.image_ids
    assert by_processes.failures == by_threads.failures
    np.testing.assert_array_equal(by_processes.matrix, by_threads.matrix)


def test_a_process_that_is_killed_is_replaced_and_its_images_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items, readers = write_images(tmp_path, 8), open_readers()
    first = wait_for_process(readers)
    os.kill(first.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
    assert read(readers, tmp_path, items).failures == {}
    assert wait_for_process(readers).process.pid != first.process.pid
    assert "was killed by signal 9: reading its 8 images again" in caplog.text
    assert [bool(row.any()) for row in readers.rows[:8]] == [True] * 8


def test_an_image_that_kills_its_reader_is_the_only_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_image(tmp_path / f"{number}.jpg", "red", number) for number in range(8)]
    paths[3].write_bytes(paths[3].read_bytes() + DEADLY)
    replace_decoder(tmp_path / "fake", KILLING_DECODER, monkeypatch)
    readers = open_readers(SMOOTH)
    wait_for_process(readers)
    chunk = read(readers, tmp_path, [item_of(path) for path in paths])
    assert {number: (failure.path, failure.stage, failure.reason) for number, failure in chunk.failures.items()} == {
        3: ("3.jpg", "decode", "its reader process was killed by signal 9")
    }
    assert [bool(row.any()) for row in readers.rows[:8]] == [number != 3 for number in range(8)]
    assert chunk.bytes == sum(path.stat().st_size for path in paths if path != paths[3])


def test_threads_read_if_processes_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    items = write_images(tmp_path, 8)
    replace_decoder(tmp_path / "fake", "raise RuntimeError('built for another machine')", monkeypatch)
    readers = open_readers(SMOOTH)
    assert readers.pool.submit(readers.get_process, 60.0).result() is None
    assert read(readers, tmp_path, items).failures == {}
    assert "exited with status 1 before its first image: reading in threads" in caplog.text


def test_no_process_outlives_a_run_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        reader = Path(f"/proc/{int(run.stdout.readline())}")
        assert reader.exists()
        run.kill()
    deadline = time.monotonic() + 30
    while reader.exists() and "\nState:\tZ" not in (reader / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replace_decoder(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the JPEG decoder in processes that start from now on; this process has already imported the real one."""
    folder.mkdir()
    (folder / "simplejpeg.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def test_concurrent_runs_of_one_embedder_do_not_write_into_each_others_rows(tmp_path: Path) -> None:
    items = write_images(tmp_path, 24)
    embedder = Embedder(RECIPE, average, batch=4, lanes=Lanes(2))
    first = embed_files(source_of(tmp_path), embedder, items, 1, Meter())
    first_batch = next(first)
    second = gather(embed_files(source_of(tmp_path), embedder, list(reversed(items)), 1, Meter()))
    rest = gather(first)
    assert len(free_rings(embedder)) == 2
    np.testing.assert_array_equal(np.concatenate([first_batch.matrix, rest.matrix]), second.matrix[::-1])


def test_the_rows_of_an_interrupted_run_are_not_reused(tmp_path: Path) -> None:
    items = write_images(tmp_path, 24)
    embedder = Embedder(RECIPE, average, batch=4, lanes=Lanes(2))
    interrupted = embed_files(source_of(tmp_path), embedder, items, 1, Meter())
    next(interrupted)
    del interrupted
    assert not free_rings(embedder)
    complete = gather(embed_files(source_of(tmp_path), embedder, items, 1, Meter()))
    np.testing.assert_array_equal(complete.matrix, embed(tmp_path, items, processes=False).matrix)
