"""Settings from frostline.toml and the environment, checked before they are used: a misspelt key is an error."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.settings import RunSettings
from storage.errors import SettingsError

DEFAULT = Path("frostline.toml")


def read_config(path: Path | None) -> dict[str, Any]:
    """Read the settings file, by default frostline.toml where there is one.

    Raises:
        SettingsError: where it is missing though named, is no TOML, or has a key that no setting has.
    """
    file = path or DEFAULT
    if path is None and not file.exists():
        return {}
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"config {file}", f"cannot be read ({error})", "Check the path given by --config"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config {file}", f"is no TOML ({error})", "Mend that line") from error
    known = sorted(list_keys(RunSettings))
    for key in _flatten(values):
        if key not in known:
            raise SettingsError(f"{key} in {file}", "is no setting", suggest(key, known))
    return values


def check_environment(variables: Mapping[str, str], extra: Sequence[str]) -> None:
    """Refuse a FROSTLINE_ variable that sets nothing.

    Raises:
        SettingsError: naming it.
    """
    known = [key.upper().replace(".", "_") for key in (*list_keys(RunSettings), *extra)]
    for name in variables:
        if name not in known:
            raise SettingsError(f"FROSTLINE_{name}", "is no setting", suggest(name, known, "FROSTLINE_"))


def list_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the settings by their dotted names."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from list_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def suggest(key: str, known: Sequence[str], prefix: str = "") -> str:
    """Say which name was meant."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {prefix}{near[0]}?" if near else "See `frostline run --help` for all"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
