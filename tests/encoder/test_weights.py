"""Weights and backbones: found by name or path, loaded strictly, identified by their bytes."""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from storage.errors import BackboneError, EmbedError, SettingsError, WeightsError
from storage.locations.home import Home, open_home
from storage.recipe import Recipe, read_recipe
from tasks.embed.decide_recipe import decide_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.fetch_weights import fetch_weights
from tasks.encoder.backbone.forward import cut_off, pool
from tasks.encoder.backbone.networks import find_input
from tasks.encoder.backbone.open_backbone import open_backbone
from tasks.encoder.backbone.weights import find_weights

NET = "torchvision/squeezenet1_1"
TINY = "timm/test_resnet"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small network."""
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def resolve(home: Home, **settings: object) -> Recipe:
    embed = EmbedSettings.model_validate({"dtype": "float32", **settings})
    weights = find_weights(home, embed.backbone, embed.weights)
    assert weights
    return decide_recipe(embed, weights)


@pytest.mark.parametrize(
    ("backbone", "weights", "words"),
    [
        ("timm/resnet18", "embedded", "tf_efficientnet_lite0"),
        ("timm/resnet18", "torchvision:ResNet18_Weights.IMAGENET1K_V1", "torchvision/NAME"),
        ("torchvision/resnet18", "timm:resnet18.a1_in1k", "timm/NAME"),
        ("timm/resnet18", "weights.npz", "safetensors"),
        ("timm/resnet18", "missing.pth", "Check the path"),
    ],
)
def test_weights_that_cannot_exist_are_refused(home: Home, backbone: str, weights: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        find_weights(home, backbone, weights)


def test_changing_one_byte_of_the_weights_changes_the_recipe_and_moving_them_does_not(
    home: Home, tiny: Path, tmp_path: Path
) -> None:
    first = resolve(home, backbone=TINY, weights=str(tiny))
    moved = str(shutil.copy(tiny, tmp_path / "moved.safetensors"))
    assert resolve(home, backbone=TINY, weights=moved) == first
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    Path(moved).write_bytes(data)
    assert resolve(home, backbone=TINY, weights=moved).recipe_id != first.recipe_id


def test_interpolation_dtype_cut_and_size_are_part_of_the_recipe(home: Home, tiny: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"interpolation": "nearest"},
        {"dtype": "bfloat16"},
        {"cut": "layer3"},
        {"cut": "layer3", "pooling": "flatten"},
        {"crop": 96},
        {"stored": "float32"},
    ]
    recipes = [resolve(home, backbone=TINY, weights=str(tiny), **change) for change in changes]
    assert len({recipe.recipe_id for recipe in recipes}) == len(changes)
    assert all(read_recipe(recipe.text) == recipe for recipe in recipes)


def test_a_pth_file_yields_the_same_vectors_as_a_safetensors_file(home: Home, tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(tiny)}, tmp_path / "tiny.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    vectors = []
    for path in (tiny, tmp_path / "tiny.pth"):
        weights = find_weights(home, TINY, str(path))
        assert weights
        recipe = resolve(home, backbone=TINY, weights=str(path))
        vectors.append(open_backbone(recipe, weights, "cpu", 2)[0](pixels))
    assert vectors[0].shape == (2, recipe.dim)
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_a_pth_file_that_runs_code_is_refused(home: Home, tmp_path: Path) -> None:
    torch.save({"w": SimpleNamespace(a=1)}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="tensors only"):
        resolve(home, backbone=TINY, weights=str(tmp_path / "evil.pth"))


def test_weights_that_lack_a_tensor_are_refused(home: Home, tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(tiny)
    state.pop(next(name for name in state if name.endswith("weight")))
    save_file(state, tmp_path / "lacking.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        resolve(home, backbone=TINY, weights=str(tmp_path / "lacking.safetensors"))


def test_weights_for_other_classes_yield_vectors_of_the_same_shape(home: Home, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7)
    save_file(network.state_dict(), tmp_path / "seven.safetensors")
    recipe = resolve(home, backbone="torchvision/resnet18", weights=str(tmp_path / "seven.safetensors"))
    assert recipe.shape == (512,)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"backbone": "timm/test_resne"}, BackboneError, "timm/test_resnet"),
        ({"backbone": "test_resnet"}, BackboneError, "timm/NAME"),
        ({"backbone": TINY, "cut": "layer33"}, BackboneError, "layer3"),
        ({"backbone": TINY, "resize": 10}, SettingsError, "embed.resize"),
        ({"backbone": TINY, "device": "cuda:99"}, EmbedError, "needs a GPU"),
    ],
)
def test_an_invalid_setting_is_refused_with_a_suggestion(
    home: Home, tiny: Path, settings: dict[str, object], error: type[Exception], words: str
) -> None:
    if "device" in settings:
        settings = {**settings, "dtype": "auto"}
        error = SettingsError
    with pytest.raises(error, match=words):
        resolve(home, weights=str(tiny), **settings)


def test_a_network_without_a_linear_classifier_needs_a_cut(home: Home, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "squeeze.safetensors"
    save_file(torchvision.models.squeezenet1_1().state_dict(), path)
    with pytest.raises(BackboneError, match=r"--embed\.cut"):
        resolve(home, backbone=NET, weights=str(path))
    assert resolve(home, backbone=NET, weights=str(path), cut="features").shape == (512,)


def test_the_cut_at_avgpool_is_the_classifiers_input(home: Home, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    path = tmp_path / "resnet.safetensors"
    save_file(network.state_dict(), path)
    recipe = resolve(home, backbone="torchvision/resnet18", weights=str(path))
    weights = find_weights(home, "torchvision/resnet18", str(path))
    assert weights
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    vectors = torch.from_numpy(open_backbone(recipe, weights, "cpu", 2)[0](pixels))
    mean, std = torch.tensor(recipe.transform.mean), torch.tensor(recipe.transform.std)
    batch = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(network.fc(vectors), network.eval()(batch), atol=1e-4, rtol=1e-4)


def test_a_download_without_a_network_fails_with_one_clear_line(home: Home) -> None:
    with pytest.raises(WeightsError, match=r"could not be downloaded.*--embed\.weights FILE") as caught:
        fetch_weights(home, "torchvision:ResNet18_Weights.IMAGENET1K_V1")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="unknown to torchvision"):
        fetch_weights(home, "torchvision:ResNet18_Weights.NONE")


class TruncatingHandler(BaseHTTPRequestHandler):
    """Promises more bytes than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)


