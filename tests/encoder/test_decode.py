"""Decoding: every format to the same RGB, and pixel for pixel what torchvision's own transforms give."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.recipe import Interpolation, Transform
from tasks.encoder.pixels.decode import decode, decode_all
from tasks.encoder.pixels.transform import Pixels

HEIGHT, WIDTH = 20, 30
PHOTO = Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
WHITE, RED = [255, 255, 255], [255, 0, 0]


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - an encoder's options
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def transform(
    resize: int, crop: tuple[int, int], interpolation: Interpolation = "bilinear", *, squash: bool = False
) -> Transform:
    return Transform(resize, crop, squash, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def pixels(data: bytes, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """Decode without a resize or a cut, for images of that size."""
    return decode(data, transform(min(size), size))


def smooth(height: int, width: int) -> Image.Image:
    """Make a picture without noise, which lossy formats keep nearly as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 6, columns * 6, (rows + columns) * 3], axis=2).astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_lossless_format_gives_its_pixels(kind: str) -> None:
    assert np.array_equal(pixels(encode(PHOTO, kind)), np.asarray(PHOTO))


def test_lossless_webp_gives_its_pixels() -> None:
    assert np.array_equal(pixels(encode(PHOTO, "WEBP", lossless=True)), np.asarray(PHOTO))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_lossy_format_gives_nearly_its_pixels(kind: str) -> None:
    picture = smooth(HEIGHT, WIDTH)
    off = pixels(encode(picture, kind, quality=95)).astype(int) - np.asarray(picture)
    assert np.abs(off).mean() < 6


def test_the_pixels_are_eight_bit_rgb_of_the_crop_s_size() -> None:
    given = decode(encode(PHOTO.convert("L")), transform(16, (12, 14)))
    assert given.shape == (12, 14, 3)
    assert given.dtype == np.uint8


def test_grey_gives_three_equal_channels() -> None:
    grey = PHOTO.convert("L")
    assert np.array_equal(pixels(encode(grey)), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))


def test_one_bit_gives_black_and_white() -> None:
    bits = PHOTO.convert("1")
    assert np.array_equal(pixels(encode(bits))[:, :, 0], np.asarray(bits) * np.uint8(255))


def test_a_palette_gives_its_colors() -> None:
    palette = PHOTO.quantize(16)
    assert np.array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(("alpha", "green_and_blue"), [(255, 0), (128, 127), (0, 255)])
def test_alpha_lies_over_white(alpha: int, green_and_blue: int) -> None:
    given = pixels(encode(Image.new("RGBA", (4, 4), (255, 0, 0, alpha))), (4, 4))
    assert (given == np.array([255, green_and_blue, green_and_blue])).all()


def test_grey_with_alpha_lies_over_white() -> None:
    assert (pixels(encode(Image.new("LA", (4, 4), (0, 0))), (4, 4)) == 255).all()


def test_a_palette_s_transparent_color_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, transparency=1), (1, 2)).tolist() == [[RED, WHITE]]


def test_a_transparent_color_of_rgb_is_white() -> None:
    image = Image.new("RGB", (2, 1), (255, 0, 0))
    image.putpixel((1, 0), (1, 2, 3))
    assert pixels(encode(image, transparency=(1, 2, 3)), (1, 2)).tolist() == [[RED, WHITE]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_loses_its_lower_eight_bits(kind: str) -> None:
    levels = np.append(np.arange(254) * 256, [255, 65535]).astype(np.uint16).reshape(16, 16)
    expected = np.append(np.arange(254), [0, 255]).reshape(16, 16)
    assert np.array_equal(pixels(encode(Image.fromarray(levels), kind), (16, 16))[:, :, 0], expected)


def test_big_endian_sixteen_bit_grey_is_read_as_such() -> None:
    big = Image.frombytes("I;16B", (2, 1), bytes([200, 1, 3, 255]))
    data = encode(big, "TIFF")
    assert pixels(data, (1, 2))[:, :, 0].tolist() == [[200, 3]]


def test_pixels_without_an_agreed_range_are_refused() -> None:
    with pytest.raises(ValueError, match="mode F"):
        pixels(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), (4, 4))
    with pytest.raises(ValueError, match="mode I "):
        pixels(encode(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), (4, 4))


