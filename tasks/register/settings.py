"""The settings of registering a model, and MLflow's own."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.locations.home import Home
from storage.locations.urls import read_sqlite_url, write_sqlite_url

REGISTERED_BEFORE = "registered before"
"""The reason in the report of a run that registers nothing new."""


class GateSettings(BaseModel):
    """When a new version replaces the champion by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="Confidence with which a version must be better: 0.95 errs once in 20 times."
    )
    margin: float = Field(
        0.02, ge=0, lt=1, description="The loss of accuracy (or mAP) up to which a version still counts as 'not worse'."
    )
    min_images: int = Field(
        50, ge=1, description="Test images that neither version was trained on; with fewer, the champion stays."
    )
    promote: Literal["better", "not-worse"] = Field(
        "better", description="What a version must be: 'better' than the champion, or 'not-worse' by the margin."
    )


class RegisterSettings(BaseModel):
    """From a head to a model in MLflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking_uri: str | None = Field(
        None, description="MLflow's tracking URI; by default MLFLOW_TRACKING_URI, otherwise a local store in the home."
    )
    alias: str = Field("champion", min_length=1, description="The alias of the best version.")
    take_over: bool = Field(
        False,
        description="Continue with this MLflow store, although the lake's versions of the model are of another.",
    )
    champion_predicts: Literal["all", "embedded"] = Field(
        "all",
        description="The images that the champion predicts: 'all', for which a run with other --embed settings than "
        "the champion's embeds images under those as well; or only those 'embedded' under them anyway.",
    )
    gate: GateSettings = Field(GateSettings(), description="When a new version replaces the champion.")


def resolve_tracking_uri(home: Home, settings: RegisterSettings) -> str:
    """Return MLflow's tracking URI: the setting, else MLFLOW_TRACKING_URI, else a SQLite store in the home."""
    uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or write_sqlite_url(home.registry_database)


def list_registry_files(home: Home, settings: RegisterSettings) -> tuple[Path, ...] | None:
    """List the files whose stamps tell whether the registry has changed; None if a server keeps it."""
    store = read_sqlite_url(resolve_tracking_uri(home, settings))
    return None if store is None else (store, Path(f"{store}-wal"), Path(f"{store}-journal"))


@contextlib.contextmanager
def preserve_environment() -> Iterator[None]:
    """Restore MLFLOW_TRACKING_URI, which MLflow sets; the next home would take it for the user's setting."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def configure_mlflow() -> None:
    """Turn off MLflow's telemetry and long retries, unless the user has set them."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
