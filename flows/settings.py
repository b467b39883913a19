"""What a run is told: the one model behind flags, environment, frostline.toml and Prefect's run form."""

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
from tasks.register.settings import RegisterSettings
from tasks.train.settings import SearchSettings, TrainSettings

HOME = Path(".frostline")
KEPT, GRACE = timedelta(days=30), timedelta(days=1)
"""The ages from which maintenance expires a snapshot, and deletes a file that none names."""
LOGGERS = ("tasks", "storage", "flows")
"""Whose messages belong into a run's log."""
NAME = re.compile(r"[^\W_][\w .-]*")


class LakeSettings(BaseModel):
    """Where the lake lies, when the home is too small for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: str | None = Field(
        None, description="The catalog: 'postgres:dbname=lake host=db', no password; by default SQLite in the home."
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
    """Where everything lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(HOME, description="Where the lake, the heads and MLflow's own store lie.")
    lake: LakeSettings = Field(default_factory=LakeSettings, description="Where the lake lies.")

    @property
    def resolved_home(self) -> Home:
        """The home, by its absolute path, with where the lake lies."""
        return open_home(self.home, self.lake.catalog, self.lake.data)


class RunSettings(HomeSettings):
    """From a folder of labelled images to a registered model."""

    source: Path | None = Field(None, description="The folder: one folder in it for each class.")
    name: str | None = Field(
        None, description="Name of the source, its label set and its model; by default the folder's name."
    )
    retry: bool = Field(False, description="Try files and images again that failed before.")
    new_recipe: bool = Field(
        False,
        description="Where libraries or the device give other vectors than before: embed all under a new recipe.",
    )
    ingest: IngestSettings = Field(default_factory=IngestSettings, description="Reading the source.")
    embed: EmbedSettings = Field(default_factory=EmbedSettings, description="From images to features.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="From features and labels to a head.")
    search: SearchSettings = Field(default_factory=SearchSettings, description="Finding how deep to freeze.")
    registry: RegisterSettings = Field(
        default_factory=RegisterSettings, description="From a head to a model in MLflow."
    )

    def check(self) -> None:
        """Refuse parts that do not fit together.

        Raises:
            SettingsError: where a tail is to be trained on features that keep too little for it, or answers are to
                average over no views.
        """
        if "tail" in self.train.heads and (self.embed.cut == "avgpool" or self.embed.pooling != "flatten"):
            raise SettingsError(
                f"train.heads tail with embed.cut {self.embed.cut} and embed.pooling {self.embed.pooling}",
                "needs layers after the cut, and features with all their places",
                "Take --embed.pooling flatten and a cut before avgpool: see `frostline cuts`",
            )
        if self.train.average_views and not self.embed.views:
            raise SettingsError(
                "train.average_views", "needs views to average over", "Say how many with --embed.views, such as 4"
            )

    @property
    def root(self) -> Path:
        """The folder, as an absolute path.

        Raises:
            SettingsError: where none is named.
        """
        if self.source is None:
            raise SettingsError(
                "source", "must name a folder", "Write `frostline run FOLDER`, or set source in frostline.toml"
            )
        return self.source.expanduser().resolve()

    @property
    def source_name(self) -> SourceName:
        """The name of the source: ``name``, or the folder's.

        Raises:
            SettingsError: if it has characters that a source, a label set or a model cannot have.
        """
        return SourceName(self._check_name())

    @property
    def label_set(self) -> LabelSetName:
        """The name of the label set that the folders' names are classes of."""
        return LabelSetName(self._check_name())

    @property
    def model_name(self) -> ModelName:
        """The name of the registered model."""
        return ModelName(self._check_name())

    def _check_name(self) -> str:
        name = self.name or self.root.name
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"name {name!r}",
                "starts with a letter or digit and has letters, digits, spaces, dots, dashes, underscores alone",
                "Choose one with --name",
            )
        return name


def recall_settings(recorded: Mapping[str, object]) -> TrainSettings:
    """Give the settings that a head was trained with, out of what was recorded of it."""
    return TrainSettings.model_validate({key: recorded[key] for key in TrainSettings.model_fields if key in recorded})


def quiet_prefect(*, debug: bool) -> None:
    """Set what Prefect reads at its import, unless the user has: no telemetry, a quiet terminal."""
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGERS),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "DEBUG" if debug else "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)


def read_environment() -> dict[str, str]:
    """Read the variables that begin with FROSTLINE_, without the prefix."""
    prefix = "FROSTLINE_"
    return {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
