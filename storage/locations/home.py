"""The home: the folder that holds everything."""

import os
from dataclasses import dataclass
from pathlib import Path

from storage.errors import LakeError
from storage.locations.urls import check_catalog, check_data


@dataclass(frozen=True)
class Home:
    """The folder that holds the lake, the heads, fetched weights and the embedded registry.

    ``catalog_url`` and ``data_url`` are set where the lake's catalog or its Parquet files lie elsewhere.
    """

    root: Path
    catalog_url: str | None = None
    data_url: str | None = None

    @property
    def lake(self) -> str:
        """The lake's name, as messages have it."""
        return self.catalog_url or str(self.root)

    @property
    def catalog_name(self) -> str:
        """The catalog, as DuckLake names it."""
        return self.catalog_url or f"sqlite:{self.catalog}"

    @property
    def catalog(self) -> Path:
        """The SQLite catalog of the lake, unless ``catalog_url`` is set."""
        return self.root / "catalog.sqlite"

    @property
    def data(self) -> Path:
        """The folder of the lake's Parquet files, unless ``data_url`` is set."""
        return self.root / "data"

    @property
    def commit_lock(self) -> Path:
        """The file that writers on one machine lock in order to commit."""
        return self.root / "commit.lock"

    @property
    def heads(self) -> Path:
        """Trained heads, one folder a training."""
        return self.root / "heads"

    @property
    def weights(self) -> Path:
        """Weights fetched by name."""
        return self.root / "weights"

    @property
    def backbones(self) -> Path:
        """Backbones in use, one folder a recipe."""
        return self.root / "backbones"

    @property
    def registry(self) -> Path:
        """The embedded MLflow store: a database and its artifacts."""
        return self.root / "mlflow"

    def make(self) -> None:
        """Create the folder.

        Raises:
            LakeError: where it cannot be created or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error.strerror or "cannot be made") from error
        self.check()

    def check(self) -> None:
        """Refuse a home in which nothing could be written; writes nothing itself.

        Raises:
            LakeError: naming it.
        """
        place = self.root
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise self._unwritable(f"{place} is no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._unwritable(f"{place} cannot be written")

    def _unwritable(self, reason: str) -> LakeError:
        return LakeError(f"home {self.root}", f"must be a writable folder ({reason})", "Choose another with --home")


def open_home(root: Path, catalog_url: str | None = None, data_url: str | None = None) -> Home:
    """Name the home by its absolute path, so that a change of working directory does not move it.

    Raises:
        SettingsError: where a url cannot be served, or holds credentials.
    """
    catalog = None if catalog_url is None else check_catalog(catalog_url)
    data = None if data_url is None else check_data(data_url)
    return Home(root.expanduser().absolute(), catalog, data)
