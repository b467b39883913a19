"""The budget: no image takes more memory or time than one image may, and damaged ones are refused by every decoder."""

import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from storage.recipe import Decoder, Interpolation
from tasks.encoder.pixels.budget import Budget, BudgetError, ByteGate, TimedFile, hold_memory
from tasks.encoder.pixels.decode import decode
from tests.encoder.test_decode import encode, photo, transform
from tests.encoder.test_formats import png

ASKED = transform(32, (30, 30))


def icon_around(data: bytes) -> bytes:
    """Write an icon whose directory says 16 x 16."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(data), 22) + data


def test_an_image_that_needs_more_memory_than_one_may_have_is_refused() -> None:
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG"):
        data = encode(photo(400, 500), kind)
        with pytest.raises(BudgetError, match=r"needs .* MB to decode; embed.max_bytes allows 0 MB"):
            decode(data, ASKED, budget=Budget(bytes=100_000))
        assert decode(data, ASKED).shape == (30, 30, 3)


def test_a_webp_of_34_bytes_is_refused_by_its_pixels() -> None:
    data = bytes.fromhex("524946461a000000574542505650384c0e0000002ff3f3fc0c071011fd0f4444ff03")
    with pytest.raises(BudgetError, match=r"needs .* MB"):
        decode(data, ASKED)


def test_an_icon_is_refused_by_the_pixels_of_the_image_inside() -> None:
    inside = png((13_000, 13_000), 8, 6, b"")
    with pytest.raises(BudgetError, match="13000 x 13000 inside the icon"):
        decode(icon_around(inside), ASKED)
    assert decode(icon_around(encode(photo(64, 64).convert("RGBA"))), ASKED).shape == (30, 30, 3)


def test_a_jpeg_of_too_many_scans_is_refused_at_once() -> None:
    data = encode(photo(64, 64), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    began = time.thread_time()
    with pytest.raises(BudgetError, match="scans are more than 100"):
        decode(data[:-2] + scan * 6000 + data[-2:], ASKED)
    assert time.thread_time() - began < 1


def test_scans_within_a_thumbnail_do_not_count() -> None:
    data = encode(photo(64, 64), "JPEG")
    segment = b"\xff\xed" + struct.pack(">H", 402) + b"\xff\xda" * 200
    assert decode(data[:2] + segment + data[2:], ASKED).shape == (30, 30, 3)


def test_a_jpeg_with_fewer_bits_than_blocks_is_truncated() -> None:
    data = encode(photo(64, 64), "JPEG")
    at = data.index(b"\xff\xc0")
    large = data[: at + 5] + struct.pack(">HH", 9400, 9400) + data[at + 9 :]
    with pytest.raises(ValueError, match="truncated"):
        decode(large, ASKED)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("decoder", ["full", "scaled"])
@pytest.mark.parametrize("kind", ["plain", "progressive", "turned", "cmyk"])
def test_a_jpeg_that_ends_early_is_truncated_for_every_decoder(
    kind: str, decoder: Decoder, interpolation: Interpolation
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    picture = photo(300, 400).convert("CMYK" if kind == "cmyk" else "RGB")
    data = encode(picture, "JPEG", progressive=kind == "progressive", exif=exif)
    asked = replace(ASKED, decoder=decoder, interpolation=interpolation)
    for cut in (data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9"):
        with pytest.raises((OSError, ValueError), match="truncated"):
            decode(cut, asked)
    assert decode(data, asked).shape == (30, 30, 3)


def test_a_reader_out_of_time_is_stopped_at_its_next_read() -> None:
    ticks: Iterator[float] = iter([0.0, 1.0, 3.0])
    file = TimedFile(bytes(100), 2.0, lambda: next(ticks))
    assert file.read(10) == bytes(10)
    with pytest.raises(BudgetError, match="takes more than 2 s"):
        file.read(10)


def test_a_plain_image_that_takes_too_long_is_refused() -> None:
    data = b"P2\n2000 1000\n255\n" + b"7 " * 2_000_000
    with pytest.raises(BudgetError, match="takes more than"):
        decode(data, ASKED, budget=Budget(seconds=0.01))


def test_threads_hold_no_more_than_the_total_together_and_each_gets_its_turn() -> None:
    gate, held, most, lock = ByteGate(100), [0], [0], threading.Lock()

    def work(count: int) -> None:
        with gate.hold(count):
            with lock:
                held[0] += min(count, 100)
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with lock:
                held[0] -= min(count, 100)

    threads = [threading.Thread(target=work, args=(count,)) for count in (60, 30, 500, 20, 90, 10) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert most[0] <= 100
    assert held == [0]


def test_memory_is_given_back_after_an_error() -> None:
    budget = Budget(bytes=10, together=10)
    for _ in range(3):
        with pytest.raises(KeyError), hold_memory(10, budget):
            raise KeyError
    with hold_memory(10, budget):
        assert np.ones(1).sum() == 1
