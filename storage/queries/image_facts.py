"""The images table: what is known of images besides their classes."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from storage.lake.lake import Lake
from storage.names import LabelSetName
from storage.tables.label_sets import list_sources
from storage.vectors.feature_file import to_uuids


def list_facts(lake: Lake, image_ids: Sequence[str]) -> pa.Table:
    """List the slices that images fall into: source, format, mode, shorter side, shape, file size, month first seen.

    Returns:
        One row per image and slice: ``image``, its index in ``image_ids``, and ``slice`` and ``value`` as text. Sizes
        are binned by powers of two pixels and of ten bytes; an image in several sources has a row for each.
    """
    images = pa.table({"image_id": to_uuids(image_ids), "image": pa.array(np.arange(len(image_ids)))})
    with lake.temporary_tables(_images=images):
        return lake.table(
            """WITH facts AS (
                 SELECT image, format, mode, width, height, (2 ** floor(log2(least(width, height))))::INT AS side,
                   floor(log10(bytes))::INT AS digits, first_seen
                 FROM _images JOIN images USING (image_id)),
               kinds AS (
                 SELECT image, format, mode, concat(side, ' to ', 2 * side - 1, ' px') AS "shorter side",
                   CASE WHEN width > height THEN 'wide' WHEN width < height THEN 'tall' ELSE 'square' END AS shape,
                   concat([1, 10, 100][digits % 3 + 1], ' to ', [9, 99, 999][digits % 3 + 1], ' ',
                     ['B', 'kB', 'MB', 'GB'][digits // 3 + 1]) AS "file size",
                   strftime(make_timestamp(epoch_us(first_seen)), '%Y-%m') AS "first seen"
                 FROM facts)
               SELECT image, 'source' AS slice, source AS value
               FROM _images JOIN (SELECT DISTINCT image_id, source FROM files) USING (image_id)
               UNION ALL
               (UNPIVOT kinds ON COLUMNS(* EXCLUDE image) INTO NAME slice VALUE value)"""
        )


def list_arrivals(lake: Lake, label_set: LabelSetName, recipe_id: str) -> list[tuple[str, int]]:
    """List the images with a feature that a label set labels or that are in its sources.

    Returns:
        (image_id, time first seen in microseconds since 1970), ordered by time, then by id.
    """
    return lake.rows(
        """SELECT image_id::VARCHAR AS id, epoch_us(first_seen) AS arrived FROM images
           WHERE image_id IN (SELECT image_id FROM files WHERE source IN (SELECT unnest($3)) UNION
                              SELECT image_id FROM labels WHERE label_set = $1)
           AND image_id IN (SELECT image_id FROM features WHERE recipe_id = $2) ORDER BY arrived, id""",
        [label_set, recipe_id, list_sources(lake, label_set)],
    )
