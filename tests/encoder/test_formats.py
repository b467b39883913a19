"""What each format means: orientation, depth, photometric interpretation and transparency; metadata decide nothing."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.recipe import Interpolation, Transform
from tasks.encoder.pixels.budget import DEFAULT
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.picture import Picture, load_picture, open_picture
from tasks.encoder.pixels.transform import Pixels
from tests.encoder.test_decode import encode, photo, pixels, smooth

CASES = Path(__file__).with_name("cases")
NAMES = sorted(path.name for path in CASES.iterdir() if not path.stem.endswith(".expected"))
JPEG_OFF, OFF = 8, 2


def png(size: tuple[int, int], depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG whose rows are packed and have no filter."""
    header = struct.pack(">IIBBBBB", size[0], size[1], depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Put segments at the beginning of a JPEG."""
    made = [bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments]
    return data[:2] + b"".join(made) + data[2:]


def turned(**options: Any) -> bytes:  # noqa: ANN401 - an encoder's options
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = smooth(32, 48).transpose(Image.Transpose.ROTATE_90)
    return encode(stored, "JPEG", exif=exif, quality=100, subsampling=0, **options)


def no_resize(size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Transform:
    return Transform(min(size), size, squash=False, interpolation=interpolation, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("name", NAMES)
def test_each_case_has_its_right_pixels(name: str) -> None:
    path = CASES / name
    expected = np.asarray(Image.open(path.with_suffix(".expected.png")).convert("RGB")).astype(int)
    given = decode(path.read_bytes(), no_resize(expected.shape[:2]))
    assert np.abs(given - expected).max() <= (JPEG_OFF if path.suffix == ".jpg" else OFF)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_exif_behind_any_number_of_other_segments_turns_a_jpeg(interpolation: Interpolation) -> None:
    data = with_segments(turned(), (0xE2, b"ICC_PROFILE\0" + bytes(60_000)), (0xE2, b"ICC_PROFILE\0" + bytes(60_000)))
    given = decode(data, no_resize((32, 48), interpolation)).astype(int)
    assert np.abs(given - np.asarray(smooth(32, 48))).max() <= JPEG_OFF


def test_broken_exif_of_a_jpeg_leaves_its_pixels() -> None:
    picture = smooth(32, 48)
    data = with_segments(encode(picture, "JPEG", quality=100, subsampling=0), (0xE1, b"Exif\0\0no TIFF header at all"))
    assert np.abs(pixels(data, (32, 48)).astype(int) - np.asarray(picture)).max() <= JPEG_OFF


def test_a_jpeg_with_broken_exif_is_turned_by_its_xmp() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    stored = smooth(32, 48).transpose(Image.Transpose.ROTATE_90)
    data = encode(stored, "JPEG", quality=100, subsampling=0)
    data = with_segments(data, (0xE1, b"Exif\0\0no TIFF header at all"), (0xE1, xmp))
    assert np.abs(pixels(data, (32, 48)).astype(int) - np.asarray(smooth(32, 48))).max() <= JPEG_OFF


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_xmp_turns_other_formats(kind: str) -> None:
    stored = smooth(32, 48).transpose(Image.Transpose.ROTATE_90)
    xmp = b'<x tiff:Orientation="6"/>'
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        data = encode(stored, kind, pnginfo=info)
    else:
        data = encode(stored, kind, **({"lossless": True, "xmp": xmp} if kind == "WEBP" else {"tiffinfo": {700: xmp}}))
    assert np.array_equal(pixels(data, (32, 48)), np.asarray(smooth(32, 48)))


def test_broken_exif_of_a_webp_leaves_its_pixels() -> None:
    picture = smooth(32, 48)
    data = encode(picture, "WEBP", lossless=True, exif=b"Exif\0\0no TIFF header at all")
    assert np.array_equal(pixels(data, (32, 48)), np.asarray(picture))


@pytest.mark.parametrize(
    "chunk", [(b"pHYs", b"\0"), (b"eXIf", b""), (b"tEXt", bytes(9)), (b"sRGB", b""), (b"iCCP", b"x")]
)
def test_a_broken_ancillary_chunk_leaves_the_pixels_of_a_png(chunk: tuple[bytes, bytes]) -> None:
    assert pixels(png((2, 1), 8, 0, b"\0\x07\x09", chunk), (1, 2))[:, :, 0].tolist() == [[7, 9]]


def test_a_wrong_checksum_of_text_leaves_the_pixels_of_a_png() -> None:
    data = png((2, 1), 8, 0, b"\0\x07\x09", (b"tEXt", b"Comment\0nice"))
    assert pixels(data.replace(b"nice", b"evil"), (1, 2))[:, :, 0].tolist() == [[7, 9]]


@pytest.mark.parametrize(
    ("depth", "row", "clear", "expected"),
    [
        (1, b"\0\x40", 1, [0, 255]),
        (2, b"\0\x60", 2, [85, 255]),
        (4, b"\0\x3c", 3, [255, 204]),
        (8, b"\0\x03\x0c", 3, [255, 12]),
        (16, b"\0\x03\x00\x03\x01", 0x0300, [255, 3]),
    ],
)
def test_the_transparent_grey_of_each_depth_is_white(depth: int, row: bytes, clear: int, expected: list[int]) -> None:
    data = png((2, 1), depth, 0, row, (b"tRNS", struct.pack(">H", clear)))
    assert pixels(data, (1, 2))[:, :, 0].tolist() == [expected]


def test_the_transparent_color_of_sixteen_bits_is_compared_in_full() -> None:
    row = b"\0" + bytes([1, 0, 2, 0, 3, 0]) + bytes([1, 0, 2, 0, 3, 1])
    data = png((2, 1), 16, 2, row, (b"tRNS", struct.pack(">HHH", 0x100, 0x200, 0x300)))
    assert pixels(data, (1, 2)).tolist() == [[[255, 255, 255], [1, 2, 3]]]


@pytest.mark.parametrize("most", [1, 100, 255, 256, 1023, 4095, 65535])
def test_a_pgm_s_levels_reach_from_black_to_white(most: int) -> None:
    levels = np.linspace(0, most, 3).astype(">u2" if most > 255 else np.uint8)
    given = pixels(b"P5 # a comment\n3 1\n%d\n" % most + levels.tobytes(), (1, 3))
    assert np.abs(given[0, :, 0] - levels.astype(float) / most * 255).max() <= 1
    plain = b"P2\n3 1\n%d\n" % most + b" ".join(b"%d" % level for level in levels)
    assert np.abs(pixels(plain, (1, 3)).astype(int) - given).max() <= 1


def test_a_ppm_of_ten_bits_keeps_its_colors_and_a_short_one_is_refused() -> None:
    data = b"P6 2 1 1023\n" + np.array([1023, 0, 0, 0, 1023, 512], ">u2").tobytes()
    assert pixels(data, (1, 2)).tolist() == [[[255, 0, 0], [0, 255, 128]]]
    with pytest.raises(ValueError, match="truncated"):
        pixels(data[:-1], (1, 2))


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw"])
def test_white_as_zero_is_white_at_sixteen_bits_however_compressed(compression: str | None) -> None:
    levels = np.array([[0, 65535, 0x1200]], np.uint16)
    data = bytearray(encode(Image.fromarray(levels), "TIFF", compression=compression))
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 1))  # photometric interpretation
    data[at + 8] = 0
    assert pixels(bytes(data), (1, 3))[:, :, 0].tolist() == [[255, 0, 255 - 0x12]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16"])
def test_an_image_in_bands_has_the_pixels_of_the_whole(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = (
        photo(90, 70) if mode != "I;16" else Image.fromarray(np.arange(6300, dtype=np.uint16).reshape(90, 70) * 10)
    )
    image = picture if mode == "I;16" else picture.convert(mode)
    if mode == "RGBA":
        image.putalpha(picture.convert("L"))
    kind = "TIFF" if mode == "CMYK" else "PNG"
    data = encode(image, kind)
    with open_picture(data, DEFAULT) as opened:
        loaded = load_picture(opened, data)
    whole, box = Picture(loaded.stored, orientation, loaded.convert), (3.3, 4.4, 61.2, 60.1)

    def render() -> list[Pixels]:
        how = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        return [np.asarray(whole.resize((31, 23), each, at)) for each in how for at in (None, box)]

    expected = render()
    monkeypatch.setattr("tasks.encoder.pixels.picture.BAND", 700)
    for band, one in zip(render(), expected, strict=True):
        np.testing.assert_array_equal(band, one)


@pytest.mark.parametrize(
    ("interpolation", "orientation"),
    [("nearest", 1), ("lanczos", 1), ("bilinear", 3), ("bicubic", 6), ("nearest", 8), ("lanczos", 5)],
)
def test_a_jpeg_that_torch_does_not_resize_has_exactly_pillow_s_pixels(
    interpolation: Interpolation, orientation: int
) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(173, 260), "JPEG", quality=80, exif=exif)
    asked = Transform(64, (60, 60), squash=False, interpolation=interpolation, mean=(0.5,) * 3, std=(0.5,) * 3)
    with Image.open(io.BytesIO(data)) as image:
        upright = encode(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decode(data, asked), decode(upright, asked))
