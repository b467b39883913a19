"""Whether the models that the lake knows can still be loaded from the home's own MLflow store."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.checks import BACKUP, Finding
from storage.errors import RegistryUnreachableError
from storage.heads import is_whole
from storage.lake import Lake
from storage.trainings import HEAD
from tasks.register.registry import list_versions, open_registry
from tasks.register.settings import RegisterSettings

REPAIR = "restore it from a backup, or delete the version in MLflow: the next run registers the newest head anew"


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
