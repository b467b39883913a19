"""The files of images that a page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.lake.lake import Lake
from storage.locations.path_text import decode_path
from storage.sources.copies import find_copies


@dataclass(frozen=True)
class ImageFile:
    """A file of an image: its source's folder, and its path within it, both as text."""

    root: str
    path: str

    @property
    def full_path(self) -> Path:
        """Where to read the file."""
        return Path(decode_path(f"{self.root}/{self.path}"))


def find_image_files(lake: Lake, image_ids: Sequence[str]) -> dict[str, ImageFile]:
    """Find a file of each image, preferably one that exists; images that no source lists any more are left out."""
    copies = {
        image_id: [ImageFile(*copy) for copy in files] for image_id, files in find_copies(lake, image_ids).items()
    }
    return {image_id: _choose_file(files) for image_id, files in copies.items()}


def _choose_file(files: Sequence[ImageFile]) -> ImageFile:
    return next((file for file in files if file.full_path.is_file()), files[0])
