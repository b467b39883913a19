"""Whether a Prefect server runs flows and tasks; told without importing Prefect, which takes seconds, if none does."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "PREFECT_API_URL"
FILES = {"prefect.toml": "", ".env": NAME, "pyproject.toml": "[tool.prefect"}
"""Files of the working folder that Prefect reads, with the text of those that may name a server."""

WITH_SERVER = ("local", "cloud")
"""Prefect's own profiles that name a server."""


def may_name_server(environment: Mapping[str, str], folder: Path) -> bool:
    """Return whether the environment, a profile of Prefect or a file in the folder may name a server.

    Only Prefect itself can tell for sure; where this is false, none is named.
    """
    profiles = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    profiles = Path(environment.get("PREFECT_PROFILES_PATH", profiles)).expanduser()
    return (
        bool(environment.get(NAME) or environment.get("PREFECT_PROFILE"))
        or _has(profiles, NAME)
        or any(_has(profiles, f'active = "{name}"') for name in WITH_SERVER)
        or any(_has(folder / name, text) for name, text in FILES.items())
    )


def is_prefect_needed() -> bool:
    """Return whether Prefect must be asked: it is loaded already, or a server may be named."""
    return "prefect" in sys.modules or may_name_server(os.environ, Path.cwd())


def _has(file: Path, text: str) -> bool:
    try:
        return text in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
