"""What a user decides about registering, and where the registry is."""

import contextlib
import os
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from storage.locations.home import Home


class RegisterSettings(BaseModel):
    """From a head to a model in MLflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking_uri: str | None = Field(
        None, description="MLflow's address; by default MLFLOW_TRACKING_URI, else a store of its own in the home."
    )
    alias: str = Field("champion", min_length=1, description="The alias that the best version bears.")


def resolve_tracking_uri(home: Home, settings: RegisterSettings) -> str:
    """Choose MLflow's address: the setting, else MLFLOW_TRACKING_URI, else a SQLite store in the home."""
    given = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return given or f"sqlite:///{home.registry / 'mlflow.db'}"


@contextlib.contextmanager
def preserve_environment() -> Iterator[None]:
    """Undo what MLflow writes into the environment, where the next home would take it for the user's wish."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def configure_mlflow() -> None:
    """Keep MLflow from phoning home and from trying a dead server for minutes, unless the user decided otherwise."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
