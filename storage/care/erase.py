"""Erasure: remove images from every table, every snapshot and every file.

One guarded transaction first deletes the rows and inserts an open row into ``erasures``. Files and old snapshots
follow, see :mod:`storage.care.scrub`. The next erasure finishes one that was interrupted in between.
"""

import json
import shlex
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from storage.artifacts.head_files import count_remembered
from storage.care.scrub import rewrite_features, scrub
from storage.errors import EraseError
from storage.lake.attach import open_lake, read_lake
from storage.lake.ducklake_files import META
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.path_text import decode_path
from storage.names import LabelSetName, SourceName
from storage.tables.label_sets import find_root, list_sources
from storage.tables.leases import mark_erased
from storage.tables.trainings import HEAD, REMEMBERS_IMAGES
from storage.vectors.feature_file import to_uuids
from storage.vectors.features_reader import check_condition, explain_condition, select_images

ROWS = {
    "failures": "image_id IN (FROM _doomed) OR source = $1 OR (source, path) IN (FROM _paths)",
    "files": "image_id IN (FROM _doomed) OR source = $1",
    "labels": "image_id IN (FROM _doomed) OR source = $1",
    "features": "image_id IN (FROM _doomed)",
    "canaries": "probe IN (SELECT image_id::VARCHAR FROM _doomed)",
    "training_sets": """image_id IN (FROM _doomed) OR image_id IN (FROM _parted)
                        AND training_id IN (SELECT training_id FROM heads WHERE label_set = $1)""",
    "splits": "image_id IN (FROM _doomed) OR image_id IN (FROM _parted) AND label_set = $1",
    "predictions": """image_id IN (FROM _doomed) OR image_id IN (FROM _parted) AND name IN
                      (SELECT m.name FROM models m JOIN heads h USING (training_id) WHERE h.label_set = $1)""",
    "gate_rows": """image_id IN (FROM _doomed) OR image_id IN (FROM _parted) AND name IN
                    (SELECT m.name FROM models m JOIN heads h USING (training_id) WHERE h.label_set = $1)""",
    "images": "image_id IN (FROM _doomed)",
}
"""The rows to delete from each table: those of doomed images, and those that source $1 has of images that stay."""
SCRUBBED = (*ROWS, "leases")
"""The tables whose old rows name images. Leases stay: their runs may hold one. The ends of their ranges are moved."""

ID_DIGITS = 32


@dataclass(frozen=True)
class ErasureRequest:
    """What to erase: images, or everything in a source. An image that is also in another source stays there."""

    kind: Literal["images", "source", "condition"]
    image_ids: tuple[str, ...] = ()
    source: SourceName | None = None


@dataclass(frozen=True)
class AffectedModel:
    """A model that was trained or measured on doomed images; ``version`` is None if its head was never registered.

    ``example`` is whether the logged model may contain one of them, as its input example or as a neighbour of its
    k-NN head. ``retrain`` is a command line.
    """

    name: str
    version: int | None
    alias: str | None
    run_id: str | None
    images: int
    example: bool
    retrain: str


