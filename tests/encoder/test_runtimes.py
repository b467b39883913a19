"""Other runtimes than torch: the same vectors, chosen by pace, remembered per machine, and without importing torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import SettingsError
from storage.locations.home import Home, open_home
from storage.names import SourceName
from tasks.embed.checks.check_canaries import verify_canaries
from tasks.embed.find_recipe import resolve
from tasks.embed.settings import EmbedSettings
from tasks.embed.step import record_recipe
from tasks.encoder.embedder import Embedder, run_backbone
from tasks.encoder.runtimes import exported
from tasks.encoder.runtimes.exported import find_choice, find_served_model, model_path, open_embedder
from tests.test_layers import ROOT

SOURCE = SourceName("none")
SETTINGS = EmbedSettings(dtype="float32", device="cpu", crop=64, resize=64)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A home with the real backbone, whose runtime was chosen; and its recipe."""
    home = open_home(tmp_path_factory.mktemp("runtimes") / "home")
    resolved = record_recipe(home, resolve(home, SETTINGS))
    verify_canaries(home, SOURCE, resolved.recipe.recipe_id, 1, SETTINGS)
    return home, resolved.recipe.recipe_id


@pytest.fixture
def embedders(packed: tuple[Home, str]) -> tuple[Embedder, Embedder]:
    home, recipe_id = packed
    return open_embedder(home, recipe_id, 8, "cpu"), open_embedder(home, recipe_id, 8, "cpu", "onnxruntime")


def draw(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_it_yields_the_vectors_of_torch(embedders: tuple[Embedder, Embedder]) -> None:
    torch, other = (run_backbone(embedder, draw(20)) for embedder in embedders)
    assert np.abs(other - torch).max() <= 0.002 * np.abs(torch).max()  # a unit of float16, in which both are rounded
    cosines = (torch * other).sum(axis=1) / np.linalg.norm(torch, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.99999


def test_a_vector_depends_neither_on_its_company_nor_on_its_position(embedders: tuple[Embedder, Embedder]) -> None:
    pixels = draw(8)
    together = embedders[1].backbone(pixels)
    for row in (0, 3, 7):
        alone = np.zeros_like(pixels)
        alone[7 - row] = pixels[row]
        assert np.array_equal(embedders[1].backbone(alone)[7 - row], together[row])


def test_the_choice_is_recorded_with_the_pace_of_each_runtime(packed: tuple[Home, str]) -> None:
    home, recipe_id = packed
    choice = find_choice(home, recipe_id, "cpu")
    assert choice
    assert {"torch", "onnxruntime"} <= set(choice.paces)
    assert choice.runtime == max(choice.paces, key=lambda runtime: choice.paces[runtime])
    assert find_served_model(home, recipe_id) == model_path(home, recipe_id)
    assert find_choice(home, recipe_id, "cuda") is None


def test_a_process_that_finds_a_choice_imports_no_torch(packed: tuple[Home, str]) -> None:
    home, recipe_id = packed
    code = (
        "import sys; from pathlib import Path; from tests.encoder.test_runtimes import SOURCE, SETTINGS;"
        "from storage.locations.home import open_home; from tasks.embed.checks.check_canaries import verify_canaries;"
        "settings = SETTINGS.model_copy(update={'runtime': 'onnxruntime'});"
        "print(verify_canaries(open_home(Path(sys.argv[1])), SOURCE, sys.argv[2], 1, settings), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(home.root), recipe_id]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    fastest = find_choice(home, recipe_id, "cpu")
    assert fastest
    expected = "onnxruntime False" if fastest.runtime == "onnxruntime" else "onnxruntime True"
    assert done.stdout.strip() == expected


def replace_opener(monkeypatch: pytest.MonkeyPatch, opener: Callable[..., Any]) -> None:
    exported._open_exported.cache_clear()
    monkeypatch.setitem(exported.OPENERS, "onnxruntime", opener)


def forget(home: Home, recipe_id: str) -> None:
    for file in (home.runtimes / recipe_id).rglob("*.json"):
        file.unlink()


def test_a_runtime_with_other_numbers_is_not_taken(packed: tuple[Home, str], monkeypatch: pytest.MonkeyPatch) -> None:
    home, recipe_id = packed
    opener = exported.OPENERS["onnxruntime"]
    replace_opener(monkeypatch, lambda *arguments: lambda pixels: 1.1 * opener(*arguments)(pixels))
    settings = SETTINGS.model_copy(update={"compile": "off"})
    assert verify_canaries(home, SOURCE, recipe_id, 1, settings) == "torch"  # although it was the choice before
    forget(home, recipe_id)
    assert verify_canaries(home, SOURCE, recipe_id, 1, settings) == "torch"
    choice = find_choice(home, recipe_id, "cpu")
    assert choice
    assert "onnxruntime" not in choice.paces
    assert choice.reason
    with pytest.raises(SettingsError, match="cannot run this backbone"):
        verify_canaries(home, SOURCE, recipe_id, 1, settings.model_copy(update={"runtime": "onnxruntime"}))
    forget(home, recipe_id)
    exported._open_exported.cache_clear()


def test_a_runtime_that_is_not_installed_is_refused(packed: tuple[Home, str], monkeypatch: pytest.MonkeyPatch) -> None:
    home, recipe_id = packed
    monkeypatch.setattr("tasks.embed.checks.choose_runtime.list_runtimes", list)
    with pytest.raises(SettingsError, match="Install openvino"):
        verify_canaries(home, SOURCE, recipe_id, 1, SETTINGS.model_copy(update={"runtime": "openvino"}))


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b"no model"])
def test_a_damaged_file_is_not_opened_but_exported_again(
    packed: tuple[Home, str], damage: Callable[[bytes], bytes]
) -> None:
    home, recipe_id = packed
    verify_canaries(home, SOURCE, recipe_id, 1, SETTINGS)
    file: Path = model_path(home, recipe_id)
    file.write_bytes(damage(file.read_bytes()))
    assert find_served_model(home, recipe_id) is None
    verify_canaries(home, SOURCE, recipe_id, 1, SETTINGS)
    assert find_served_model(home, recipe_id) == file
    choice = find_choice(home, recipe_id, "cpu")
    assert choice
    assert "onnxruntime" in choice.paces


def test_torch_may_be_named(packed: tuple[Home, str]) -> None:
    home, recipe_id = packed
    settings = SETTINGS.model_copy(update={"runtime": "torch", "compile": "off"})
    assert verify_canaries(home, SOURCE, recipe_id, 1, settings) == "torch"
