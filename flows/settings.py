"""The settings of a run: one model for flags, environment variables, frostline.toml and Prefect's run form."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.errors import SettingsError
from storage.locations.home import Home, open_home
from storage.locations.urls import check_catalog, check_data
from storage.names import LabelSetName, ModelName, SourceName
from tasks.embed.settings import EmbedSettings
from tasks.ingest.settings import IngestSettings
from tasks.ingest.sources.kinds import check_kind
from tasks.register.settings import RegisterSettings
from tasks.train.settings import SearchSettings, TrainSettings

HOME = Path(".frostline")
SNAPSHOT_RETENTION, FILE_GRACE_PERIOD = timedelta(days=30), timedelta(days=1)
"""Maintenance expires snapshots older than the first, and deletes unreferenced files older than the second."""
PROJECT_LOGGERS = ("tasks", "storage", "flows")
"""The loggers whose messages go into a run's log."""
NAME = re.compile(r"[^\W_][\w .-]*")


class LakeSettings(BaseModel):
    """Where the lake is stored, if not in the home."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: str | None = Field(
        None,
        description="The catalog: 'postgres:dbname=lake host=db', without a password; by default SQLite in the home.",
    )
    data: str | None = Field(
        None, description="The folder of Parquet files: 's3://bucket/folder'; by default a folder in the home."
    )

    @field_validator("catalog")
    @classmethod
    def _check_catalog(cls, url: str | None) -> str | None:
        return url and check_catalog(url)

    @field_validator("data")
    @classmethod
    def _check_data(cls, url: str | None) -> str | None:
        return url and check_data(url)


class HomeSettings(BaseModel):
    """Where everything is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(HOME, description="The folder of the lake, the heads and MLflow's local store.")
    lake: LakeSettings = Field(default_factory=LakeSettings, description="Where the lake is stored.")

    @property
    def resolved_home(self) -> Home:
        """The home by its absolute path, with the location of its lake."""
        return open_home(self.home, self.lake.catalog, self.lake.data)


class RunSettings(HomeSettings):
    """From a folder of labelled images to a registered model."""

    source: Path | None = Field(None, description="The folder of images, with one subfolder per class.")
    name: str | None = Field(
        None, description="The name of the source, its label set and its model; by default the folder's name."
    )
    retry: bool = Field(False, description="Retry files and images that failed before.")
    rehash: bool = Field(False, description="Read all files again, also those that seem unchanged.")
    accept_gone: bool = Field(
        False, description="Confirm that images are gone which the last run saw, however many: see ingest.max_gone."
    )
    new_recipe: bool = Field(
        False,
        description="If libraries or the device now compute different vectors: embed everything under a new recipe.",
    )
    ingest: IngestSettings = Field(default_factory=IngestSettings, description="Reading the source.")
    embed: EmbedSettings = Field(default_factory=EmbedSettings, description="From images to features.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="From features and labels to a head.")
    search: SearchSettings = Field(default_factory=SearchSettings, description="Searching how deep to freeze.")
    registry: RegisterSettings = Field(
        default_factory=RegisterSettings, description="From a head to a model in MLflow."
    )

    def check(self) -> None:
        """Refuse settings that do not fit together.

        Raises:
            SettingsError: if a tail is requested on features that are too small for it, or answers are to average
                over views and there are none.
        """
        if "tail" in self.train.heads and (self.embed.cut == "avgpool" or self.embed.pooling != "flatten"):
            raise SettingsError(
                f"train.heads tail with embed.cut {self.embed.cut} and embed.pooling {self.embed.pooling}",
                "needs layers after the cut, and features that are not pooled",
                "Set --embed.pooling flatten and a cut before avgpool: see `frostline cuts`",
            )
        if self.train.average_views and not self.embed.views:
            raise SettingsError(
                "train.average_views", "needs views to average over", "Set their number with --embed.views, such as 4"
            )

    @property
    def source_path(self) -> Path:
        """The folder of images as an absolute path.

        Raises:
            SettingsError: if no folder is named.
            SourceError: if something else is.
        """
        if self.source is None:
            raise SettingsError(
                "source", "must name a folder", "Write `frostline run FOLDER`, or set source in frostline.toml"
            )
        check_kind(self.source)
        return self.source.expanduser().resolve()

    @property
    def source_name(self) -> SourceName:
        """The name of the source: ``name``, or the folder's name.

        Raises:
            SettingsError: if it has characters that a source, a label set or a model cannot have.
        """
        return SourceName(self._check_name())

    @property
    def label_set(self) -> LabelSetName:
        """The name of the label set whose classes are the names of the subfolders."""
        return LabelSetName(self._check_name())

    @property
    def model_name(self) -> ModelName:
        """The name of the registered model."""
        return ModelName(self._check_name())

    def _check_name(self) -> str:
        name = self.name or self.source_path.name
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"name {name!r}",
                "must start with a letter or digit, then only letters, digits, spaces, dots, dashes and underscores",
                "Choose another with --name",
            )
        return name


def restore_train_settings(recorded: Mapping[str, object]) -> TrainSettings:
    """Return the settings that a head was trained with, from what was recorded of it."""
    return TrainSettings.model_validate({key: recorded[key] for key in TrainSettings.model_fields if key in recorded})


def configure_prefect(*, debug: bool) -> None:
    """Set what Prefect reads on import, unless the user has set it: no telemetry, a quiet terminal."""
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(PROJECT_LOGGERS),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "DEBUG" if debug else "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)


def read_environment() -> dict[str, str]:
    """Read the variables that start with FROSTLINE_; their names come without the prefix."""
    prefix = "FROSTLINE_"
    return {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
