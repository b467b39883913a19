"""Readers with processes of their own: the same pixels, and one that dies costs at most the image that kills it."""

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
import simplejpeg  # noqa: F401 - before another is planted

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
KILLS = f"""
import os, signal
def decode_jpeg_header(data):
    if data.endswith({DEADLY!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("Pillow may decide")
"""
ORPHANS = """
import sys, time
from tests.embed.test_readers import open_readers, wait_for_process
readers = open_readers()
print(wait_for_process(readers).process.pid, flush=True)
time.sleep(600)
"""


def pin_nothing(_: Pixels) -> Callable[[], None]:
    return lambda: None


def open_readers(transform: Transform = TRANSFORM) -> Readers:
    return Readers(1, transform, 64, pin_nothing, apart=True)


def wait_for_process(readers: Readers) -> ReaderProcess:
    """Wait until the pool's only thread has a process that is ready."""
    process = readers.pool.submit(readers.find_process, 60.0).result()
    assert process is not None
    return process


def read(readers: Readers, folder: Path, items: list[LocatedImage]) -> Chunk:
    return readers.pool.submit(
        readers.read, Order(source_of(folder), readers.transform, 0, tuple(items), 0, last=True)
    ).result()


def write_images(folder: Path, count: int) -> list[LocatedImage]:
    return [item_of(write_image(folder / f"{number:02}.png", "red", number)) for number in range(count)]


def embed(folder: Path, items: list[LocatedImage], *, apart: bool) -> EmbeddedBatch:
    embedder = Embedder(RECIPE, average, batch=4, lanes=Lanes(2, apart=apart))
    rounds = []
    for _ in range(2):
        rounds.append(gather(embed_files(source_of(folder), embedder, items, 1, Meter())))
        if apart:
            wait_for_process(free_rings(embedder)[-1].readers)
    np.testing.assert_array_equal(rounds[0].matrix, rounds[1].matrix)
    return rounds[1]


def test_processes_give_the_vectors_and_failures_that_threads_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [*write_images(tmp_path, 30), LocatedImage(str(uuid.uuid4()), Locator("missing.png"))]
    monkeypatch.setattr("tasks.embed.pipeline.APART", 1)
    apart, together = (embed(tmp_path, items, apart=apart) for apart in (True, False))
    assert apart.image_ids == together.image_ids
    assert apart.failures == together.failures
    np.testing.assert_array_equal(apart.matrix, together.matrix)


def test_a_process_that_is_killed_is_replaced_and_its_images_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items, readers = write_images(tmp_path, 8), open_readers()
    first = wait_for_process(readers)
    os.kill(first.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
    assert read(readers, tmp_path, items).failures == {}
    assert wait_for_process(readers).process.pid != first.process.pid
    assert "died of signal 9: its 8 images are read again" in caplog.text
    assert [bool(row.any()) for row in readers.rows[:8]] == [True] * 8


def test_an_image_that_kills_its_reader_costs_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_image(tmp_path / f"{number}.jpg", "red", number) for number in range(8)]
    paths[3].write_bytes(paths[3].read_bytes() + DEADLY)
    plant_decoder(tmp_path / "planted", KILLS, monkeypatch)
    readers = open_readers(SMOOTH)
    wait_for_process(readers)
    chunk = read(readers, tmp_path, [item_of(path) for path in paths])
    assert {number: (failure.path, failure.stage, failure.reason) for number, failure in chunk.failures.items()} == {
        3: ("3.jpg", "decode", "its reader died of signal 9")
    }
    assert [bool(row.any()) for row in readers.rows[:8]] == [number != 3 for number in range(8)]
    assert chunk.bytes == sum(path.stat().st_size for path in paths if path != paths[3])


def test_where_processes_cannot_start_threads_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    items = write_images(tmp_path, 8)
    plant_decoder(tmp_path / "planted", "raise RuntimeError('built for another machine')", monkeypatch)
    readers = open_readers(SMOOTH)
    assert readers.pool.submit(readers.find_process, 60.0).result() is None
    assert read(readers, tmp_path, items).failures == {}
    assert "ended with status 1 before its first image: reading in threads" in caplog.text


def test_no_process_outlives_a_run_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        reader = Path(f"/proc/{int(run.stdout.readline())}")
        assert reader.exists()
        run.kill()
    until = time.monotonic() + 30
    while reader.exists() and "\nState:\tZ" not in (reader / "status").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def plant_decoder(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module before the JPEG decoder on the path of processes that start from now on; this one has its own."""
    folder.mkdir()
    (folder / "simplejpeg.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def test_two_runs_of_one_embedder_at_a_time_do_not_write_into_each_other_s_rows(tmp_path: Path) -> None:
    items = write_images(tmp_path, 24)
    embedder = Embedder(RECIPE, average, batch=4, lanes=Lanes(2))
    first = embed_files(source_of(tmp_path), embedder, items, 1, Meter())
    begun = next(first)
    second = gather(embed_files(source_of(tmp_path), embedder, list(reversed(items)), 1, Meter()))
    rest = gather(first)
    assert len(free_rings(embedder)) == 2
    np.testing.assert_array_equal(np.concatenate([begun.matrix, rest.matrix]), second.matrix[::-1])


def test_after_a_run_that_broke_the_next_has_rows_of_its_own(tmp_path: Path) -> None:
    items = write_images(tmp_path, 24)
    broken = Embedder(RECIPE, average, batch=4, lanes=Lanes(2))
    begun = embed_files(source_of(tmp_path), broken, items, 1, Meter())
    next(begun)
    del begun
    assert not free_rings(broken)
    whole = gather(embed_files(source_of(tmp_path), broken, items, 1, Meter()))
    np.testing.assert_array_equal(whole.matrix, embed(tmp_path, items, apart=False).matrix)
