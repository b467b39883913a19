"""Settings from frostline.toml and the environment. An unknown name is an error, so that no typo goes unnoticed."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.settings import RunSettings
from storage.errors import SettingsError

DEFAULT_CONFIG = Path("frostline.toml")


def read_config(path: Path | None) -> dict[str, Any]:
    """Read the settings file; without a path, read frostline.toml if it exists.

    Raises:
        SettingsError: if the named file is missing, is not valid TOML, or has an unknown setting.
    """
    file = path or DEFAULT_CONFIG
    if path is None and not file.exists():
        return {}
    values = _parse(file)
    names = sorted(list_settings(RunSettings))
    for name in _flatten(values):
        if name not in names:
            raise SettingsError(f"{name} in {file}", "is not a setting", suggest(name, names))
    return values


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"config {file}", f"cannot be read ({error})", "Check the path given by --config"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config {file}", f"is not valid TOML ({error})", "Correct that line") from error


def check_environment(variables: Mapping[str, str], extra: Sequence[str]) -> None:
    """Refuse an unknown FROSTLINE_ variable.

    Args:
        variables: The environment's, without the prefix FROSTLINE_.
        extra: Parameters of commands that are not settings.

    Raises:
        SettingsError: naming the variable.
    """
    names = [name.upper().replace(".", "_") for name in (*list_settings(RunSettings), *extra)]
    for variable in variables:
        if variable not in names:
            raise SettingsError(f"FROSTLINE_{variable}", "is not a setting", suggest(variable, names, "FROSTLINE_"))


def list_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the settings by their dotted names."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from list_settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def suggest(name: str, names: Sequence[str], prefix: str = "") -> str:
    """Suggest the closest name as an error's remedy."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {prefix}{close[0]}?" if close else "See `frostline run --help-all` for all settings"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
