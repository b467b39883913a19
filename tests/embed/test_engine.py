"""The engine: one bad image costs one image, and a vector depends on its image alone."""

import hashlib
import uuid
from pathlib import Path

import numpy as np
import pytest

from storage.paths import open_home
from storage.recipe import Recipe, Transform
from storage.vectors import Matrix
from tasks.embed.decode import Pixels
from tasks.embed.engine import Backbone, Embedder, Vectors, embed_files, embed_images, run_backbone
from tasks.embed.plan import resolve
from tasks.embed.settings import EmbedSettings
from tests.pictures import write_image

RECIPE = Recipe(
    architecture="none",
    weights="none",
    cut="avgpool",
    pooling="average",
    transform=Transform(8, (8, 8), squash=False, interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3),
    dtype="float32",
    stored="float16",
    shape=(3,),
)


def average(pixels: Pixels) -> Matrix:
    vectors: Matrix = pixels.mean(axis=(1, 2)).astype(np.float32)
    return vectors


def item_of(path: Path) -> tuple[str, str]:
    return str(uuid.UUID(bytes=hashlib.sha256(path.read_bytes()).digest()[:16])), path.name


def embed(folder: Path, items: list[tuple[str, str]], backbone: Backbone = average) -> Vectors:
    return embed_files(folder, Embedder(RECIPE, backbone, batch=4), items, 2, lambda _: None)


def test_each_bad_image_fails_with_its_stage_and_costs_nothing_else(tmp_path: Path) -> None:
    good = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(10)]
    truncated = write_image(tmp_path / "truncated.png", "red", 50)
    truncated.write_bytes(truncated.read_bytes()[:60])
    changed = item_of(write_image(tmp_path / "changed.png", "red", 51))
    write_image(tmp_path / "changed.png", "red", 52)
    missing = (str(uuid.uuid4()), "missing.png")
    done = embed(tmp_path, [item_of(truncated), *good[:5], changed, *good[5:], missing])
    assert done.image_ids == tuple(image_id for image_id, _ in good)
    assert done.matrix.shape == (10, 3)
    stages = [(failure.path, failure.stage) for failure in done.failures]
    assert stages == [("truncated.png", "decode"), ("changed.png", "read"), ("missing.png", "read")]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_vector_that_is_not_finite_as_stored_is_a_failure_and_no_feature(tmp_path: Path, value: float) -> None:
    items = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(3)]

    def spoil_second(pixels: Pixels) -> Matrix:
        vectors = average(pixels)
        vectors[1, 2] = value
        return vectors

    done = embed(tmp_path, items, spoil_second)
    assert done.image_ids == (items[0][0], items[2][0])
    assert [(failure.image_id, failure.stage) for failure in done.failures] == [(items[1][0], "embed")]
    assert np.isfinite(done.matrix).all()


def test_serving_gives_the_vectors_that_embedding_stores_bit_for_bit(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", "blue", number) for number in range(9)]
    stored = embed(tmp_path, [item_of(path) for path in paths]).matrix
    served = embed_images(Embedder(RECIPE, average, batch=4), [path.read_bytes() for path in paths])
    np.testing.assert_array_equal(served, stored)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_vector_does_not_depend_on_its_company(tmp_path: Path, dtype: str) -> None:
    from tasks.embed.backbone import open_backbone

    resolved = resolve(open_home(tmp_path), EmbedSettings.model_validate({"dtype": dtype}))
    embedder = Embedder(resolved.recipe, open_backbone(resolved.recipe, resolved.weights, "cpu"), batch=8)
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (20, 224, 224, 3), dtype=np.uint8))
    alone = run_backbone(embedder, images[:1])[0]
    for company in range(10):
        others = [images[index] for index in random.choice(np.arange(1, 20), company % 8, replace=False)]
        place = company % (len(others) + 1)
        batch = [*others[:place], images[0], *others[place:]]
        np.testing.assert_array_equal(run_backbone(embedder, batch)[place], alone)
