"""Exported backbones: an ONNX file beside a packed backbone, opened without torch, and which runtime is the fastest.

All of it is a cache, kept for each machine separately. If it is deleted, the next run exports the backbone again.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from storage.canonical import digest
from storage.locations.atomic import write_file
from storage.locations.home import Home
from storage.recipe import Recipe, read_recipe
from tasks.encoder.backbone.weights import digest_file
from tasks.encoder.embedder import Backbone, Embedder, count_cores
from tasks.encoder.pack import open_packed
from tasks.encoder.runtimes.exported_images import BATCH, make_lanes
from tasks.encoder.runtimes.onnx_runtime import open_onnxruntime
from tasks.encoder.runtimes.openvino_runtime import open_openvino

Runtime = Literal["torch", "torch-compiled", "onnxruntime", "openvino"]
OPENERS: dict[str, Callable[[Path, int, int], Backbone]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}
"""How a runtime opens an ONNX file."""
GPU = Path("/dev/nvidiactl")
CPU_INFO = Path("/proc/cpuinfo")
MODEL = "model.onnx"


@dataclass(frozen=True)
class RuntimeChoice:
    """The fastest runtime that computes a recipe's numbers on a machine.

    Attributes:
        runtime: The runtime.
        paces: Images per second of each runtime that was tried.
        weights: The SHA-256 of the weights in the ONNX file.
        model: The SHA-256 of the ONNX file; None if there is none.
        reason: Why a runtime was not tried or not taken, if there is a reason besides its pace.
    """

    runtime: Runtime
    paces: dict[Runtime, float]
    weights: str
    model: str | None
    reason: str | None = None


def list_runtimes() -> list[Runtime]:
    """List the installed runtimes that run exported backbones."""
    return [runtime for runtime in get_args(Runtime) if runtime in OPENERS and find_spec(runtime)]


def find_choice(home: Home, recipe_id: str, device: str) -> RuntimeChoice | None:
    """Find the recorded choice for this machine; None if there is none, or a GPU may be what ``device`` means."""
    if device.startswith("cuda") or (device == "auto" and GPU.exists()):
        return None
    try:
        choice = RuntimeChoice(**json.loads(_choice_path(home, recipe_id).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # there is none, or another release wrote it
        return None
    return None if choice.runtime in OPENERS and not is_exported(home, recipe_id, choice) else choice


def find_served_model(home: Home, recipe_id: str) -> Path | None:
    """Find the ONNX file that a registered model can serve; None if ONNX Runtime was not found to yield its numbers."""
    choice = find_choice(home, recipe_id, "auto")
    if choice is None or "onnxruntime" not in choice.paces or not is_exported(home, recipe_id, choice):
        return None
    return model_path(home, recipe_id)


def is_exported(home: Home, recipe_id: str, choice: RuntimeChoice) -> bool:
    """Return whether the ONNX file of a choice is there, undamaged."""
    model = model_path(home, recipe_id)
    return model.exists() and digest_file(model) == choice.model


def save_choice(home: Home, recipe_id: str, choice: RuntimeChoice) -> None:
    """Record the choice for this machine."""
    with write_file(_choice_path(home, recipe_id)) as unfinished:
        unfinished.write_text(json.dumps(asdict(choice)) + "\n", encoding="utf-8")


def model_path(home: Home, recipe_id: str) -> Path:
    """Return the path of a recipe's ONNX file; each machine that uses the home has its own."""
    return home.runtimes / recipe_id / _name_machine() / MODEL


def open_embedder(home: Home, recipe_id: str, batch: int | None, device: str, runtime: Runtime = "torch") -> Embedder:
    """Open a recipe's packed backbone in a runtime, once for all shards of a run.

    Raises:
        WeightsError: if its weights are no longer the recipe's.
    """
    folder = home.backbones / recipe_id
    if runtime not in OPENERS:
        return open_packed(folder, batch, device, compiled=runtime == "torch-compiled")
    recipe = read_recipe((folder / "recipe.json").read_text(encoding="utf-8"))
    model = model_path(home, recipe_id)
    return _open_exported(recipe, model, digest_file(model), runtime, batch or BATCH)


@lru_cache(maxsize=2)
def _open_exported(recipe: Recipe, model: Path, _: str, runtime: str, batch: int) -> Embedder:
    """Open an exported backbone, unless it was one of the last; models are compared by their digest."""
    lanes = make_lanes(runtime, batch)
    backbone = OPENERS[runtime](model, lanes.count, count_cores() // lanes.count)
    return Embedder(recipe, backbone, batch, lanes)


def _choice_path(home: Home, recipe_id: str) -> Path:
    return home.runtimes / recipe_id / _name_machine() / "choice.json"


def _name_machine() -> str:
    return digest(_describe_machine())[:12]


@cache
def _describe_machine() -> dict[str, object]:
    """Describe what decides which runtime is the fastest: processor, cores, and the releases of the runtimes."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}) or lines[:1]
    releases = {library: _find_release(library) for library in ("torch", *OPENERS)}
    return {"processor": processor, "cores": count_cores(), **releases}


def _find_release(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