def test_cmyk_gives_its_colors() -> None:
    for color in ([255, 0, 0], [0, 255, 0], [0, 0, 255], WHITE, [0, 0, 0]):
        data = encode(Image.new("RGB", (16, 16), tuple(color)).convert("CMYK"), "JPEG", quality=100)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "CMYK"
        assert np.abs(pixels(data, (16, 16)).astype(int) - color).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_exif_turns_equals_the_upright_one(kind: str, orientation: int) -> None:
    # What undoes each orientation, in reverse.
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = smooth(32, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    given = pixels(encode(stored, kind, exif=exif, **options), (32, 48)).astype(int)
    assert np.abs(given - np.asarray(upright)).max() <= (8 if kind == "JPEG" else 0)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data, (4, 4)) == RED).all(), kind


@pytest.mark.parametrize("size", [(1001, 10), (10, 1001)])
def test_an_extremely_long_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="longer than 100 times"):
        decode(encode(Image.new("RGB", size)), transform(8, (8, 8)))


def test_an_image_a_hundred_times_as_long_as_wide_is_taken() -> None:
    assert decode(encode(Image.new("RGB", (1000, 10))), transform(8, (8, 8))).shape == (8, 8, 3)


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_bytes_are_refused(kind: str, kept: float) -> None:
    data = encode(PHOTO, kind)
    with pytest.raises(Exception):  # noqa: B017, PT011 - any kind, as decode says
        pixels(data[: int(kept * len(data))])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("size", "resize", "crop"),
    [
        ((500, 375), 256, 224),
        ((375, 500), 256, 224),
        ((333, 517), 232, 224),
        ((101, 97), 36, 31),
        ((64, 64), 64, 64),
        ((30, 41), 256, 224),
        ((223, 641), 235, 224),
    ],
)
def test_the_pixels_are_those_of_torchvision_s_own_transforms(
    interpolation: Interpolation, size: tuple[int, int], resize: int, crop: int
) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = Image.fromarray(np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), np.uint8))
    own = Compose([Resize(resize, InterpolationMode(interpolation)), CenterCrop(crop)])
    given = decode(encode(image), transform(resize, (crop, crop), interpolation))
    assert np.array_equal(given, np.asarray(own(image)))


def test_squashing_resizes_to_the_crop_whatever_the_shape() -> None:
    given = decode(encode(PHOTO), transform(99, (8, 12), "bicubic", squash=True))
    assert np.array_equal(given, np.asarray(PHOTO.resize((12, 8), Image.Resampling.BICUBIC)))


