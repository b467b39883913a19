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
    def full_path(self) -> str:
        """The source's folder and the path within it, as text."""
        return f"{self.root}/{self.path}"

    def exists(self) -> bool:
        """Return whether the file is still there."""
        return self._decoded.is_file()

    def read(self) -> bytes:
        """Read the file."""
        return self._decoded.read_bytes()

    @property
    def _decoded(self) -> Path:
        return Path(decode_path(self.full_path))


def find_image_files(lake: Lake, image_ids: Sequence[str]) -> dict[str, ImageFile]:
    """Find a file of each image, preferably one that exists; images that no source lists any more are left out."""
    copies = {
        image_id: [ImageFile(*copy) for copy in files] for image_id, files in find_copies(lake, image_ids).items()
    }
    return {image_id: _choose_file(files) for image_id, files in copies.items()}


def _choose_file(files: Sequence[ImageFile]) -> ImageFile:
    return next((file for file in files if file.exists()), files[0])
