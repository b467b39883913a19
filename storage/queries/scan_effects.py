"""What committing a scan would do to labels, and which files it would make no use of. Reads only."""

from dataclasses import dataclass

from storage.lake.lake import Lake
from storage.tables.review_labels import REVIEWED
from storage.tables.scans import Scan


@dataclass(frozen=True)
class ScanEffects:
    """Counts of what a scan changes and loses.

    Attributes:
        relabelled: Images that have other classes in the lake.
        conflicting: Images that are in several classes; a training leaves them out, unless they may have several.
        duplicates: Files that hold the same bytes as another one.
        vanished: Files that were there at the last scan.
    """

    relabelled: int
    conflicting: int
    duplicates: int
    vanished: int


# Every image that the source holds once the scan is committed, with its path and its folder's class.
_AFTER = """SELECT image_id, path, class FROM _listing JOIN (
    SELECT path, image_id FROM _reads UNION ALL
    SELECT path, image_id FROM files WHERE source = $2 AND path NOT IN (SELECT path FROM _reads)
  ) USING (path) WHERE image_id IS NOT NULL"""


def find_effects(lake: Lake, scan: Scan) -> ScanEffects:
    """Count what would change if a scan were committed."""
    source = scan.listing.source
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads):
        relabelled, conflicting, duplicates = lake.rows(
            f"""WITH after AS MATERIALIZED ({_AFTER}),
                 labelled AS (SELECT image_id, list(DISTINCT coalesce(r.class, a.class) ORDER BY 1) AS classes
                   FROM after a LEFT JOIN ({REVIEWED}) r USING (image_id) WHERE a.class IS NOT NULL GROUP BY image_id),
                 before AS (SELECT image_id, list(DISTINCT class ORDER BY class) AS classes
                   FROM labels WHERE label_set = $1 GROUP BY image_id)
               SELECT (SELECT count(*) FROM labelled l JOIN before b USING (image_id) WHERE l.classes <> b.classes),
                 (SELECT count(*) FROM labelled WHERE len(classes) > 1),
                 (SELECT count(*) - count(DISTINCT image_id) FROM after)""",
            [scan.listing.label_set, source],
        )[0]
        gone = "SELECT count(*) FROM files WHERE source = ? AND path NOT IN (SELECT path FROM _listing)"
        vanished = int(lake.value(gone, [source]))
    return ScanEffects(relabelled, conflicting, duplicates, vanished)
