"""The settings that several commands share, as their parameters."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.settings import HomeSettings, RunSettings

RunOptions = Annotated[RunSettings, Parameter(name="*")]
HomeOptions = Annotated[HomeSettings, Parameter(name="*")]


def set_source(settings: RunSettings, source: Path | None) -> RunSettings:
    """Return the settings with the source that the command line names, if it names one."""
    return settings.model_copy(update={"source": source}) if source else settings


def check_settings(settings: RunSettings) -> None:
    """Refuse a name that no source can have, and settings that do not fit together.

    Raises:
        SettingsError: naming the setting.
    """
    settings.source_name  # noqa: B018 - checks the name
    settings.check()
