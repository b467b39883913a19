"""The layers after a packed backbone's cut, opened without importing torch before they are needed."""

from pathlib import Path
from typing import TYPE_CHECKING

from storage.artifacts.head_files import Arrays

if TYPE_CHECKING:
    from tasks.encoder.backbone.cuts import TailLayers


def open_layers(folder: Path, state: Arrays | None = None) -> "TailLayers":
    """Open the layers after a packed backbone's cut; see :func:`tasks.encoder.backbone.cuts.open_tail`."""
    from tasks.encoder.backbone.cuts import open_tail

    return open_tail(folder, state)
