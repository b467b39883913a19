"""Views: random windows of an image, determined by its bytes and the view's number."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from flows.operations.plan import make_plan
from flows.settings import RunSettings
from storage.recipe import Transform
from tasks.embed.settings import EmbedSettings
from tasks.encoder.pixels.decode import decode, decode_all
from tasks.encoder.pixels.views import LONGEST, SMALLEST, draw_window

if TYPE_CHECKING:
    from flows.embed import Embedded

SIZE = (400, 300)
TRANSFORM = Transform(64, (64, 64), False, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # noqa: FBT003 - not squashed


def encode(seed: int, format_: str = "PNG") -> bytes:
    """Encode a smooth picture whose red grows to the right and green to the bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    pixels = np.stack([x, y, np.full_like(y, seed % 256)], axis=2).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format_)
    return data.getvalue()


def test_windows_have_the_specified_areas_and_ratios_and_cover_the_image() -> None:
    windows = [draw_window(bytes([view]), view, SIZE) for view in range(1, 200)]
    boxes = np.array([window.box for window in windows])
    sides = boxes[:, 2:] - boxes[:, :2]
    shares, ratios = sides.prod(axis=1) / np.prod(SIZE), sides[:, 0] / sides[:, 1]
    assert shares.min() > SMALLEST * 0.9
    assert shares.max() <= 1
    assert np.quantile(shares, [0.1, 0.9]) == pytest.approx([0.4, 0.85], abs=0.08)
    assert ratios.max() <= LONGEST * 1.0001
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= np.array(SIZE) + 1e-9).all()
    assert 0.4 < np.mean([window.mirrored for window in windows]) < 0.6


def test_a_window_is_the_same_on_every_machine() -> None:
    window = draw_window(b"an image", 3, SIZE)
    assert window.mirrored is False
    assert window.box == pytest.approx((13.4063, 22.4546, 290.2907, 296.4982), abs=1e-3)


def test_a_view_shows_its_window_of_the_image_mirrored_or_not() -> None:
    views = [decode(encode(7), TRANSFORM, view).astype(float) for view in range(1, 9)]
    for view, pixels in enumerate(views, 1):
        window = draw_window(encode(7), view, SIZE)
        left, top, right, bottom = window.box
        if window.mirrored:
            left, right = right, left
        assert pixels[32, 0, 0] == pytest.approx(left * 255 / SIZE[0], abs=4)
        assert pixels[32, -1, 0] == pytest.approx(right * 255 / SIZE[0], abs=4)
        assert pixels[0, 32, 1] == pytest.approx(top * 255 / SIZE[1], abs=4)
        assert pixels[-1, 32, 1] == pytest.approx(bottom * 255 / SIZE[1], abs=4)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("decoder", ["full", "scaled"])
def test_a_view_does_not_depend_on_the_other_images(format_: str, decoder: Any) -> None:  # noqa: ANN401 - a literal
    images, transform = [encode(seed, format_) for seed in range(5)], replace(TRANSFORM, decoder=decoder)
    together = np.stack([np.asarray(pixels) for pixels in decode_all(images, transform, 2)])
    assert np.array_equal(together, np.stack([decode(data, transform, 2) for data in images]))
    assert not np.array_equal(decode(images[0], transform, 2), decode(images[0], transform, 1))


def test_one_more_view_computes_that_view_only(
    embed_photos: Callable[..., "Embedded"], photos: Path, home: Path
) -> None:
    def plan(views: int) -> int:
        return make_plan(RunSettings(source=photos, home=home, embed=EmbedSettings(views=views))).compute

    assert plan(1) == 120
    assert embed_photos(embed={"views": 1}).throughput.images == 120
    assert plan(2) == 60
    assert embed_photos(embed={"views": 2}).throughput.images == 60
    assert plan(2) == embed_photos(embed={"views": 1}).throughput.images == 0
    done = embed_photos()
    assert (done.computed, done.reused, done.failed) == (0, 60, 0)
