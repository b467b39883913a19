"""From settings to a recipe: whatever the settings leave open is decided here, once."""

import math
from typing import cast

import torch
from torch import nn

from storage.errors import BackboneError, SettingsError
from storage.recipe import Dtype, Interpolation, Recipe, Transform
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.forward import cut_off, pool
from tasks.encoder.backbone.networks import Input, find_input, load_network
from tasks.encoder.backbone.open_backbone import fast_dtype
from tasks.encoder.backbone.weights import Weights


def decide_recipe(settings: EmbedSettings, weights: Weights) -> Recipe:
    """Decide what the settings leave open, and verify it by running one image.

    Raises:
        BackboneError: if there is no such network or cut, or the network does not take the crop.
        SettingsError: if the transform is invalid or the device is not available.
        WeightsError: if the weights do not fit.
    """
    expected = find_input(settings.backbone, settings.weights)
    transform = _resolve_transform(settings, expected)
    network = load_network(settings.backbone, weights)
    shape = _measure_shape(network, settings, transform)
    return Recipe(
        architecture=settings.backbone.partition(".")[0],
        weights=weights.digest,
        cut=settings.cut,
        pooling=settings.pooling,
        transform=transform,
        dtype=_resolve_dtype(settings),
        stored="float16" if settings.stored == "float16" else "float32",
        shape=shape,
    )


def _resolve_dtype(settings: EmbedSettings) -> Dtype:
    if settings.dtype != "auto":
        return cast("Dtype", settings.dtype)
    return "float32" if settings.cut == "input" else fast_dtype(settings.device)  # nothing is computed


def _resolve_transform(settings: EmbedSettings, expected: Input) -> Transform:
    crop = (settings.crop, settings.crop) if settings.crop else expected.size
    resize = settings.resize or math.floor(min(crop) / expected.share)
    interpolation = settings.interpolation or expected.interpolation
    if interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
        raise SettingsError(
            f"interpolation {interpolation}",
            "is not one of nearest, bilinear, bicubic, lanczos",
            "Set --embed.interpolation to one of these",
        )
    if resize < max(crop) and not expected.squash:
        raise SettingsError(
            f"embed.resize {resize}",
            f"is smaller than the crop {max(crop)}",
            "Raise --embed.resize or lower --embed.crop",
        )
    return Transform(
        resize=resize,
        crop=crop,
        squash=expected.squash,
        interpolation=cast("Interpolation", interpolation),
        mean=expected.mean,
        std=expected.std,
        decoder=settings.decoder,
    )


def _measure_shape(network: nn.Module, settings: EmbedSettings, transform: Transform) -> tuple[int, ...]:
    try:
        with torch.inference_mode():
            probe = torch.zeros(1, 3, *transform.crop)
            value = cut_off(network, settings.cut, probe)(probe)
            return tuple(pool(value, settings.pooling).shape[1:])
    except (RuntimeError, AssertionError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"backbone {settings.backbone} cut at {settings.cut}",
            f"does not run on {transform.crop[0]} x {transform.crop[1]} pixels ({reason})",
            "Leave --embed.crop at its default, or choose another cut",
        ) from error
