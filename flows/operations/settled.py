"""Answer a run with nothing to do at once.

A run that leaves nothing to do saves that fact. The next run first checks that nothing has changed since: it lists the
source, and looks at the lake and at the files that the run depended on. This is a pure read, and imports none of
Prefect, torch and MLflow. If it cannot tell, a full run decides.
"""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.reports.throughput import NONE
from flows.settings import RunSettings
from storage.canonical import digest
from storage.lake.attach import read_lake
from storage.lake.lake import Lake
from storage.lake.migrate import VERSION
from storage.lake.snapshots import find_time, list_changes
from storage.locations.atomic import write_file
from storage.locations.home import Home
from storage.locations.stamps import Stamp, stamp_files
from storage.tables.lost_files import find_lost
from storage.tables.scans import Listing
from tasks.ingest.scan import list_unchanged
from tasks.register.settings import REGISTERED_BEFORE, resolve_tracking_uri

COORDINATION = frozenset({"guard", "leases"})
"""The tables by which runs coordinate."""
OUTPUTS = COORDINATION | {
    *("scans", "splits", "training_sets", "heads", "models", "predictions", "gate_rows", "promotions"),
}
"""The tables that a run adds to after the snapshot that it trains on. What other runs add does not matter to this one;
what anybody takes away does."""
MAX_REMEMBERED = 20
"""What was remembered for older settings is deleted."""


class Settled(BaseModel):
    """What a run left when nothing was left to do.

    Attributes:
        snapshot: The snapshot that the run trained on.
        made: When that snapshot was made, since a restored lake may use its number again.
        recipes: The recipes whose features it used.
        files: The files that it depends on, with their stamps: weights, backbones, the head, the registry.
        report: What the next run reports if nothing changes.
    """

    model_config = ConfigDict(frozen=True)

    snapshot: int
    made: str
    recipes: tuple[str, ...]
    files: dict[str, Stamp]
    report: dict[str, Any]


def remember(settings: RunSettings, files: dict[str, Stamp], report: dict[str, Any], recipes: tuple[str, ...]) -> None:
    """Remember that a run has left nothing to do.

    Args:
        settings: The run's settings.
        files: The files that it depended on, stamped before it read them.
        report: What it reports, as JSON.
        recipes: The recipes whose features it used.
    """
    home = settings.resolved_home
    with read_lake(home) as lake:
        made = find_time(lake, report["snapshot"])
    settled = Settled(
        snapshot=report["snapshot"], made=made, recipes=recipes, files=files, report=_to_idle_report(report)
    )
    with write_file(_file(home, settings)) as unfinished:
        unfinished.write_text(settled.model_dump_json() + "\n", encoding="utf-8")
    newest_first = sorted(home.settled.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in newest_first[MAX_REMEMBERED:]:
        file.unlink(missing_ok=True)


def find_idle_report(settings: RunSettings) -> dict[str, Any] | None:
    """Look whether a run would do nothing; return what it would report, or None if it must run to find out.

    Raises:
        SourceError: if the source is missing, or its name belongs to another folder.
        LakeError: if the lake cannot be read.
    """
    began, home = time.perf_counter(), settings.resolved_home
    if settings.retry or settings.rehash:
        return None
    settled = _read(_file(home, settings))
    if settled is None or stamp_files(map(Path, settled.files)) != settled.files:
        return None
    with read_lake(home) as lake:
        snapshot = _find_snapshot(lake, settled)
        listing = _list_unchanged(lake, settings) if snapshot is not None else None
    if listing is None:
        return None
    files = {**settled.report["files"], "ignored": listing.ignored}
    report = {**settled.report, "snapshot": snapshot, "files": files}
    seconds = round(time.perf_counter() - began, 3)
    return {**report, "seconds": {"look": seconds, "total": seconds}}


def _find_snapshot(lake: Lake, settled: Settled) -> int | None:
    """Return the newest snapshot; None if something that a run reads in the lake has changed since, or is lost."""
    changes = list_changes(lake, settled.snapshot, settled.made) if lake.exists else None
    if changes is None or changes.added - OUTPUTS or changes.rewritten - COORDINATION:
        return None
    return None if any(find_lost(lake, recipe) for recipe in settled.recipes) else changes.newest


def _list_unchanged(lake: Lake, settings: RunSettings) -> Listing | None:
    """List the source; None if it has changed."""
    return list_unchanged(lake, settings.source_name, settings.source_path, settings.ingest, settings.label_set)


def _read(file: Path) -> Settled | None:
    try:
        return Settled.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):  # an earlier release may have written another form
        return None


def _file(home: Home, settings: RunSettings) -> Path:
    """Return the file for these settings. Its name is a hash of all that could lead a run to another result."""
    values = settings.model_dump(mode="json", exclude={"home", "source", "name", "retry", "rehash", "accept_gone"})
    decisive = {
        "settings": values,
        "source": [settings.source_name, str(settings.source_path)],
        "registry": resolve_tracking_uri(home, settings.registry),
        "release": [version("frostline"), VERSION],
    }
    return home.settled / f"{digest(decisive)}.json"


def _to_idle_report(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a run that follows another and finds nothing changed."""
    images, features = report["images"], report["features"]
    return {
        **report,
        "images": {**images, "new": 0, "unchanged": images["seen"], "gone": 0},
        "files": {**report["files"], "opened": 0},
        "features": {**features, "computed": 0, "reused": features["computed"] + features["reused"]},
        "backbone_calls": 0,
        "pace": NONE.to_json(),
        "trained": False,
        "model": {**report["model"], "new": False, "gate": REGISTERED_BEFORE},
    }
