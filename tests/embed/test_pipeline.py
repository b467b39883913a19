"""The engine: one bad image costs one image, and a vector depends only on its image."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import BackboneError
from storage.locations.home import open_home
from storage.names import SourceName
from storage.recipe import Recipe, Transform
from storage.sources.open_image import LocatedImage, Locator, Source, folder_source, hash_image
from storage.vectors.feature_file import Matrix
from tasks.embed.find_recipe import resolve
from tasks.embed.pipeline import EmbeddedBatch, embed_files, embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import Backbone, Embedder, Lanes, embed_images, run_backbone
from tasks.encoder.pixels.decode import decode_all
from tasks.encoder.pixels.transform import Pixels
from tasks.encoder.stages import STAGES, Meter
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

ROOT = Path(__file__).parents[2]
FULL_DISK = """
import resource, sys
from pathlib import Path
from typing import Any
import numpy as np
from dataclasses import replace
from storage.locations.home import open_home
from tasks.encoder.embedder import Embedder
from storage.sources.open_image import folder_source
from tasks.embed.pipeline import embed_shard
from tests.embed.test_pipeline import RECIPE, item_of
folder = Path(sys.argv[1])
items = [item_of(path) for path in sorted((folder / "photos").iterdir())]
random = np.random.default_rng(0)
noise = lambda pixels: random.normal(size=(len(pixels), 4096)).astype(np.float32)
sys.dont_write_bytecode = True  # a truncated module would stay in the cache
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
embedder = Embedder(replace(RECIPE, shape=(4096,)), noise, 8)
embed_shard(open_home(folder / "home"), folder_source("photos", folder / "photos"), embedder, items, 2, lambda _: None)
print("written")
"""


def average(pixels: Pixels) -> Matrix:
    vectors: Matrix = pixels.mean(axis=(1, 2)).astype(np.float32)
    return vectors


def item_of(path: Path) -> LocatedImage:
    return LocatedImage(str(hash_image(path.read_bytes())), Locator(path.name))


def source_of(folder: Path) -> Source:
    return folder_source(SourceName("photos"), folder)


def embed(folder: Path, items: list[LocatedImage], backbone: Backbone = average) -> EmbeddedBatch:
    return gather(embed_files(source_of(folder), Embedder(RECIPE, backbone, batch=4), items, 2, Meter()))


def gather(parts: Iterable[EmbeddedBatch]) -> EmbeddedBatch:
    batches = list(parts)
    return EmbeddedBatch(
        tuple(image_id for batch in batches for image_id in batch.image_ids),
        np.concatenate([batch.matrix for batch in batches]),
        tuple(failure for batch in batches for failure in batch.failures),
    )


def test_each_bad_image_fails_with_its_stage_and_affects_no_other(tmp_path: Path) -> None:
    good = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(10)]
    truncated = write_image(tmp_path / "truncated.png", "red", 50)
    truncated.write_bytes(truncated.read_bytes()[:60])
    changed = item_of(write_image(tmp_path / "changed.png", "red", 51))
    write_image(tmp_path / "changed.png", "red", 52)
    missing = LocatedImage(str(uuid.uuid4()), Locator("missing.png"))
    done = embed(tmp_path, [item_of(truncated), *good[:5], changed, *good[5:], missing])
    assert done.image_ids == tuple(image_id for image_id, _ in good)
    assert done.matrix.shape == (10, 3)
    stages = [(failure.path, failure.stage) for failure in done.failures]
    assert stages == [("truncated.png", "decode"), ("changed.png", "read"), ("missing.png", "read")]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_vector_that_is_not_finite_once_stored_is_a_failure(tmp_path: Path, value: float) -> None:
    items = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(3)]

    def spoil_second(pixels: Pixels) -> Matrix:
        vectors = average(pixels)
        vectors[1, 2] = value
        return vectors

    done = embed(tmp_path, items, spoil_second)
    assert done.image_ids == (items[0][0], items[2][0])
    assert [(failure.image_id, failure.stage) for failure in done.failures] == [(items[1][0], "embed")]
    assert np.isfinite(done.matrix).all()


def test_serving_computes_the_stored_vectors_bit_for_bit(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", "blue", number) for number in range(9)]
    stored = embed(tmp_path, [item_of(path) for path in paths]).matrix
    served = embed_images(Embedder(RECIPE, average, batch=4), [path.read_bytes() for path in paths])
    np.testing.assert_array_equal(served, stored)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_vector_does_not_depend_on_the_other_images(tmp_path: Path, dtype: str) -> None:
    from tasks.encoder.backbone.open_backbone import open_backbone

    small = {"dtype": dtype, "crop": 32, "resize": 32}  # bfloat16 is slow without hardware support
    resolved = resolve(open_home(tmp_path), EmbedSettings.model_validate(small))
    backbone, lanes = open_backbone(resolved.recipe, resolved.weights, "cpu", 8)
    embedder = Embedder(resolved.recipe, backbone, 8, lanes)
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    alone = run_backbone(embedder, np.stack(images[:1]))[0]
    for trial in range(10):
        others = [images[index] for index in random.choice(np.arange(1, 20), trial % 8, replace=False)]
        position = trial % (len(others) + 1)
        batch = [*others[:position], images[0], *others[position:]]
        np.testing.assert_array_equal(run_backbone(embedder, np.stack(batch))[position], alone)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_backbone_that_runs_out_of_memory_gets_smaller_batches_and_loses_no_image(
    tmp_path: Path, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    items = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(20)]
    sizes: list[int] = []

    def limited(pixels: Pixels) -> Matrix:
        sizes.append(len(pixels))
        if len(pixels) > batch:
            raise MemoryError("out of memory")
        return average(pixels)

    embedder = Embedder(RECIPE, limited, batch=16, lanes=Lanes(3))
    done = gather(embed_files(source_of(tmp_path), embedder, items, 2, Meter()))
    assert done.image_ids == tuple(image_id for image_id, _ in items)
    np.testing.assert_array_equal(done.matrix, embed(tmp_path, items).matrix)
    assert sizes[-1] <= batch
    halvings = [size for size in (16, 8, 4, 2) if size > batch]
    assert len(caplog.records) == len(halvings)


def test_a_backbone_that_does_not_fit_in_memory_with_one_image_is_refused(tmp_path: Path) -> None:
    items = [item_of(write_image(tmp_path / "0.png", "red", 0))]

    def full(_: Pixels) -> Matrix:
        raise MemoryError("out of memory")

    with pytest.raises(BackboneError, match="does not fit in memory"):
        embed(tmp_path, items, full)


def test_an_exception_in_the_backbone_ends_the_run(tmp_path: Path) -> None:
    items = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(40)]

    def broken(_: Pixels) -> Matrix:
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        embed(tmp_path, items, broken)


def test_at_most_a_few_batches_are_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item_of(write_image(tmp_path / f"{number:03}.png", "red", number)) for number in range(200)]
    decoded: list[int] = []
    decoded_by_batch: list[int] = []

    def counting(images: Sequence[bytes], *how: Any) -> list[Pixels | Exception]:  # noqa: ANN401 - passed on
        decoded.extend([1] * len(images))
        return decode_all(images, *how)

    def slow(pixels: Pixels) -> Matrix:
        time.sleep(0.02)
        decoded_by_batch.append(len(decoded))
        return average(pixels)

    monkeypatch.setattr("tasks.embed.read_chunk.decode_all", counting)
    embed(tmp_path, items, slow)
    ahead = [count - 4 * number for number, count in enumerate(decoded_by_batch)]
    assert max(ahead) <= 4 * (1 + 3) + 2 * 8 + 8


def test_the_longest_wait_is_for_the_slowest_stage(tmp_path: Path) -> None:
    items = [item_of(write_image(tmp_path / f"{number}.png", "red", number)) for number in range(40)]

    def slow(pixels: Pixels) -> Matrix:
        time.sleep(0.05)
        return average(pixels)

    home = open_home(tmp_path / "home")
    shard = embed_shard(home, source_of(tmp_path), Embedder(RECIPE, slow, batch=4), items, 2, lambda _: None)
    assert max(shard.waits, key=lambda stage: shard.waits[stage]) == "backbone"
    assert set(shard.waits) == set(STAGES)
    assert shard.bytes == sum((tmp_path / locator.path).stat().st_size for _, locator in items)


def test_a_full_disk_is_a_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    """Simulate a full disk with a process that may write at most 4 kB per file."""
    for number in range(64):
        write_image(tmp_path / "photos" / f"{number}.png", "red", number)
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.stdout == "", ran.stderr
    assert "LakeError: features" in ran.stderr
    assert "Make room on the disk" in ran.stderr
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
