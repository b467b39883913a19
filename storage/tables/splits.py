"""The splits table: where images were placed for training. Once recorded, an image never moves."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from storage.lake.lake import Lake
from storage.lake.migrate import read_version
from storage.names import LabelSetName
from storage.tables.label_sets import list_sources
from storage.vectors.feature_file import to_uuids

FIRST_VERSION = 7
"""The schema version that added splits; snapshots from before have none."""
DEALT, GIVEN, HASHED = "dealt", "given", "hash"


class RecordedSplit(NamedTuple):
    """Where an image was placed, how, and the snapshot that was being split."""

    split: str
    origin: str
    snapshot: int


class NewSplit(NamedTuple):
    """A split to record."""

    image_id: str
    split: str
    origin: str


def list_splits(lake: Lake, label_set: LabelSetName, scheme: str) -> dict[str, RecordedSplit]:
    """List the recorded splits of a label set's images under one scheme."""
    if read_version(lake) < FIRST_VERSION:
        return {}
    rows = lake.rows(
        "SELECT image_id::VARCHAR, split, origin, snapshot FROM splits WHERE label_set = ? AND scheme = ?",
        [label_set, scheme],
    )
    return {image_id: RecordedSplit(*row) for image_id, *row in rows}


def list_given(lake: Lake, label_set: LabelSetName) -> dict[str, str | None]:
    """List the splits that the folders of a label set's sources give to images; None if they give several."""
    if read_version(lake) < FIRST_VERSION:
        return {}
    rows = lake.rows(
        """SELECT image_id::VARCHAR, CASE WHEN min(given_split) = max(given_split) THEN min(given_split) END FROM files
           WHERE given_split IS NOT NULL AND image_id IS NOT NULL AND source IN (SELECT unnest(?)) GROUP BY image_id""",
        [list_sources(lake, label_set)],
    )
    return dict(rows)


def save_splits(
    lake: Lake, label_set: LabelSetName, scheme: str, splits: Sequence[NewSplit], snapshot: int, now: datetime
) -> bool:
    """Record the splits of images; given ones replace what was recorded of them.

    Returns:
        False, with nothing recorded, if another process has placed one of the other images meanwhile.
    """
    image_ids, names, origins = zip(*splits, strict=True)
    table = pa.table({"image_id": to_uuids(image_ids), "split": names, "origin": origins})

    def write() -> bool:
        same = "label_set = $1 AND scheme = $2 AND image_id IN (SELECT image_id FROM _placed WHERE origin"
        if lake.value(f"SELECT count(*) FROM splits WHERE {same} <> '{GIVEN}')", [label_set, scheme]):
            return False
        lake.execute(f"DELETE FROM splits WHERE {same} = '{GIVEN}')", [label_set, scheme])
        # An image may have been erased meanwhile.
        lake.execute(
            """INSERT INTO splits SELECT ?, ?, image_id, split, origin, ?, ? FROM _placed
               WHERE image_id IN (SELECT image_id FROM images)""",
            [label_set, scheme, snapshot, now],
        )
        return True

    with lake.temporary_tables(_placed=table):
        return lake.commit(write)
