"""Networks of torchvision and timm: building them, loading their weights, and the input that they expect."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from storage.errors import BackboneError, WeightsError
from tasks.encoder.backbone.weights import Weights


@dataclass(frozen=True)
class Input:
    """The input that a network expects, according to its library.

    ``size`` is (height, width) in pixels, ``share`` the crop's side as a share of the resized shorter side.
    """

    size: tuple[int, int]
    share: float
    squash: bool
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def find_input(backbone: str, weights: str) -> Input:
    """Look up the input that a network was trained on; for weights that have a name, with these weights.

    Raises:
        BackboneError: if there is no such network.
    """
    check_name(backbone)
    library, _, name = backbone.partition("/")
    source, _, key = weights.partition(":")
    if library == "timm":
        return _timm_input(key if source == "timm" else name)
    return _torchvision_input(name, key if source == "torchvision" else "")


def load_network(backbone: str, weights: Weights) -> nn.Module:
    """Build a network, load all its weights, freeze it, and put it into evaluation mode.

    Raises:
        BackboneError: if there is no such network.
        WeightsError: if the weights cannot be read or do not fit it.
    """
    state = _read_state(weights)
    network = _build(backbone)
    if weights.by_order:
        state = _rename_by_order(network, state, weights)
    name, head = find_classifier(network)
    stored = state.get(f"{name}.weight")
    if head is not None and stored is not None and stored.ndim == head.weight.ndim and len(stored) != len(head.weight):
        network = _build(backbone, num_classes=len(stored))  # for other classes; the classifier is not used anyway
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"weights {weights.path.name}",
            f"do not fit {backbone} ({reason})",
            "Set --embed.backbone to the network that they belong to",
        ) from error
    return network.eval().requires_grad_(requires_grad=False)


def build_meta_network(backbone: str, size: tuple[int, int]) -> nn.Module:
    """Build a network on the meta device, without values in its weights, for an image size (height, width).

    Raises:
        BackboneError: if there is no such network.
    """
    fixed = {"image_size": size[0]} if backbone.startswith("torchvision/vit_") else {}
    try:
        with torch.device("meta"):
            network = _build(backbone, **fixed)
    except NotImplementedError:  # if it computes its widths with tensors
        network = _build(backbone).to("meta")
    return network.eval().requires_grad_(requires_grad=False)


def find_classifier(network: nn.Module) -> tuple[str, Any]:
    """Return the name and module of the last linear layer, an ImageNet network's classifier; ("", None) if none."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else ("", None)


def _build(backbone: str, **options: Any) -> nn.Module:  # noqa: ANN401 - the libraries' keywords
    check_name(backbone)
    library, _, name = backbone.partition("/")
    if library == "timm":
        import timm

        return cast("nn.Module", timm.create_model(name, pretrained=False, **options))
    from torchvision import models

    return cast("nn.Module", models.get_model(name, weights=None, **options))


def check_name(backbone: str) -> None:
    """Check that a library has a network of this name.

    Raises:
        BackboneError: if it does not; the error suggests similar names.
    """
    library, _, name = backbone.partition("/")
    if library == "timm":
        import timm

        names = timm.list_models()
        exists = timm.is_model(name)
    elif library == "torchvision":
        from torchvision import models

        names = models.list_models(module=models)
        exists = name in names
    else:
        raise BackboneError(
            f"backbone {backbone!r}",
            "must be timm/NAME or torchvision/NAME",
            "Write it with its library, such as torchvision/resnet18",
        )
    if not exists:
        raise _unknown(backbone, names)


def _unknown(backbone: str, names: list[str]) -> BackboneError:
    library, _, name = backbone.partition("/")
    matches = [f"{library}/{match}" for match in difflib.get_close_matches(name, names, n=3)]
    remedy = f"Did you mean {' or '.join(matches)}?" if matches else "Check its spelling"
    return BackboneError(f"backbone {backbone}", f"is not a classification network of {library}", remedy)


def _read_state(weights: Weights) -> Mapping[str, Tensor]:
    try:
        if weights.path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return cast("Mapping[str, Tensor]", load_file(weights.path))
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"weights {weights.path}", f"cannot be read as tensors only ({reason})", "Save them as .safetensors"
        ) from error
    for key in ("state_dict", "model"):  # as training scripts wrap them
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights {weights.path}", "contain no named tensors", "Save the network's state_dict()")
    return state


def _rename_by_order(network: nn.Module, state: Mapping[str, Tensor], weights: Weights) -> Mapping[str, Tensor]:
    names = network.state_dict()
    pairs = list(zip(names.items(), state.values(), strict=False))
    if len(names) != len(state) or any(expected.shape != stored.shape for (_, expected), stored in pairs):
        raise WeightsError(
            f"weights {weights.path.name}", "do not have the network's tensors in its order", "Reinstall them"
        )
    return {name: stored for (name, _), stored in pairs}


def _timm_input(name: str) -> Input:
    import timm
    from timm.data.config import resolve_data_config

    try:
        defaults = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        remedy = f"Choose one of {', '.join(tags)}" if tags else "Leave the tag out"
        raise BackboneError(f"timm/{name}", "has a tag that timm does not know", remedy) from error
    cfg = resolve_data_config(pretrained_cfg=defaults.to_dict() if defaults else {})
    return Input(
        tuple(cfg["input_size"][1:]),
        cfg["crop_pct"],
        cfg["crop_mode"] == "squash",
        cfg["interpolation"],
        tuple(cfg["mean"]),
        tuple(cfg["std"]),
    )


def _torchvision_input(name: str, key: str) -> Input:
    from torchvision import models

    weights = models.get_weight(key) if key else models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    side = preset.crop_size[0]
    return Input(
        size=(side, side),
        share=side / preset.resize_size[0],
        squash=False,
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
