"""Erasure as a command: what is found, what it takes, and what to do about the models that knew it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.attach import read_lake, reopen_lake
from storage.erase import Erased, erase, find_images, foresee
from storage.paths import Home


@dataclass(frozen=True)
class Request:
    """What to erase: images by their ids, all of a source, or those of which a condition holds."""

    images: tuple[str, ...] = ()
    source: str | None = None
    where: str | None = None

    @property
    def kind(self) -> str:
        """Name the kind of the request, without its content."""
        given = {"images": self.images, "source": self.source, "condition": self.where}
        return " and ".join(kind for kind, value in given.items() if value)


def plan_erasure(home: Home, request: Request) -> Erased:
    """Say what an erasure would take; writes nothing."""
    with read_lake(home) as lake:
        return foresee(lake, find_images(lake, request.images, request.source, request.where))


def run_erasure(home: Home, request: Request, now: datetime) -> Erased:
    """Erase what is asked for."""
    with reopen_lake(home) as lake:
        images = find_images(lake, request.images, request.source, request.where)
        return erase(lake, images, request.kind, now) if images else foresee(lake, images)


def to_json(erased: Erased) -> dict[str, Any]:
    """Give the object that ``frostline erase --json`` prints."""
    return {
        "images": erased.images,
        "rows": erased.rows,
        "models": [{"name": model.name, "version": model.version, "retrain": model.retrain} for model in erased.models],
        "tags": [{"tag": tag, "snapshot": snapshot} for tag, snapshot in erased.tags],
        "snapshots": erased.snapshots,
    }


def describe(erased: Erased, *, done: bool) -> Sequence[str]:
    """Tell an erasure in a few lines."""
    if not erased.images:
        return ["images    none found, nothing to erase"]
    verb = "erased" if done else "would be erased; add --yes to do it"
    rows = " · ".join(f"{table} {count}" for table, count in erased.rows.items())
    return [
        f"images    {erased.images} {verb}",
        f"rows      {rows}",
        f"snapshots {erased.snapshots} end, and with them time travel to before",
        *(f"tag       {tag} (snapshot {snapshot}) ends" for tag, snapshot in erased.tags),
        *(f"model     {m.name} version {m.version} was trained on them; anew: {m.retrain}" for m in erased.models),
        "files     the pictures themselves are yours to delete: a scan that finds them takes them in again",
    ]
