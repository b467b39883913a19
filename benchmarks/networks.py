"""The networks that are timed: their recipes, written by hand, and their weights, random where none are at hand."""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from benchmarks.photos import KEPT
from storage.errors import WeightsError
from storage.locations.home import Home
from storage.recipe import Decoder, Dtype, Interpolation, Recipe, Transform
from tasks.encoder.backbone.weights import Weights, digest_file, find_weights
from tasks.encoder.embedder import Embedder

if TYPE_CHECKING:
    from torch import nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Network:
    """A network as its library names it, the length of its vectors, and how it was trained to see."""

    architecture: str
    dim: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def is_here(self) -> bool:
        """Whether its library is installed."""
        return importlib.util.find_spec(self.architecture.partition("/")[0]) is not None


NETWORKS = {
    "resnet50": Network("torchvision/resnet50", 2048, "bilinear", *IMAGENET),
    "vit_b_16": Network("torchvision/vit_b_16", 768, "bilinear", *IMAGENET),
    "tf_efficientnet_lite0": Network("timm/tf_efficientnet_lite0", 1280, "bicubic", *HALF),
}


def get_weights(network: Network) -> Weights:
    """Find the network's real weights where they are installed; write random ones elsewhere: they are as fast."""
    try:
        found = find_weights(Home(KEPT), network.architecture, "embedded")
    except WeightsError:
        found = None
    return found or write_random(network)


def make_recipe(network: Network, weights: Weights, dtype: Dtype, decoder: Decoder = "full") -> Recipe:
    """Write the recipe that resolving the settings would give: 256 pixels, the middle 224, all but the classifier."""
    transform = Transform(256, (224, 224), False, network.interpolation, network.mean, network.std, decoder)  # noqa: FBT003
    return Recipe(
        network.architecture, weights.digest, "avgpool", "average", transform, dtype, "float16", (network.dim,)
    )


def open_engine(network: Network, dtype: Dtype, device: str, batch: int, *, compiled: bool) -> Embedder:
    """Open the product's engine."""
    from tasks.encoder.backbone.open_backbone import open_backbone

    weights = get_weights(network)
    recipe = make_recipe(network, weights, dtype)
    backbone, lanes = open_backbone(recipe, weights, device, batch, compiled=compiled)
    return Embedder(recipe, backbone, batch, lanes)


def write_random(network: Network) -> Weights:
    """Write weights as the network's library starts them, from one seed."""
    path = KEPT / "weights" / f"{network.architecture.replace('/', '_')}.pth"
    if not path.exists():
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(_build(network.architecture).state_dict(), path)
    return Weights(path, digest_file(path))


def _build(architecture: str) -> "nn.Module":
    library, _, name = architecture.partition("/")
    if library == "timm":
        import timm

        return cast("nn.Module", timm.create_model(name, pretrained=False))
    from torchvision import models

    return cast("nn.Module", models.get_model(name, weights=None))
