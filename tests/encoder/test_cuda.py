"""A real CUDA GPU, if there is one: vectors depend only on their image, and batches shrink if memory is short."""

from pathlib import Path

import numpy as np
import pytest
import torch

from storage.locations.home import open_home
from storage.recipe import Recipe
from tasks.embed.find_recipe import ResolvedRecipe, resolve
from tasks.embed.pipeline import embed_files
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import Embedder, embed_images, run_backbone
from tasks.encoder.stages import Meter
from tests.embed.test_pipeline import gather, item_of, source_of
from tests.pictures import write_image

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

LOWEST = {"float32": 0.99999, "bfloat16": 0.998}


def resolve_recipe(folder: Path, dtype: str) -> ResolvedRecipe:
    return resolve(open_home(folder / "home"), EmbedSettings.model_validate({"dtype": dtype}))


def open_embedder(resolved: ResolvedRecipe, device: str, batch: int, *, compiled: bool = False) -> Embedder:
    from tasks.encoder.backbone.open_backbone import open_backbone

    backbone, lanes = open_backbone(resolved.recipe, resolved.weights, device, batch, compiled=compiled)
    return Embedder(resolved.recipe, backbone, batch, lanes)


def draw_images(recipe: Recipe, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *recipe.transform.crop, 3), dtype=np.uint8)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_from_a_gpu_does_not_depend_on_the_other_images(tmp_path: Path, dtype: str, compiled: bool) -> None:
    resolved = resolve_recipe(tmp_path, dtype)
    embedder = open_embedder(resolved, "cuda", 32, compiled=compiled)
    images = draw_images(resolved.recipe, 64)
    alone = run_backbone(embedder, images[:1])[0]
    random = np.random.default_rng(1)
    for trial in range(10):
        others = random.choice(np.arange(1, 64), 3 * trial, replace=False)
        position = trial % (len(others) + 1)
        batch = np.insert(images[others], position, images[0], axis=0)
        np.testing.assert_array_equal(run_backbone(embedder, batch)[position], alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpus_vectors_are_close_to_a_cpus(tmp_path: Path, dtype: str) -> None:
    resolved = resolve_recipe(tmp_path, dtype)
    images = draw_images(resolved.recipe, 8)
    on_gpu, on_cpu = (run_backbone(open_embedder(resolved, device, 8), images) for device in ("cuda", "cpu"))
    lengths = np.linalg.norm(on_gpu, axis=1) * np.linalg.norm(on_cpu, axis=1)
    assert ((on_gpu * on_cpu).sum(axis=1) / lengths).min() >= LOWEST[dtype]


def test_a_gpu_that_runs_out_of_memory_gets_smaller_batches_and_loses_no_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolved = resolve_recipe(tmp_path, "float32")
    paths = [write_image(tmp_path / f"{number}.png", "red", number) for number in range(300)]
    embedder = open_embedder(resolved, "cuda", 2048)
    limit = 2 << 30  # too little for 2,048 images in float32, enough for 128
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        done = gather(embed_files(source_of(tmp_path), embedder, [item_of(path) for path in paths], 2, Meter()))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert embedder.batch < 2048
    assert "does not fit in memory" in caplog.text
    assert done.image_ids == tuple(item_of(path)[0] for path in paths)
    served = embed_images(open_embedder(resolved, "cuda", embedder.batch), [path.read_bytes() for path in paths])
    np.testing.assert_array_equal(done.matrix, served)
