"""Checkpoints, from which an interrupted training resumes."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save

from storage.artifacts.head_files import Arrays
from storage.errors import TrainError
from storage.locations.atomic import write_file
from storage.locations.home import Home


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name, and facts as JSON."""

    arrays: Arrays
    facts: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the previous one.

    Raises:
        TrainError: if it cannot be written.
    """
    data = save(dict(checkpoint.arrays), metadata={"facts": json.dumps(checkpoint.facts)})
    try:
        with write_file(path) as unfinished:
            unfinished.write_bytes(data)
    except OSError as error:
        remedy = "Make room on the disk, then train again: it resumes from the last one"
        raise TrainError(f"checkpoint {path}", f"cannot be written ({error.strerror})", remedy) from error


def list_left(home: Home, before: datetime) -> list[Path]:
    """List the checkpoints written before a time, which belong to trainings that nobody has resumed since."""
    return sorted(path for path in home.heads.glob("*/checkpoints/*") if path.stat().st_mtime < before.timestamp())


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint that :func:`save_checkpoint` wrote; None if there is none."""
    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return Checkpoint(arrays, json.loads(file.metadata()["facts"]))
