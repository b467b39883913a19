"""The release and commit of the running code."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def name_release(root: Path = Path(__file__).parents[1]) -> str:
    """Return the release of Frostline and, in a checkout, the commit: ``0.1.0+3c9a1f…``.

    The commit ends in ``-dirty`` if files differ from it.
    """
    try:
        release = version("frostline")
    except PackageNotFoundError:
        release = "unreleased"
    commit = _find_commit(root)
    return f"{release}+{commit}" if commit else release


def _find_commit(root: Path) -> str | None:
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    return done.stdout.strip() or None