@dataclass(frozen=True)
class Erasure:
    """What an erasure would delete, or has deleted: rows by table, snapshots, tags, files of the lake, and models.

    ``remaining_files`` counts, by source, the image files that are still in their sources.
    """

    kind: str
    images: int
    rows: Mapping[str, int]
    snapshots: int
    tags: tuple[str, ...]
    files: int
    models: tuple[AffectedModel, ...]
    remaining_files: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``frostline erase --json`` prints."""
        fields = asdict(self)
        return {"asked": fields.pop("kind"), **fields, "lying": fields.pop("remaining_files")}


def find_images(lake: Lake, named: Sequence[str]) -> ErasureRequest:
    """Find images by their ids, or unique prefixes of them.

    Raises:
        EraseError: if one matches no image of the lake, or several.
    """
    return ErasureRequest("images", tuple(dict.fromkeys(_find_image(lake, name) for name in named)))


def find_source(lake: Lake, source: SourceName) -> ErasureRequest:
    """Find a source.

    Raises:
        EraseError: if the lake has no such source.
    """
    count = "SELECT (SELECT count(*) FROM scans WHERE source = $1) + (SELECT count(*) FROM files WHERE source = $1)"
    if not lake.value(count, [source]):
        raise EraseError(f"source {source!r}", "does not exist in this lake", "See `frostline status`")
    return ErasureRequest("source", source=source)


def find_condition(lake: Lake, where: str) -> ErasureRequest:
    """Find the images that meet a condition with at least one of their files and labels, in a lake open for reading.

    Raises:
        QueryError: if DuckDB refuses the condition.
        EraseError: if no image meets it.
    """
    with explain_condition("--where"):
        check_condition(lake, None, where)
        image_ids = lake.column(f"SELECT DISTINCT image_id::VARCHAR FROM ({select_images(None, where)})")
    if not image_ids:
        raise EraseError("--where", "is met by no image", "Try it with `frostline sql` over images, files and labels")
    return ErasureRequest("condition", tuple(image_ids))


def survey(home: Home, request: ErasureRequest) -> Erasure:
    """Return what an erasure would delete, without writing."""
    with read_lake(home) as lake:
        _select_doomed(lake, request)
        return _count(lake, request)


def erase(home: Home, request: ErasureRequest, now: datetime) -> tuple[Erasure, int]:
    """Erase, and record that it was done, never what.

    Returns:
        What was deleted, and the number of runs and files that may still hold an erased image: while there are any, the
        erasure stays open.

    Raises:
        LakeError: if the lake cannot be written; :func:`finish` completes an interrupted erasure.
    """
    with open_lake(home) as lake:
        deleted = lake.commit(lambda: _delete_rows(lake, request, now))
    return deleted, finish(home, now)


def count_open(lake: Lake) -> int:
    """Count the unfinished erasures."""
    return int(lake.value("SELECT count(*) FROM erasures WHERE erased_at IS NULL"))


def finish(home: Home, now: datetime) -> int:
    """Finish every erasure whose rows are deleted but whose files are not.

    Returns:
        The number of runs and files that may still hold an erased image.
    """
    with read_lake(home) as lake:
        open_ids = lake.column("SELECT erasure_id FROM erasures WHERE erased_at IS NULL")
        if not open_ids:
            return 0
        _delete_heads(lake)
    remaining = scrub(home, now, SCRUBBED)
    if not remaining:
        with open_lake(home) as lake:
            sql = "UPDATE erasures SET erased_at = ? WHERE erasure_id IN (SELECT unnest(?))"
            lake.commit(lambda: lake.execute(sql, [now, open_ids]))
    return remaining


def _delete_heads(lake: Lake) -> None:
    """Delete the heads in this home that remember more images than their training has rows left.

    A head without a recorded training was left by a killed run; any of its vectors may be that of an erased image.
    """
    found = lake.rows("SELECT training_id, count(*) FROM training_sets WHERE split = 'train' GROUP BY ALL")
    rows = {str(training_id): int(count) for training_id, count in found}
    for path in lake.home.heads.glob(f"*/{HEAD}"):
        if count_remembered(path) > rows.get(path.parent.name, 0):
            path.unlink()


def _find_image(lake: Lake, name: str) -> str:
    digits = name.replace("-", "").lower()
    if not digits or len(digits) > ID_DIGITS or set(digits) - set("0123456789abcdef"):
        raise EraseError(
            f"image {name!r}", "must be the id of an image or its beginning", "See `frostline sql 'from images'`"
        )
    ends = [str(uuid.UUID(digits.ljust(ID_DIGITS, fill))) for fill in "0f"]
    found = lake.column("SELECT image_id::VARCHAR FROM images WHERE image_id BETWEEN ?::UUID AND ?::UUID LIMIT 2", ends)
    if len(found) == 1:
        return str(found[0])
    rule, remedy = (
        ("begins several ids", "Write more of it") if found else ("does not exist in this lake", "Check the id")
    )
    raise EraseError(f"image {name!r}", rule, f"{remedy}; see `frostline sql 'from files'`")


def _delete_rows(lake: Lake, request: ErasureRequest, now: datetime) -> Erasure:
    """Delete the rows from every table, within a transaction."""
    _select_doomed(lake, request)
    deleted = _count(lake, request)
    rewrite_features(lake, f"NOT ({ROWS['features']})", now)
    for table, condition in ROWS.items():
        if deleted.rows[table]:
            lake.execute(f"DELETE FROM {table} WHERE {condition}", _parameters(condition, request))
    mark_erased(lake)
    lake.execute("DELETE FROM tags")
    models = json.dumps([{"name": model.name, "version": model.version} for model in deleted.models])
    row = [str(uuid.uuid4()), request.kind, deleted.images, sum(deleted.rows.values()), models]
    lake.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?, NULL)", row)
    return deleted


def _select_doomed(lake: Lake, request: ErasureRequest) -> None:
    """Create the tables that ``ROWS`` uses: doomed images, images that only leave the source, and doomed paths."""
    if request.source is None:
        with lake.temporary_tables(_named=pa.table({"image_id": to_uuids(request.image_ids)})):
            lake.execute("CREATE OR REPLACE TEMP TABLE _doomed AS FROM _named")
    else:
        lake.execute(
            """CREATE OR REPLACE TEMP TABLE _doomed AS SELECT DISTINCT image_id FROM files WHERE source = $1
               AND image_id NOT IN (SELECT image_id FROM files WHERE source <> $1 AND image_id IS NOT NULL)""",
            [request.source],
        )
    lake.execute(
        """CREATE OR REPLACE TEMP TABLE _parted AS SELECT DISTINCT image_id FROM files
           WHERE source = ? AND image_id NOT IN (FROM _doomed)""",
        [request.source],
    )
    paths = "SELECT source, path FROM files WHERE image_id IN (FROM _doomed)"
    lake.execute(f"CREATE OR REPLACE TEMP TABLE _paths AS {paths}")


def _count(lake: Lake, request: ErasureRequest) -> Erasure:
    rows = {
        table: int(lake.value(f"SELECT count(*) FROM {table} WHERE {condition}", _parameters(condition, request)))
        for table, condition in ROWS.items()
    }
    files = lake.value(
        f"SELECT count(*) FROM {META}.ducklake_data_file WHERE table_id IN "
        f"(SELECT table_id FROM {META}.ducklake_table WHERE table_name IN (SELECT unnest(?)))",
        [[table for table, count in rows.items() if count]],
    )
    return Erasure(
        request.kind,
        int(lake.value("SELECT count(*) FROM _doomed")),
        rows,
        int(lake.value("SELECT count(*) FROM ducklake_snapshots('lake')")),
        tuple(lake.column("SELECT tag FROM tags ORDER BY tag")),
        int(files),
        tuple(_list_models(lake, request)),
        _count_remaining_files(lake, request),
    )


def _list_models(lake: Lake, request: ErasureRequest) -> list[AffectedModel]:
    condition = ROWS["training_sets"]
    found = lake.rows(
        f"""SELECT coalesce(m.name, h.label_set), m.version, m.alias, m.run_id, count(DISTINCT t.image_id),
              bool_or(m.name IS NOT NULL AND (t.split = 'test' OR {REMEMBERS_IMAGES})),
              h.label_set
            FROM (FROM training_sets WHERE {condition}) t JOIN heads h USING (training_id)
            LEFT JOIN models m USING (training_id) GROUP BY ALL ORDER BY ALL""",
        _parameters(condition, request),
    )
    return [
        AffectedModel(name, version, alias, run_id, images, example, _retrain(lake, label_set))
        for name, version, alias, run_id, images, example, label_set in found
    ]


def _retrain(lake: Lake, label_set: LabelSetName) -> str:
    root = find_root(lake, list_sources(lake, label_set))
    folder = decode_path(root) if root else "FOLDER"
    command = ["frostline", "run", folder, "--name", label_set, "--home", str(lake.home.root)]
    return shlex.join(command)


def _count_remaining_files(lake: Lake, request: ErasureRequest) -> dict[str, int]:
    """Count, by source, the image files that still exist: the next run would ingest them again."""
    found = lake.rows(
        f"""SELECT source, path, (SELECT arg_max(root, scanned_at) FROM scans s WHERE s.source = f.source)
            FROM files f WHERE {ROWS["files"]}""",
        [request.source],
    )
    sources = (
        source for source, path, root in found if root and (Path(decode_path(root)) / decode_path(path)).is_file()
    )
    return dict(Counter(sources))


def _parameters(condition: str, request: ErasureRequest) -> list[Any]:
    return [request.source] if "$1" in condition else []
