"""A counting backbone for logic: 48 numbers an image, and a tally of the images that went through it."""

import os
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage.recipe import Recipe, Transform, read_recipe
from storage.vectors.feature_file import Matrix
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.embedder import Backbone, Embedder, Lanes, embed_images
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.pixels.transform import Pixels

if TYPE_CHECKING:
    from tasks.register.registry.code import ServingCode


class Tally:
    """Counts images in a file, a line a batch, so that a count outlives a process that is killed."""

    def __init__(self, log: Path, seconds: float = 0) -> None:
        self.log, self.seconds = log, seconds

    @property
    def images(self) -> int:
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def embed(self, pixels: Pixels) -> Matrix:
        time.sleep(self.seconds)
        with self.log.open("a") as log:
            log.write(f"{int(pixels.any(axis=(1, 2, 3)).sum())}\n")  # the padded tail is black
        places = pixels.reshape(len(pixels), 4, 2, 4, 2, 3).mean(axis=(2, 4))
        vectors: Matrix = (places.reshape(len(pixels), 48) / 255).astype(np.float32)
        return vectors


def decide_recipe(settings: EmbedSettings, weights: Weights) -> Recipe:
    dtype = "float32" if settings.dtype == "auto" else settings.dtype
    transform = Transform(
        8,
        (8, 8),
        squash=False,
        interpolation=settings.interpolation or "bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return Recipe(
        architecture=settings.backbone,
        weights=weights.digest,
        cut=settings.cut,
        pooling=settings.pooling,
        transform=transform,
        dtype=dtype,  # type: ignore[arg-type]
        stored="float16",
        shape=(48,),
    )


def fake_modules(tally: Tally) -> dict[str, types.ModuleType]:
    """Make the two modules that import torch, without it."""

    def open_backbone(*_: object, **__: object) -> tuple[Backbone, Lanes]:
        return tally.embed, Lanes()

    resolve = types.ModuleType("tasks.embed.decide_recipe")
    backbone = types.ModuleType("tasks.encoder.backbone.open_backbone")
    resolve.decide_recipe = decide_recipe  # type: ignore[attr-defined]
    backbone.open_backbone = open_backbone  # type: ignore[attr-defined]
    return {"tasks.embed.decide_recipe": resolve, "tasks.encoder.backbone.open_backbone": backbone}


def install(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """Put the counting backbone in place for one test."""
    from tasks.embed import step
    from tasks.encoder import pack
    from tasks.encoder.pack import open_once
    from tasks.register import register
    from tasks.register.registry import package

    for name, module in fake_modules(tally).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(pack, "open_images", open_images)
    monkeypatch.setattr(register, "open_images", open_images)
    monkeypatch.setattr(package, "collect_code", collect_counting_code)
    open_once.cache_clear()
    monkeypatch.setattr(
        step, "verify_canaries", lambda *_: "torch"
    )  # the tally counts images; canaries have tests of their own


def collect_counting_code() -> "ServingCode":
    """Collect the code of a served model, less what opens the backbone, under another package name."""
    from tasks.register.registry.code import collect_code

    code = collect_code()
    package = f"{code.package}_counting"
    modules = {name: text.replace(code.package, package) for name, text in code.modules.items()}
    modules["tasks.encoder.pack"] = "from tests.counting import open_images\n"
    return replace(code, package=package, modules=modules)


def open_images(
    folder: Path, batch: int | None, views: int = 1, budget: Budget = DEFAULT
) -> Callable[[Sequence[bytes]], Matrix]:
    """Open the backbone for a served model, whose answers the tally of the embed runs leaves out."""
    recipe = read_recipe((folder / "recipe.json").read_text())
    embedder = Embedder(recipe, Tally(folder / "served-calls").embed, batch or 8)
    return lambda images: np.hstack([embed_images(embedder, images, view, budget) for view in range(views)])


def main() -> None:
    """Run the command line over the counting backbone, as a process of its own."""
    tally = Tally(Path(os.environ["COUNTING_LOG"]), float(os.environ.get("COUNTING_SECONDS", "0")))
    sys.modules.update(fake_modules(tally))
    from tasks.embed import step
    from tasks.encoder import pack
    from tasks.register import register
    from tasks.register.registry import package

    package.collect_code = collect_counting_code  # type: ignore[attr-defined]
    pack.open_images = open_images
    register.open_images = open_images  # type: ignore[attr-defined]
    step.verify_canaries = lambda *_: "torch"  # type: ignore[attr-defined]
    from flows.start import main as frostline

    frostline()


if __name__ == "__main__":
    main()
