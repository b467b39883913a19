"""Cuts: the tensors up to which a network can be frozen, and that its two parts compute what the whole does."""

import copy
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.errors import BackboneError
from storage.locations.home import open_home
from storage.recipe import Recipe
from tasks.embed.decide_recipe import decide_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.cuts import list_cut_points, list_cuts, open_tail, split
from tasks.encoder.backbone.forward import cut_off
from tasks.encoder.backbone.graph import trace_network
from tasks.encoder.backbone.open_backbone import open_backbone
from tasks.encoder.backbone.weights import Weights, find_weights
from tasks.encoder.pack import pack_backbone

SIDES = {
    "torchvision/resnet18": 64,
    "torchvision/resnet50": 64,
    "torchvision/mobilenet_v3_small": 64,
    "torchvision/efficientnet_b0": 64,
    "torchvision/densenet121": 64,
    "torchvision/vgg11_bn": 64,
    "torchvision/squeezenet1_1": 64,
    "torchvision/shufflenet_v2_x0_5": 64,
    "torchvision/regnet_y_400mf": 64,
    "torchvision/convnext_tiny": 64,
    "torchvision/swin_t": 64,
    "torchvision/googlenet": 64,
    "torchvision/inception_v3": 80,
    "torchvision/vit_b_16": 224,
    "timm/tf_efficientnet_lite0": 64,
    "timm/resnet26d": 64,
    "timm/convnext_atto": 64,
    "timm/mobilenetv3_small_050": 64,
    "timm/vit_tiny_patch16_224": 224,
    "timm/deit_tiny_distilled_patch16_224": 224,
    "timm/vit_small_patch16_dinov3": 64,
}
NO_SINGLE_CLASSIFIER = {
    "torchvision/squeezenet1_1",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/vit_small_patch16_dinov3",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: tests already run on every core, and small layers gain nothing from two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(backbone: str) -> nn.Module:
    """Build a network with random weights and batch statistics, in evaluation mode."""
    torch.manual_seed(0)
    library, name = backbone.split("/")
    network: nn.Module = (timm.create_model if library == "timm" else torchvision.models.get_model)(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("backbone", SIDES)
@torch.inference_mode()
def test_at_every_cut_the_two_parts_equal_the_whole_and_the_listing_is_right(backbone: str) -> None:
    size = (SIDES[backbone], SIDES[backbone])
    network, pixels = build(backbone), torch.randn(3, 3, *size)
    listed = list_cuts(backbone, crop=size[0])
    traced = trace_network(network, size)
    points = list_cut_points(traced)
    whole, value, before = network(pixels), pixels, traced.start
    assert [cut.name for cut in listed] == list(points)
    for cut, node in zip(listed, points.values(), strict=True):
        value, before = traced.extract(before, node)(value), node
        tail, original = traced.extract(node, traced.end), value.clone()
        torch.testing.assert_close(tail(value), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
        assert torch.equal(value, original), f"the tail after {cut.name} changes its input"
        assert tuple(value.shape) == (3, *cut.shape)
        assert cut.bytes == 2 * math.prod(cut.shape)
        assert cut.parameters_left == sum(parameter.numel() for parameter in tail.parameters())
    assert (listed[0].name, listed[0].shape, listed[0].flops_saved) == ("input", (3, *size), 0)
    assert (listed[-1].name == "avgpool") == (backbone not in NO_SINGLE_CLASSIFIER)
    for first, second in pairwise(listed):
        assert first.flops_saved <= second.flops_saved <= 1
        assert first.parameters_left >= second.parameters_left > 0


@pytest.mark.parametrize("backbone", ["torchvision/resnet18", "torchvision/densenet121", "timm/convnext_atto"])
@torch.inference_mode()
def test_the_front_computes_what_the_lake_stores(backbone: str) -> None:
    network, pixels = build(backbone), torch.randn(2, 3, 64, 64)
    cuts = [cut.name for cut in list_cuts(backbone, crop=64)][1:]
    for cut in (cuts[0], cuts[len(cuts) // 2], cuts[-1]):
        front, _ = split(network, cut, (64, 64))
        assert torch.equal(front(pixels), cut_off(copy.deepcopy(network), cut, pixels)(pixels))


def test_a_resnet_can_be_cut_after_each_block_and_a_transformer_after_each_layer() -> None:
    def names(backbone: str) -> list[str]:
        return [cut.name for cut in list_cuts(backbone)]

    blocks = [f"layer{stage}{block}" for stage in range(1, 5) for block in (".0", "")]  # the last block is its stage
    assert names("torchvision/resnet18") == ["input", "maxpool", *blocks, "avgpool"]
    assert not [name for name in names("torchvision/efficientnet_b0") if ".block." in name]  # a few have no shortcut
    layers = [f"blocks.{layer}" for layer in range(11)]
    assert names("timm/vit_tiny_patch16_224") == [
        *("input", "patch_embed", "pos_drop"),
        *(*layers, "blocks", "norm", "avgpool"),
    ]


def test_freezing_saves_its_share_of_the_multiplications() -> None:
    first = list_cuts("torchvision/resnet18")[1]
    stem, all_layers = 112 * 112 * 64 * 3 * 7 * 7, 1_814_073_344  # torchvision publishes 1.814 GFLOPS
    assert first.flops_saved == pytest.approx(stem / all_layers, rel=1e-6)
    assert (first.bytes, first.pooled) == (2 * 64 * 56 * 56, 2 * 64)
    assert list_cuts("torchvision/resnet18", stored="float32")[1].bytes == 2 * first.bytes


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("layer33", "layer3"),
        ("conv1", "does not divide"),  # its batch norm comes after
        ("layer1.0.conv1", "does not divide"),  # the shortcut bypasses it
    ],
)
def test_an_invalid_cut_is_refused_with_a_suggestion(cut: str, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        split(torchvision.models.resnet18().eval(), cut, (64, 64))


def test_a_stem_whose_batch_norm_is_in_the_next_block_is_not_a_cut() -> None:
    """16-bit recipes scale the two together, so the lake would store other numbers there."""
    cuts = [cut.name for cut in list_cuts("timm/regnetv_040", crop=64)]
    assert cuts[:2] == ["input", "s1.b1"]


def test_a_network_that_branches_on_its_input_is_refused() -> None:
    with pytest.raises(BackboneError, match="cannot be traced"):
        list_cuts("timm/twins_svt_small")


class ModifiesInPlace(nn.Module):
    """Modifies a tensor in place and ignores what the call returns, so a graph of values misses the change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)

    def forward(self, value: Tensor) -> Tensor:
        value = self.first(value)
        value.relu_()
        return self.last(self.second(value).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_a_network_whose_parts_do_not_equal_the_whole_is_refused() -> None:
    with pytest.raises(BackboneError, match="different numbers in two parts"):
        split(ModifiesInPlace().eval(), "second", (8, 8))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small network."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(build("timm/test_resnet").state_dict(), path)
    return path


Pack = Callable[..., tuple[Recipe, Weights, Path]]


@pytest.fixture
def pack(resnet: Path, tmp_path: Path) -> Pack:
    def pack(**settings: str) -> tuple[Recipe, Weights, Path]:
        chosen = EmbedSettings.model_validate({"backbone": "timm/test_resnet", "weights": str(resnet), **settings})
        weights = find_weights(open_home(tmp_path), chosen.backbone, chosen.weights)
        assert weights
        recipe = decide_recipe(chosen, weights)
        pack_backbone(recipe, weights, tmp_path / recipe.recipe_id)
        return recipe, weights, tmp_path / recipe.recipe_id

    return pack


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_the_tail_continues_from_the_lakes_features(pack: Pack, dtype: str, tolerance: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)
    recipe, weights, folder = pack(cut="layer2", pooling="flatten", dtype=dtype)
    stored = torch.from_numpy(open_backbone(recipe, weights, "cpu", 4)[0](pixels))
    pooled = torch.from_numpy(open_backbone(pack(dtype="float32")[0], weights, "cpu", 4)[0](pixels))
    tail, shape, width = open_tail(folder)
    with torch.inference_mode():
        vectors = tail(stored.view(-1, *shape))
    assert vectors.shape == pooled.shape == (4, width)
    torch.testing.assert_close(vectors, pooled, rtol=0, atol=tolerance * float(pooled.abs().max()))


def test_a_tail_has_only_the_layers_after_the_cut_and_can_be_trained(pack: Pack) -> None:
    tail, shape, _ = open_tail(pack(cut="layer2", pooling="flatten", dtype="float32")[2])
    names = {name for name, parameter in tail.named_parameters() if parameter.requires_grad}
    whole = dict(build("timm/test_resnet").named_parameters())
    assert names == {name for name in whole if name.startswith(("layer3", "layer4"))}
    norms = [module for module in tail.modules() if isinstance(module, nn.BatchNorm2d)]
    means = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    tail.train()
    norms[0].eval()
    tail(torch.randn(4, *shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in tail.parameters())
    changed = [
        not torch.equal(mean, norm.running_mean)
        for mean, norm in zip(means, norms, strict=True)
        if norm.running_mean is not None
    ]
    assert changed == [False] + [True] * (len(norms) - 1)


def test_a_tail_refuses_averaged_features(pack: Pack) -> None:
    with pytest.raises(BackboneError, match=r"--embed\.pooling flatten"):
        open_tail(pack(cut="layer2")[2])


def test_a_network_without_a_linear_classifier_has_no_tail(pack: Pack, tmp_path: Path) -> None:
    save_file(build("torchvision/squeezenet1_1").state_dict(), tmp_path / "squeezenet.safetensors")
    squeezenet = {"backbone": "torchvision/squeezenet1_1", "weights": str(tmp_path / "squeezenet.safetensors")}
    with pytest.raises(BackboneError, match="does not end in a single linear layer"):
        open_tail(pack(**squeezenet, cut="features.5", pooling="flatten")[2])
