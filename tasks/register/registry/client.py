"""The registry: MLflow, reached or refused in plain words."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from storage.artifacts.head_files import is_whole
from storage.care.row_checks import BACKUP, Finding
from storage.errors import RegistryUnreachableError
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import ModelName
from storage.tables.trainings import HEAD
from tasks.register.settings import RegisterSettings, configure_mlflow, preserve_environment, resolve_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TRAINING_TAG = "frostline.training_id"
RECIPE_TAG = "frostline.recipe_id"
REPAIR = "restore it from a backup, or delete the version in MLflow: the next run registers the newest head anew"


def load_mlflow(uri: str) -> None:
    """Import MLflow and its store, where it is a local one; this takes seconds."""
    configure_mlflow()
    import mlflow

    if is_local(uri):
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def list_installed() -> None:
    """Let MLflow list which packages are installed: it does so once, a second long, when it logs its first model."""
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches(["mlflow"])


def is_local(uri: str) -> bool:
    """Say whether MLflow keeps its store in a file of this machine."""
    return uri.startswith("sqlite:///")


@contextlib.contextmanager
def open_registry(home: Home, settings: RegisterSettings) -> Iterator["MlflowClient"]:
    """Point MLflow at the registry and give a client of it.

    Raises:
        RegistryUnreachableError: where it does not answer or refuses.
    """
    configure_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = resolve_tracking_uri(home, settings)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if is_local(uri):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with preserve_environment():
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            yield mlflow.MlflowClient(uri, uri)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RegistryUnreachableError(
            f"MLflow at {uri}",
            f"does not answer ({reason})",
            "Start it or mend MLFLOW_TRACKING_URI, then run again: the trained head is kept",
        ) from error


def find_experiment(client: "MlflowClient", home: Home, name: ModelName) -> str:
    """Find or make the experiment of a model; in the home's own store its artifacts lie in the home."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    local = is_local(str(client.tracking_uri))
    place = (home.registry / "artifacts").as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def find_registered(client: "MlflowClient", name: ModelName, training_id: str) -> "ModelVersion | None":
    """Find the version of a model that holds a training's head."""
    return next((each for each in list_versions(client, name) if each.tags.get(TRAINING_TAG) == training_id), None)


def find_alias(client: "MlflowClient", name: ModelName, alias: str) -> "ModelVersion | None":
    """Find the version that bears an alias."""
    number = client.get_registered_model(name).aliases.get(alias)
    return client.get_model_version(name, str(number)) if number else None


def list_versions(client: "MlflowClient", name: ModelName) -> list["ModelVersion"]:
    """List the versions of a model, the newest first."""
    quoted = name.replace("'", "\\'")
    return list(client.search_model_versions(f"name='{quoted}'", order_by=["version_number DESC"]))


def check_packages(lake: Lake) -> Iterator[Finding]:
    """Look for the package of each version that the lake and the store both know; a server looks after its own.

    A version that somebody deleted in MLflow is no finding.
    """
    store = RegisterSettings(tracking_uri=f"sqlite:///{lake.home.registry / 'mlflow.db'}")
    recorded = lake.rows("SELECT name, version, run_id FROM models ORDER BY ALL")
    try:
        with open_registry(lake.home, store) as client:
            for name in sorted({name for name, *_ in recorded}):
                for version in list_versions(client, name):
                    folder = client.get_model_version_download_uri(name, version.version)
                    if (name, int(version.version), version.run_id) in recorded and not _is_there(folder):
                        what = f"model {name} version {version.version}: its package {folder} is gone or not whole"
                        yield Finding("model", what, REPAIR)
    except RegistryUnreachableError as error:
        yield Finding("model", f"{error.value}: {error.rule}", BACKUP)


def _is_there(folder: str) -> bool:
    """Tell whether a package can be loaded, as far as it lies in a folder."""
    url = urlsplit(folder)
    place = Path(unquote(url.path))
    return url.scheme != "file" or ((place / "MLmodel").is_file() and is_whole(place / "artifacts" / HEAD))
