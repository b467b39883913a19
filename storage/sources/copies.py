"""Where the copies of an image are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storage.errors import ImageError
from storage.lake.lake import Lake
from storage.locations.path_text import decode_path
from storage.names import SourceName
from storage.sources.open_image import Locator, Source, open_image


class ImageCopy(NamedTuple):
    """One of the files that hold an image."""

    source: Source
    locator: Locator

    @property
    def full_path(self) -> str:
        """The file's path, as text."""
        return f"{self.source.location}/{self.locator.path}"


def read_image(lake: Lake, image_id: str) -> bytes:
    """Read an image from the first of its copies that still has its bytes.

    Raises:
        ImageError: if there is none; it says why the last one could not be used.
    """
    failure = ImageError(f"image {image_id}", "is in no source", "Scan the folder that has it")
    for source, locator in find_copies(lake, [image_id]).get(image_id, []):
        try:
            return open_image(source, locator, image_id)
        except ImageError as error:
            failure = error
    raise failure


def find_copies(lake: Lake, image_ids: Sequence[str]) -> dict[str, list[ImageCopy]]:
    """Find the copies of images, in the order of their paths; images without any are left out."""
    rows = lake.rows(
        """WITH roots AS (SELECT source, arg_max(root, scanned_at) AS root FROM scans GROUP BY source)
           SELECT image_id::VARCHAR, list((source, root, path) ORDER BY path) FROM files JOIN roots USING (source)
           WHERE image_id IN (SELECT unnest(?::UUID[])) GROUP BY image_id""",
        [list(image_ids)],
    )
    return {image_id: [_make_copy(*copy) for copy in copies] for image_id, copies in rows}


def choose_copies(lake: Lake, image_ids: Sequence[str]) -> dict[str, ImageCopy]:
    """Choose one copy of each image, preferably one whose file exists; images without any are left out."""
    return {image_id: _choose_copy(copies) for image_id, copies in find_copies(lake, image_ids).items()}


def _make_copy(source: str, root: str, path: str) -> ImageCopy:
    return ImageCopy(Source(SourceName(source), root), Locator(path))


def _choose_copy(copies: Sequence[ImageCopy]) -> ImageCopy:
    return next((copy for copy in copies if Path(decode_path(copy.full_path)).is_file()), copies[0])
