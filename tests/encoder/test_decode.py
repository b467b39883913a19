"""Decoding: every format yields the same RGB, and the same pixels as torchvision's transforms."""

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


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - an encoder's options
    data = io.BytesIO()
    image.save(data, format_, **options)
    return data.getvalue()


def transform(
    resize: int, crop: tuple[int, int], interpolation: Interpolation = "bilinear", *, squash: bool = False
) -> Transform:
    return Transform(resize, crop, squash, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def pixels(data: bytes, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """Decode images of this size without resizing or cropping."""
    return decode(data, transform(min(size), size))


def smooth(height: int, width: int) -> Image.Image:
    """Make a picture without noise, which lossy formats hardly change."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 6, columns * 6, (rows + columns) * 3], axis=2).astype(np.uint8))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_decoded_exactly(format_: str) -> None:
    assert np.array_equal(pixels(encode(PHOTO, format_)), np.asarray(PHOTO))


def test_lossless_webp_is_decoded_exactly() -> None:
    assert np.array_equal(pixels(encode(PHOTO, "WEBP", lossless=True)), np.asarray(PHOTO))


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_formats_are_decoded_closely(format_: str) -> None:
    picture = smooth(HEIGHT, WIDTH)
    difference = pixels(encode(picture, format_, quality=95)).astype(int) - np.asarray(picture)
    assert np.abs(difference).mean() < 6


def test_pixels_are_8_bit_rgb_of_the_crops_size() -> None:
    decoded = decode(encode(PHOTO.convert("L")), transform(16, (12, 14)))
    assert decoded.shape == (12, 14, 3)
    assert decoded.dtype == np.uint8


def test_grayscale_becomes_three_equal_channels() -> None:
    gray = PHOTO.convert("L")
    assert np.array_equal(pixels(encode(gray)), np.repeat(np.asarray(gray)[:, :, None], 3, axis=2))


def test_one_bit_becomes_black_and_white() -> None:
    bits = PHOTO.convert("1")
    assert np.array_equal(pixels(encode(bits))[:, :, 0], np.asarray(bits) * np.uint8(255))


def test_a_palette_becomes_its_colors() -> None:
    palette = PHOTO.quantize(16)
    assert np.array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(("alpha", "green_and_blue"), [(255, 0), (128, 127), (0, 255)])
def test_alpha_is_composited_over_white(alpha: int, green_and_blue: int) -> None:
    decoded = pixels(encode(Image.new("RGBA", (4, 4), (255, 0, 0, alpha))), (4, 4))
    assert (decoded == np.array([255, green_and_blue, green_and_blue])).all()


def test_grayscale_with_alpha_is_composited_over_white() -> None:
    assert (pixels(encode(Image.new("LA", (4, 4), (0, 0))), (4, 4)) == 255).all()


def test_a_palettes_transparent_color_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, transparency=1), (1, 2)).tolist() == [[RED, WHITE]]


def test_an_rgb_images_transparent_color_becomes_white() -> None:
    image = Image.new("RGB", (2, 1), (255, 0, 0))
    image.putpixel((1, 0), (1, 2, 3))
    assert pixels(encode(image, transparency=(1, 2, 3)), (1, 2)).tolist() == [[RED, WHITE]]


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grayscale_loses_its_lower_8_bits(format_: str) -> None:
    levels = np.append(np.arange(254) * 256, [255, 65535]).astype(np.uint16).reshape(16, 16)
    expected = np.append(np.arange(254), [0, 255]).reshape(16, 16)
    assert np.array_equal(pixels(encode(Image.fromarray(levels), format_), (16, 16))[:, :, 0], expected)


def test_big_endian_16_bit_grayscale_is_read_as_such() -> None:
    big = Image.frombytes("I;16B", (2, 1), bytes([200, 1, 3, 255]))
    data = encode(big, "TIFF")
    assert pixels(data, (1, 2))[:, :, 0].tolist() == [[200, 3]]


def test_pixels_without_a_defined_range_are_refused() -> None:
    with pytest.raises(ValueError, match="mode F"):
        pixels(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), (4, 4))
    with pytest.raises(ValueError, match="mode I "):
        pixels(encode(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), (4, 4))


def test_cmyk_becomes_rgb() -> None:
    for color in ([255, 0, 0], [0, 255, 0], [0, 0, 255], WHITE, [0, 0, 0]):
        data = encode(Image.new("RGB", (16, 16), tuple(color)).convert("CMYK"), "JPEG", quality=100)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "CMYK"
        assert np.abs(pixels(data, (16, 16)).astype(int) - color).max() <= 3


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_with_an_exif_orientation_is_turned_upright(format_: str, orientation: int) -> None:
    inverses = {
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
    stored = upright.transpose(inverses[orientation]) if orientation in inverses else upright
    options = {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    decoded = pixels(encode(stored, format_, exif=exif, **options), (32, 48)).astype(int)
    assert np.abs(decoded - np.asarray(upright)).max() <= (8 if format_ == "JPEG" else 0)


def test_an_animations_first_frame_is_decoded() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    for format_ in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if format_ == "WEBP" else {}
        data = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data, (4, 4)) == RED).all(), format_


@pytest.mark.parametrize("size", [(1001, 10), (10, 1001)])
def test_an_extremely_long_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="more than 100 times"):
        decode(encode(Image.new("RGB", size)), transform(8, (8, 8)))


def test_an_image_100_times_as_long_as_wide_is_accepted() -> None:
    assert decode(encode(Image.new("RGB", (1000, 10))), transform(8, (8, 8))).shape == (8, 8, 3)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_bytes_are_refused(format_: str, share: float) -> None:
    data = encode(PHOTO, format_)
    with pytest.raises(Exception):  # noqa: B017, PT011 - of any kind, as documented
        pixels(data[: int(share * len(data))])


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
def test_pixels_equal_those_of_torchvisions_transforms(
    interpolation: Interpolation, size: tuple[int, int], resize: int, crop: int
) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = Image.fromarray(np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), np.uint8))
    theirs = Compose([Resize(resize, InterpolationMode(interpolation)), CenterCrop(crop)])
    decoded = decode(encode(image), transform(resize, (crop, crop), interpolation))
    assert np.array_equal(decoded, np.asarray(theirs(image)))


def test_squashing_resizes_any_shape_to_the_crop() -> None:
    decoded = decode(encode(PHOTO), transform(99, (8, 12), "bicubic", squash=True))
    assert np.array_equal(decoded, np.asarray(PHOTO.resize((12, 8), Image.Resampling.BICUBIC)))


def test_a_squashed_image_is_not_cropped() -> None:
    image = Image.new("RGB", (100, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    assert decode(encode(image), transform(10, (10, 10), "nearest", squash=True))[:, 0].min() == 255
    assert decode(encode(image), transform(10, (10, 10), "nearest")).max() == 0


def photo(height: int, width: int) -> Image.Image:
    """Draw smooth shapes with a little noise, like a camera's."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(rows / (9 + 7 * channel)) * np.cos(columns / 13) for channel in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray((np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8))


def decode_by_pillow(data: bytes, requested: Transform) -> Pixels:
    """Decode the same picture without the fast path, as PNG."""
    with Image.open(io.BytesIO(data)) as image:
        return decode(encode(image.convert("RGB")), requested)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(375, 500), (768, 1024), (172, 307), (300, 200), (97, 83), (224, 224), (231, 999)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_decoded_within_one_level_of_pillow(
    interpolation: Interpolation, size: tuple[int, int], mode: str
) -> None:
    requested = transform(256, (224, 224), interpolation)
    data = encode(photo(*size).convert(mode), "JPEG", quality=90)
    assert np.abs(decode(data, requested).astype(int) - decode_by_pillow(data, requested)).max() <= 1


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}])
def test_every_kind_of_jpeg_is_decoded_within_one_level_of_pillow(options: dict[str, Any]) -> None:
    requested = transform(235, (224, 224), "bicubic")
    data = encode(photo(375, 500), "JPEG", quality=80, **options)
    assert np.abs(decode(data, requested).astype(int) - decode_by_pillow(data, requested)).max() <= 1


