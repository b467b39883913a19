"""What may be named instead of a folder and is no source yet."""

import re
from pathlib import Path

from storage.errors import SourceError
from storage.formats import SUFFIXES

URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
KINDS = {
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "is an archive"),
    **dict.fromkeys((".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".parquet"), "is a file of labels"),
    **dict.fromkeys(SUFFIXES, "is a single image"),
}
"""What files are that somebody may name instead of a folder, by suffix."""


def check_kind(root: Path) -> None:
    """Refuse what is no source yet: URLs, archives, files of labels.

    Raises:
        SourceError: naming it, and what to do instead.
    """
    if URL.match(root.as_posix()):
        scheme, _, rest = root.as_posix().partition(":/")
        remedy = "Copy or mount its images below a folder, and name that"
        raise SourceError(f"source {scheme}://{rest}", "is a URL, and only folders are sources yet", remedy)
    kind = None if root.is_dir() else KINDS.get(root.suffix.lower())
    if kind == "is an archive":
        raise SourceError(
            f"source {root}", f"{kind}, and only folders are sources yet", "Unpack it, and name the folder"
        )
    if kind:
        remedy = "Name the folder that holds one folder for each class"
        raise SourceError(f"source {root}", f"{kind}, and only folders are sources yet", remedy)
