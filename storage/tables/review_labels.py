"""Labels that a person decided in a review: they override those of the source's folders."""

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from storage.errors import ReviewError
from storage.lake.lake import Lake
from storage.names import LabelSetName, SourceName
from storage.tables.label_sets import REVIEW_MARK
from storage.vectors.feature_file import to_uuids

REVIEWED = f"SELECT image_id, class FROM labels WHERE label_set = $1 AND starts_with(source, '{REVIEW_MARK}')"
_TO_CHANGE = f"""SELECT image_id, class FROM _decided
  ANTI JOIN (SELECT image_id, min(class) AS class FROM labels WHERE label_set = $1 GROUP BY image_id
             HAVING count(*) = 1 AND bool_and(starts_with(source, '{REVIEW_MARK}'))) USING (image_id, class)"""


def list_conflicts(lake: Lake, label_set: LabelSetName) -> list[tuple[str, list[str]]]:
    """List the images that have several classes, with the classes."""
    sql = "SELECT image_id::VARCHAR, classes FROM conflicts WHERE label_set = ? ORDER BY image_id"
    return lake.rows(sql, [label_set])


def save_decisions(
    lake: Lake, label_set: LabelSetName, decisions: Mapping[str, str], origin: str, now: datetime
) -> int:
    """Set the classes of images, by image_id, to what a person decided, in one transaction.

    ``origin`` names where the decisions come from, such as a file.

    Returns:
        The number of images whose label changed or was confirmed for the first time.

    Raises:
        ReviewError: if an image has no label in the label set.
    """
    table = pa.table({"image_id": to_uuids(list(decisions)), "class": pa.array(decisions.values(), pa.string())})

    def write() -> int:
        unknown = lake.rows(
            """SELECT image_id::VARCHAR FROM _decided ANTI JOIN (FROM labels WHERE label_set = ?) USING (image_id)
               ORDER BY image_id""",
            [label_set],
        )
        if unknown:
            raise ReviewError(
                f"image {unknown[0][0]}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
                f"has no label of {label_set} now",
                "Make a new table with `frostline review`",
            )
        changed = lake.table(_TO_CHANGE, [label_set])
        with lake.temporary_tables(_changed=changed):
            lake.execute(
                "DELETE FROM labels WHERE label_set = ? AND image_id IN (SELECT image_id FROM _changed)", [label_set]
            )
            lake.execute(
                "INSERT INTO labels SELECT ?, image_id, class, ?, ? FROM _changed",
                [label_set, REVIEW_MARK + origin, now],
            )
        return int(changed.num_rows)

    with lake.temporary_tables(_decided=table):
        return lake.commit(write)


def drop_reviewed(lake: Lake, label_set: LabelSetName, source: SourceName) -> None:
    """Delete the reviewed labels of images that are no longer in the source."""
    lake.execute(
        f"""DELETE FROM labels WHERE label_set = $1 AND starts_with(source, '{REVIEW_MARK}')
            AND image_id NOT IN (SELECT image_id FROM files WHERE source = $2 AND image_id IS NOT NULL)""",
        [label_set, source],
    )