def test_a_squashed_image_is_not_cut() -> None:
    image = Image.new("RGB", (100, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    assert decode(encode(image), transform(10, (10, 10), "nearest", squash=True))[:, 0].min() == 255
    assert decode(encode(image), transform(10, (10, 10), "nearest")).max() == 0


def photo(height: int, width: int) -> Image.Image:
    """Draw smooth shapes with a little noise, as cameras see them."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(rows / (9 + 7 * channel)) * np.cos(columns / 13) for channel in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray((np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8))


def by_pillow(data: bytes, asked: Transform) -> Pixels:
    """Decode the same picture where the fast path does not go: as PNG."""
    with Image.open(io.BytesIO(data)) as image:
        return decode(encode(image.convert("RGB")), asked)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(375, 500), (768, 1024), (172, 307), (300, 200), (97, 83), (224, 224), (231, 999)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_pillow_s_pixels_to_one_level(
    interpolation: Interpolation, size: tuple[int, int], mode: str
) -> None:
    asked = transform(256, (224, 224), interpolation)
    data = encode(photo(*size).convert(mode), "JPEG", quality=90)
    assert np.abs(decode(data, asked).astype(int) - by_pillow(data, asked)).max() <= 1


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}])
def test_every_kind_of_jpeg_has_pillow_s_pixels_to_one_level(options: dict[str, Any]) -> None:
    asked = transform(235, (224, 224), "bicubic")
    data = encode(photo(375, 500), "JPEG", quality=80, **options)
    assert np.abs(decode(data, asked).astype(int) - by_pillow(data, asked)).max() <= 1


def test_a_squashed_jpeg_has_pillow_s_pixels_to_one_level() -> None:
    asked = transform(224, (224, 224), "bicubic", squash=True)
    data = encode(photo(300, 500), "JPEG")
    assert np.abs(decode(data, asked).astype(int) - by_pillow(data, asked)).max() <= 1


def test_scaled_decoding_gives_nearly_the_same_pixels_of_a_large_jpeg() -> None:
    asked = transform(256, (224, 224), "bicubic")
    data = encode(photo(1536, 2048), "JPEG", quality=90)
    scaled = decode(data, replace(asked, decoder="scaled"))
    off = np.abs(scaled.astype(int) - decode(data, asked))
    assert off.max() > 0
    assert off.mean() < 3


def test_scaled_decoding_leaves_a_small_jpeg_as_it_is() -> None:
    asked = transform(256, (224, 224), "bicubic")
    data = encode(photo(260, 300), "JPEG", quality=90)
    np.testing.assert_array_equal(decode(data, replace(asked, decoder="scaled")), decode(data, asked))


def test_a_truncated_jpeg_is_refused() -> None:
    data = encode(photo(375, 500), "JPEG")
    with pytest.raises(OSError, match="truncated"):
        decode(data[: len(data) // 2], transform(256, (224, 224)))


def by_gpu_s_way(asked: Transform) -> Transform:
    """Ask for the GPU's decoder; where there is no GPU, the CPU goes the same way."""
    return replace(asked, decoder="gpu")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(375, 500), (224, 224), (231, 999)])
def test_the_gpu_s_way_gives_nearly_pillow_s_pixels(interpolation: Interpolation, size: tuple[int, int]) -> None:
    asked = transform(256, (224, 224), interpolation)
    data = encode(photo(*size), "JPEG", quality=90)
    off = np.abs(decode(data, by_gpu_s_way(asked)).astype(int) - by_pillow(data, asked))
    assert off.max() <= 4
    assert off.mean() < 1


def test_what_is_no_plain_jpeg_has_the_same_pixels_whatever_the_decoder() -> None:
    asked = transform(32, (30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(photo(64, 48), "JPEG", exif=exif)
    for data in (
        encode(PHOTO),
        encode(PHOTO, "WEBP", lossless=True),
        encode(photo(64, 48).convert("CMYK"), "JPEG"),
        turned,
    ):
        np.testing.assert_array_equal(decode(data, by_gpu_s_way(asked)), decode(data, asked))


@pytest.mark.parametrize("decoder", ["full", "gpu"])
def test_each_of_several_images_is_decoded_as_if_it_were_alone(decoder: Any) -> None:  # noqa: ANN401 - a literal
    asked = replace(transform(64, (60, 60)), decoder=decoder)
    good = [encode(photo(90 + number, 120), "JPEG") for number in range(3)] + [encode(PHOTO)]
    broken = [good[0][:200], b"no image"]
    given = decode_all([good[0], broken[0], good[1], good[3], broken[1], good[2]], asked)
    assert [isinstance(each, Exception) for each in given] == [False, True, False, False, True, False]
    for each, data in zip((given[0], given[2], given[3], given[5]), (good[0], good[1], good[3], good[2]), strict=True):
        np.testing.assert_array_equal(each, decode(data, asked))
