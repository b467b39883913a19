"""Writing and reading heads as safetensors files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from storage.artifacts.head_files import ARRAYS, CHOSEN_FROM, KNOWN, LAYERS, Arrays, Kind, read_parts
from storage.errors import TrainError
from storage.locations.atomic import write_file
from tasks.heads.heads import Classifier, Head, KnownImages, Neighbours, Tail, TailLayers

OPENER = "tasks.embed.cuts:open_tail"
"""Written into each tail's file, because an earlier release opens the layers with the function of this name."""

OpenLayers = Callable[[Path, Arrays | None], TailLayers]
"""Opens the layers after a packed backbone's cut, with the arrays that a head stored for them."""

_KINDS: dict[type[Classifier], Kind] = {Head: "head", Tail: "tail", Neighbours: "neighbours"}
_CLASSES: dict[Kind, type[Classifier]] = {kind: head for head, kind in _KINDS.items()}


def save_head(head: Classifier, path: Path) -> None:
    """Write a head; the same head gives the same bytes."""
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ARRAYS[_KINDS[type(head)]]}
    arrays["temperature"] = np.array([head.temperature])
    if head.refuse_below:
        arrays["refuse_below"] = np.array([head.refuse_below])
    if head.known is not None:
        arrays[KNOWN] = np.ascontiguousarray(head.known.vectors)
        arrays[CHOSEN_FROM] = np.array([head.known.chosen_from])
    if head.views > 1:
        arrays["views"] = np.array([head.views])
    if isinstance(head, Head) and head.thresholds:
        arrays["thresholds"] = np.array(head.thresholds)
    for number, layer in enumerate(head.hidden if isinstance(head, Head) else ()):
        for name, array in zip(("weights", "bias"), layer, strict=True):
            arrays[f"hidden.{number}.{name}"] = np.ascontiguousarray(array)
    facts = {"classes": json.dumps(head.classes)}  # a single entry: safetensors writes several in any order
    if isinstance(head, Tail):
        arrays |= {f"{LAYERS}{name}": array for name, array in head.layers.state().items()}
        facts = {"tail": json.dumps({"classes": head.classes, "opener": OPENER})}
    with write_file(path) as unfinished:
        unfinished.write_bytes(save(arrays, metadata=facts))


def load_head(path: Path, backbone: Path | None = None, open_layers: OpenLayers | None = None) -> Classifier:
    """Read a head that :func:`save_head` wrote. Fields that an earlier release did not write get neutral defaults.

    Args:
        path: The head's file.
        backbone: The packed backbone of the head's recipe, which a tail needs.
        open_layers: Opens the layers after the backbone's cut, which a tail needs.

    Raises:
        TrainError: if a tail is read without its backbone, or if its layers are not a backbone's.
    """
    kind, facts, arrays = read_parts(path)
    own: dict[str, Any] = {name: arrays[name] for name in ARRAYS[kind]}
    own["temperature"] = float(arrays.get("temperature", np.ones(1))[0])
    own["views"] = int(arrays.get("views", np.ones(1))[0])
    own["refuse_below"] = float(arrays.get("refuse_below", np.zeros(1))[0])
    if KNOWN in arrays:
        own["known"] = KnownImages(arrays[KNOWN], int(arrays[CHOSEN_FROM][0]))
    if kind == "tail":
        if facts["opener"] != OPENER:
            raise TrainError(
                f"head {path}", f"has layers of an unknown kind ({facts['opener']})", "Train the head again"
            )
        if backbone is None or open_layers is None:
            raise TrainError(f"head {path}", "is a tail, which needs its backbone", "Run `frostline run` to pack it")
        state = {name.removeprefix(LAYERS): array for name, array in arrays.items() if name.startswith(LAYERS)}
        own["layers"] = open_layers(backbone, state)
    depth = sum(name.startswith("hidden.") for name in arrays) // 2
    layers = tuple((arrays[f"hidden.{number}.weights"], arrays[f"hidden.{number}.bias"]) for number in range(depth))
    if kind != "neighbours":
        own |= {"hidden": layers, "thresholds": tuple(map(float, arrays.get("thresholds", ())))}
    head: Classifier = _CLASSES[kind](classes=tuple(facts["classes"]), **own)
    return head
