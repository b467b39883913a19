"""Refuse to run if a file of the user hides one of Frostline's packages, such as a ``tasks.py`` in the same folder.

The name of this package is Frostline's own; those of the others are common words. It imports none of them here.
"""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("flows", "tasks", "storage")
REMEDY = "Rename it, take its folder out of PYTHONPATH, or work in another folder"


class HiddenPackageError(ImportError):
    """A file of the user that Python finds in place of one of Frostline's packages."""


def check_packages() -> None:
    """Check that Python finds Frostline's own packages under their names; imports none.

    Raises:
        HiddenPackageError: if it finds another file first; names it.
    """
    own = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        found = _find_file(name)
        if found is not None and not found.resolve().is_relative_to(own / name):
            raise HiddenPackageError(f"{found}: hides Frostline's package {name}, which has the same name. {REMEDY}.")


def _find_file(name: str) -> Path | None:
    """Find what Python would import under a name; None if it has no file."""
    spec = find_spec(name)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None