@contextlib.contextmanager
def serve(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


NAME = "torchvision:ResNet18_Weights.IMAGENET1K_V1"


def test_weights_by_name_are_downloaded_once_and_then_found_without_a_network(
    home: Home, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_weights(home, "torchvision/resnet18", NAME) is None
    with serve(partial(SimpleHTTPRequestHandler, directory=str(tiny.parent))) as address:
        url = f"{address}/tiny.safetensors"
        monkeypatch.setattr("torchvision.models.get_weight", lambda _: SimpleNamespace(url=url))
        fetched = fetch_weights(home, NAME)
    assert fetched.path.read_bytes() == tiny.read_bytes()
    assert find_weights(home, "torchvision/resnet18", NAME) == fetched


def test_a_truncated_download_or_one_with_the_wrong_hash_is_refused_and_deleted(
    home: Home, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny, tmp_path / "resnet18-f37072fd.pth")
    for handler in (TruncatingHandler, partial(SimpleHTTPRequestHandler, directory=str(tmp_path))):
        with serve(handler) as address:
            url = f"{address}/resnet18-f37072fd.pth"
            monkeypatch.setattr("torchvision.models.get_weight", lambda _, url=url: SimpleNamespace(url=url))
            with pytest.raises(WeightsError, match="could not be downloaded"):
                fetch_weights(home, NAME)
        assert find_weights(home, "torchvision/resnet18", NAME) is None


def test_a_shorter_name_does_not_find_the_weights_of_a_longer_one(home: Home) -> None:
    home.weights.mkdir(parents=True)
    (home.weights / "timm_resnet18.a2_in1k.safetensors").write_bytes(b"a2")
    assert find_weights(home, "timm/resnet18", "timm:resnet18.a2_in1k")
    assert find_weights(home, "timm/resnet18", "timm:resnet18") is None


def test_an_unknown_tag_of_timm_is_refused(home: Home) -> None:
    with pytest.raises(BackboneError, match="tag"):
        find_input("timm/test_resnet.nosuchtag", "x.pth")
    with pytest.raises(WeightsError, match="unknown to timm"):
        fetch_weights(home, "timm:test_resnet.nosuchtag")


def test_channels_last_networks_are_pooled_over_positions() -> None:
    network = torchvision.models.swin_t().eval()
    with torch.inference_mode():
        probe = torch.zeros(1, 3, 224, 224)
        value = cut_off(network, "features.7", probe)(probe)
    assert pool(value, "average").shape == (1, 768)
