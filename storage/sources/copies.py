"""Where the files of an image are."""

from collections.abc import Sequence
from pathlib import Path

from storage.lake.lake import Lake
from storage.locations.path_text import decode_path


def find_places(lake: Lake, image_ids: Sequence[str]) -> list[str | None]:
    """Find where each image lies, as text; None where nowhere."""
    copies = find_copies(lake, image_ids)
    return [_choose_place(copies.get(image_id, [])) for image_id in image_ids]


def _choose_place(copies: Sequence[tuple[str, str]]) -> str | None:
    """Choose where an image lies of (root, path), as text: rather where a file is."""
    places = [f"{root}/{path}" for root, path in copies]
    return next((place for place in places if Path(decode_path(place)).is_file()), next(iter(places), None))


def find_copies(lake: Lake, image_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Find where images lie: for each that lies somewhere (root, path), as text."""
    rows = lake.rows(
        """WITH roots AS (SELECT source, arg_max(root, scanned_at) AS root FROM scans GROUP BY source)
           SELECT image_id::VARCHAR, list((root, path) ORDER BY path) FROM files JOIN roots USING (source)
           WHERE image_id IN (SELECT unnest(?::UUID[])) GROUP BY image_id""",
        [list(image_ids)],
    )
    return dict(rows)
