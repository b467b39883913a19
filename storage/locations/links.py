"""Hard links: files with the same bytes that take space once."""

import contextlib
import filecmp
import uuid
from pathlib import Path


def share_file(original: Path, copy: Path) -> bool:
    """Replace a copy by a hard link to the original if their bytes are the same; returns whether it is one now.

    For files that are only ever replaced, never written in place. Where the file system has no links, the copy stays.
    """
    if copy.samefile(original):
        return True
    if not filecmp.cmp(original, copy, shallow=False):
        return False
    link = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}.link")
    try:
        link.hardlink_to(original)
        link.replace(copy)
    except OSError:  # another file system, or one without links
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
        return False
    return True
