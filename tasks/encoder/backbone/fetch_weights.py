"""Weights by name, downloaded into the home once from where their library publishes them."""

import re
import shutil
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from storage.errors import WeightsError
from storage.locations.atomic import write_file
from storage.locations.home import Home
from storage.plural import pluralize
from tasks.encoder.backbone.weights import Weights, digest_file, name_local_file

Download = Callable[[Path], object]
"""Writes weights to a path."""


def fetch_weights(home: Home, name: str) -> Weights:
    """Download ``torchvision:NAME`` or ``timm:NAME`` into the home.

    Raises:
        WeightsError: if the library has no such weights, or the download fails.
    """
    library, _, key = name.partition(":")
    try:
        suffix, download = _find_torchvision(key) if library == "torchvision" else _find_timm(key)
        path = home.weights / f"{name_local_file(name)}{suffix}"
        with write_file(path) as unfinished:
            download(unfinished)
    except WeightsError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"weights {name}",
            f"could not be downloaded ({reason})",
            "Connect to the network, or download the file elsewhere and name it with --embed.weights FILE",
        ) from error
    return Weights(path, digest_file(path))


def _find_torchvision(key: str) -> tuple[str, Download]:
    from torchvision.models import get_weight

    try:
        weights = get_weight(key)
    except (KeyError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"weights torchvision:{key}",
            "are unknown to torchvision",
            "Use a name such as torchvision:ResNet18_Weights.IMAGENET1K_V1",
        ) from error
    return ".pth", partial(_download, weights.url)


def _find_timm(key: str) -> tuple[str, Download]:
    from huggingface_hub import hf_hub_download
    from timm.models import get_pretrained_cfg

    try:
        cfg = get_pretrained_cfg(key)
    except RuntimeError:  # a tag that the network does not have
        cfg = None
    if cfg is None:
        raise WeightsError(f"weights timm:{key}", "are unknown to timm", "Use a name such as timm:resnet18.a1_in1k")
    if cfg.hf_hub_id:
        return ".safetensors", partial(shutil.copyfile, hf_hub_download(cfg.hf_hub_id, "model.safetensors"))
    return ".pth", partial(_download, str(cfg.url))


def _download(url: str, to: Path) -> None:
    """Download a file; check its length against the server's header, and its hash against the one in its name."""
    with urllib.request.urlopen(url, timeout=60) as response, to.open("wb") as file:  # noqa: S310 - from the library
        shutil.copyfileobj(response, file)
        expected = response.headers.get("Content-Length")
    if expected and to.stat().st_size != int(expected):
        raise OSError(f"received {to.stat().st_size:,} of {pluralize(int(expected), 'byte')}")
    prefix = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    if prefix and not digest_file(to).startswith(prefix[1]):
        raise OSError(f"its SHA-256 does not start with {prefix[1]}")
