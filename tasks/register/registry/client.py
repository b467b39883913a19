"""The registry: a client of MLflow, whose failures become one plain line."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from storage.errors import RegistryUnreachableError, find_os_error
from storage.locations.home import Home
from storage.locations.registry_paths import adopt_artifacts
from storage.locations.urls import read_sqlite_url
from storage.names import ModelName
from tasks.register.registry.store import make_store
from tasks.register.settings import RegisterSettings, configure_mlflow, preserve_environment, resolve_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TRAINING_TAG = "frostline.training_id"
RECIPE_TAG = "frostline.recipe_id"


def is_local(uri: str) -> bool:
    """Return whether MLflow's store is a file on this machine."""
    return read_sqlite_url(uri) is not None


@contextlib.contextmanager
def open_registry(home: Home, settings: RegisterSettings, *, adopt: bool = True) -> Iterator["MlflowClient"]:
    """Point MLflow at the registry and yield a client.

    If the home was moved or copied, its own registry ``adopt``s the artifacts in it.

    Raises:
        RegistryUnreachableError: if MLflow does not answer or refuses.
    """
    configure_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = resolve_tracking_uri(home, settings)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if store := read_sqlite_url(uri):
            make_store(store)
            if adopt and store == home.registry_database:
                adopt_artifacts(home)
        with preserve_environment():
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            yield mlflow.MlflowClient(uri, uri)
    except (MlflowException, OSError) as error:
        refused = find_os_error(error, f"home {home.root}") if is_local(uri) else None
        if refused:
            raise refused from error
        reason = " ".join(str(error).split())[:200]
        raise RegistryUnreachableError(
            f"MLflow at {uri}",
            f"does not answer ({reason})",
            "Start it or correct MLFLOW_TRACKING_URI, then run again: the trained head is kept",
        ) from error


def find_experiment(client: "MlflowClient", home: Home, name: ModelName) -> str:
    """Find or create a model's experiment, whose artifacts a local store keeps in the home; returns its id."""
    from mlflow.exceptions import MlflowException

    folder = home.registry_artifacts if is_local(str(client.tracking_uri)) else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=folder))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)  # another run may have been first
            if experiment is None:
                raise error from None
    return str(experiment.experiment_id)


def find_registered(client: "MlflowClient", name: ModelName, training_id: str) -> "ModelVersion | None":
    """Find the version of a model that serves a training's head."""
    versions = list_versions(client, name)
    return next((version for version in versions if version.tags.get(TRAINING_TAG) == training_id), None)


def find_alias(client: "MlflowClient", name: ModelName, alias: str) -> "ModelVersion | None":
    """Find the version that has an alias."""
    number = client.get_registered_model(name).aliases.get(alias)
    return client.get_model_version(name, str(number)) if number else None


def list_versions(client: "MlflowClient", name: ModelName) -> list["ModelVersion"]:
    """List the versions of a model, newest first."""
    quoted = name.replace("'", "\\'")
    return list(client.search_model_versions(f"name='{quoted}'", order_by=["version_number DESC"]))
