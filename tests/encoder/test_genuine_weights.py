"""The embedded weights are genuine: they classify labeled photos of ImageNet."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storage.locations.home import open_home
from tasks.embed.decide_recipe import decide_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.networks import load_network
from tasks.encoder.backbone.weights import EMBEDDED, find_weights
from tasks.encoder.pixels.decode import decode


@pytest.fixture(scope="module")
def photos() -> list[tuple[Path, int]]:
    """The 20 photos that ship with foolbox, with their classes."""
    spec = importlib.util.find_spec("foolbox")
    assert spec
    assert spec.origin
    paths = sorted((Path(spec.origin).parent / "data").glob("imagenet_*"))
    return [(path, int(path.stem.rsplit("_", 1)[1])) for path in paths]


def count_correct(inputs: torch.Tensor, photos: list[tuple[Path, int]], home: Path) -> int:
    weights = find_weights(open_home(home), EMBEDDED, "embedded")
    assert weights
    with torch.inference_mode():
        predicted = load_network(EMBEDDED, weights)(inputs).argmax(dim=1)
    return int((predicted == torch.tensor([label for _, label in photos])).sum())


def test_at_least_16_of_20_photos_are_classified_correctly_with_timms_transform(
    photos: list[tuple[Path, int]], tmp_path: Path
) -> None:
    import timm

    config = timm.data.resolve_model_data_config(timm.create_model("tf_efficientnet_lite0"))
    transform = timm.data.create_transform(**config, is_training=False)
    inputs = torch.stack([transform(Image.open(path).convert("RGB")) for path, _ in photos])
    assert len(photos) == 20
    assert count_correct(inputs, photos, tmp_path) >= 16


def test_frostlines_pixels_equal_timms_to_one_level(photos: list[tuple[Path, int]], tmp_path: Path) -> None:
    import timm

    settings = EmbedSettings(dtype="float32")
    weights = find_weights(open_home(tmp_path), settings.backbone, settings.weights)
    assert weights
    transform = decide_recipe(settings, weights).transform
    pixels = np.stack([decode(path.read_bytes(), transform) for path, _ in photos])
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
    inputs = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    config = timm.data.resolve_model_data_config(timm.create_model("tf_efficientnet_lite0"))
    theirs = timm.data.create_transform(**config, is_training=False)
    expected = torch.stack([theirs(Image.open(path).convert("RGB")) for path, _ in photos])
    level = 1 / 127.5
    torch.testing.assert_close(inputs, expected, atol=level + 1e-6, rtol=0)
    assert count_correct(inputs, photos, tmp_path) >= 16