def test_a_squashed_jpeg_is_decoded_within_one_level_of_pillow() -> None:
    requested = transform(224, (224, 224), "bicubic", squash=True)
    data = encode(photo(300, 500), "JPEG")
    assert np.abs(decode(data, requested).astype(int) - decode_by_pillow(data, requested)).max() <= 1


def test_scaled_decoding_changes_a_large_jpegs_pixels_only_slightly() -> None:
    requested = transform(256, (224, 224), "bicubic")
    data = encode(photo(1536, 2048), "JPEG", quality=90)
    scaled = decode(data, replace(requested, decoder="scaled"))
    difference = np.abs(scaled.astype(int) - decode(data, requested))
    assert difference.max() > 0
    assert difference.mean() < 3


def test_scaled_decoding_does_not_change_a_small_jpeg() -> None:
    requested = transform(256, (224, 224), "bicubic")
    data = encode(photo(260, 300), "JPEG", quality=90)
    np.testing.assert_array_equal(decode(data, replace(requested, decoder="scaled")), decode(data, requested))


def test_a_truncated_jpeg_is_refused() -> None:
    data = encode(photo(375, 500), "JPEG")
    with pytest.raises(OSError, match="truncated"):
        decode(data[: len(data) // 2], transform(256, (224, 224)))


def with_gpu_decoder(requested: Transform) -> Transform:
    """Request the GPU's decoder; without a GPU, the CPU takes the same steps."""
    return replace(requested, decoder="gpu")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(375, 500), (224, 224), (231, 999)])
def test_the_gpu_decoders_pixels_are_close_to_pillows(interpolation: Interpolation, size: tuple[int, int]) -> None:
    requested = transform(256, (224, 224), interpolation)
    data = encode(photo(*size), "JPEG", quality=90)
    difference = np.abs(decode(data, with_gpu_decoder(requested)).astype(int) - decode_by_pillow(data, requested))
    assert difference.max() <= 4
    assert difference.mean() < 1


def test_the_decoder_only_matters_for_plain_jpegs() -> None:
    requested = transform(32, (30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encode(photo(64, 48), "JPEG", exif=exif)
    for data in (
        encode(PHOTO),
        encode(PHOTO, "WEBP", lossless=True),
        encode(photo(64, 48).convert("CMYK"), "JPEG"),
        rotated,
    ):
        np.testing.assert_array_equal(decode(data, with_gpu_decoder(requested)), decode(data, requested))


@pytest.mark.parametrize("decoder", ["full", "gpu"])
def test_each_of_several_images_is_decoded_as_if_it_were_alone(decoder: Any) -> None:  # noqa: ANN401 - a literal
    requested = replace(transform(64, (60, 60)), decoder=decoder)
    good = [encode(photo(90 + number, 120), "JPEG") for number in range(3)] + [encode(PHOTO)]
    broken = [good[0][:200], b"no image"]
    results = decode_all([good[0], broken[0], good[1], good[3], broken[1], good[2]], requested)
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False, True, False]
    decoded = (results[0], results[2], results[3], results[5])
    for result, data in zip(decoded, (good[0], good[1], good[3], good[2]), strict=True):
        np.testing.assert_array_equal(result, decode(data, requested))
