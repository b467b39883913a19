"""The identity of a registered model in MLflow: version numbers mean nothing without it.

Two MLflow stores both have a version 1 of a model. A lake that several homes share would take one for the other.
"""

import uuid
from typing import TYPE_CHECKING

from storage.errors import RegistryError
from storage.lake.lake import Lake
from storage.names import ModelName
from storage.tables.models import list_registries, set_registry
from tasks.register.registry.client import list_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY_TAG = "frostline.registry"


def resolve_registry(client: "MlflowClient", lake: Lake, name: ModelName, *, take_over: bool) -> str:
    """Return the identity of a registered model, and create the model and its identity if they are new.

    Args:
        client: The registry.
        lake: The lake, which must be writable.
        name: The registered model's name.
        take_over: Whether this registry may replace the one that the lake has versions of the model from.

    Raises:
        RegistryError: if the lake has versions of the model from another registry.
    """
    identity, recorded = _read_identity(client, name), list_registries(lake, name)
    if recorded and identity not in recorded:
        if "" in recorded and recorded[""] & {str(version.run_id) for version in list_versions(client, name)}:
            identity = identity or _create_identity(client, name)
            set_registry(lake, name, identity)
        elif not take_over:
            raise RegistryError(
                f"model {name} in MLflow at {client.tracking_uri}",
                "is not the registry of the versions in this lake",
                "Use the MLflow store of before, another --name, or --registry.take-over to continue with this store",
            )
    return identity or _create_identity(client, name)


def _read_identity(client: "MlflowClient", name: ModelName) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        identity: str | None = client.get_registered_model(name).tags.get(IDENTITY_TAG)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return identity


def _create_identity(client: "MlflowClient", name: ModelName) -> str:
    from mlflow.exceptions import MlflowException

    identity = str(uuid.uuid4())
    try:
        client.create_registered_model(name, tags={IDENTITY_TAG: identity})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        other = _read_identity(client, name)  # of another run that was first
        if other:
            return other
        client.set_registered_model_tag(name, IDENTITY_TAG, identity)
    return identity
