"""Probing: a file that Pillow opens is an image; any other is one failure with a reason."""

import hashlib
import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from storage.names import SourceName
from storage.sources.open_image import Source, folder_source
from tasks.ingest.probe import read_files
from tasks.ingest.settings import IngestSettings
from tests.pictures import write_image

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:  # noqa: ANN401 - an encoder's options
    data = io.BytesIO()
    image.save(data, format_, **options)
    return data.getvalue()


def make_bomb() -> bytes:
    """Make a PNG of 60,000 x 60,000 pixels in 100 bytes."""

    def chunk(type_: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + type_ + data + struct.pack(">I", zlib.crc32(type_ + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def source_of(root: Path) -> Source:
    return folder_source(SourceName("photos"), root)


def read(root: Path, files: dict[str, bytes], max_pixels: int = 178_956_970) -> list[dict[str, Any]]:
    for name, data in files.items():
        (root / name).write_bytes(data)
    settings = IngestSettings(max_pixels=max_pixels, readers=2)
    rows: list[dict[str, Any]] = read_files(source_of(root), list(files), settings, lambda _: None).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("data", "format_", "mode"),
    [
        (encode(PHOTO, "JPEG"), "JPEG", "RGB"),
        (encode(PHOTO.convert("L"), "JPEG"), "JPEG", "L"),
        (encode(PHOTO.convert("CMYK"), "JPEG"), "JPEG", "CMYK"),
        (encode(PHOTO, "JPEG", progressive=True), "JPEG", "RGB"),
        (encode(PHOTO, "PNG"), "PNG", "RGB"),
        (encode(PHOTO.quantize(16), "PNG"), "PNG", "P"),
        (encode(PHOTO.convert("RGBA"), "PNG"), "PNG", "RGBA"),
        (encode(Image.fromarray(np.zeros((24, 32), np.uint16)), "PNG"), "PNG", "I;16"),
        (encode(PHOTO, "WEBP"), "WEBP", "RGB"),
        (encode(PHOTO, "GIF"), "GIF", "P"),
        (encode(PHOTO, "BMP"), "BMP", "RGB"),
        (encode(PHOTO, "TIFF"), "TIFF", "RGB"),
    ],
)
def test_a_file_that_pillow_opens_is_an_image(tmp_path: Path, data: bytes, format_: str, mode: str) -> None:
    (row,) = read(tmp_path, {"1.img": data})
    assert (row["format"], row["width"], row["height"], row["bytes"]) == (format_, 32, 24, len(data))
    assert row["mode"] == mode or format_ == "GIF"  # Pillow chooses RGB or P for a GIF's first frame
    assert (row["stage"], row["reason"]) == (None, None)


def test_an_images_identity_is_the_hash_of_its_bytes(tmp_path: Path) -> None:
    data = encode(PHOTO, "PNG")
    first, second = read(tmp_path, {"1.png": data, "2.jpg": data})
    assert first["image_id"] == second["image_id"] == UUID(bytes=hashlib.sha256(data).digest()[:16])


def test_the_content_decides_the_format_not_the_suffix(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"png.jpg": encode(PHOTO, "PNG")})
    assert (row["format"], row["stage"]) == ("PNG", None)


def test_a_truncated_jpeg_has_a_valid_header(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"1.jpg": encode(PHOTO, "JPEG")[:-200]})
    assert (row["format"], row["width"], row["stage"]) == ("JPEG", 32, None)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"this is not an image\n" * 20, "not an image"),
        ("zeros.jpg", bytes(5000), "not an image"),
        ("signature.png", b"\x89PNG\r\n\x1a\n", ""),
        ("start.jpg", b"\xff\xd8\xff\xe0", ""),
        ("bomb.png", make_bomb(), "decompression bomb"),
        ("program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an image"),
    ],
)
def test_a_file_that_is_not_an_image_is_a_failure_with_a_reason(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    bad, good = read(tmp_path, {name: data, "good.png": encode(PHOTO, "PNG")})
    assert (bad["path"], bad["image_id"], bad["stage"]) == (name, None, "probe")
    assert bad["reason"]
    assert reason in bad["reason"]
    assert (good["format"], good["stage"]) == ("PNG", None)


def test_an_oversized_image_is_a_failure_that_names_its_size(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"1.png": encode(PHOTO, "PNG")}, max_pixels=32 * 24 - 1)
    assert (row["image_id"], row["stage"]) == (None, "probe")
    assert row["reason"] == "32 x 24 is more than 767 pixels: may be a decompression bomb"


def test_an_image_of_exactly_the_maximum_size_is_accepted(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"1.png": encode(PHOTO, "PNG")}, max_pixels=32 * 24)
    assert row["stage"] is None


def test_a_missing_file_is_a_read_failure(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", "red", 0)
    gone, good = read_files(
        source_of(tmp_path), ["gone.png", "1.png"], IngestSettings(readers=1), lambda _: None
    ).to_pylist()
    assert (gone["stage"], gone["reason"]) == ("read", "No such file or directory")
    assert good["stage"] is None


def test_a_folder_in_place_of_a_file_is_a_read_failure(tmp_path: Path) -> None:
    (tmp_path / "1.png").mkdir()
    (row,) = read_files(source_of(tmp_path), ["1.png"], IngestSettings(readers=1), lambda _: None).to_pylist()
    assert row["stage"] == "read"


def test_rows_are_in_the_order_of_the_paths_and_progress_counts_each(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        write_image(tmp_path / name, "red", number)
    advances: list[int] = []
    rows = read_files(source_of(tmp_path), names[::-1], IngestSettings(readers=8), advances.append)
    assert rows["path"].to_pylist() == names[::-1]
    assert sum(advances) == 30


def test_no_paths_yield_no_rows_and_leave_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    assert read_files(source_of(tmp_path), [], IngestSettings(), lambda _: None).num_rows == 0
    assert threading.active_count() == before
