"""The home: the folder of everything that Frostline writes."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from storage.errors import LakeError
from storage.locations.urls import check_catalog, check_data

PRIVATE = 0o700
"""The permissions of a new home: only its owner enters it."""


@dataclass(frozen=True)
class Home:
    """The folder of the lake, the heads, downloaded weights and the embedded registry.

    ``catalog_url`` and ``data_url`` are set if the lake's catalog or its Parquet files are elsewhere.
    """

    root: Path
    catalog_url: str | None = None
    data_url: str | None = None

    @property
    def lake(self) -> str:
        """The name of the lake in messages."""
        return self.catalog_url or str(self.root)

    @property
    def catalog_name(self) -> str:
        """The catalog in DuckLake's notation."""
        return self.catalog_url or f"sqlite:{self.catalog}"

    @property
    def catalog(self) -> Path:
        """The SQLite catalog of the lake; unused if ``catalog_url`` is set."""
        return self.root / "catalog.sqlite"

    @property
    def data(self) -> Path:
        """The folder of the lake's Parquet files; unused if ``data_url`` is set."""
        return self.root / "data"

    @property
    def commit_lock(self) -> Path:
        """The file that writers on one machine lock in order to commit."""
        return self.root / "commit.lock"

    @property
    def heads(self) -> Path:
        """Trained heads, one folder per training."""
        return self.root / "heads"

    @property
    def weights(self) -> Path:
        """Weights downloaded by name."""
        return self.root / "weights"

    @property
    def backbones(self) -> Path:
        """Backbones in use, one folder per recipe."""
        return self.root / "backbones"

    @property
    def runtimes(self) -> Path:
        """Exported backbones for other runtimes than torch, one folder per recipe; a cache."""
        return self.root / "runtimes"

    @property
    def registry(self) -> Path:
        """The embedded MLflow store: a database and its artifacts."""
        return self.root / "mlflow"

    @property
    def reports(self) -> Path:
        """The reports of runs, one JSON file per run."""
        return self.root / "reports"

    @property
    def settled(self) -> Path:
        """What is remembered of runs that left nothing to do, one JSON file for each set of settings."""
        return self.root / "settled"

    @property
    def registry_database(self) -> Path:
        """The database of the embedded MLflow store."""
        return self.registry / "mlflow.db"

    @property
    def registry_artifacts(self) -> str:
        """The URI of the folder of the embedded MLflow store's artifacts."""
        return (self.registry / "artifacts").as_uri()

    def make(self) -> None:
        """Create the folder, for its owner alone; what this process then creates is as private as the folder.

        The permissions of an existing home stay, so that a group may share it.

        Raises:
            LakeError: if it cannot be created or written.
        """
        if "\\" in str(self.root):
            raise LakeError(
                f"home {self.root}",
                "has a backslash in its path, which DuckDB takes for the end of a folder's name",
                "Choose another with --home",
            )
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=PRIVATE, exist_ok=True)
            _restrict_new_files(self.root)
        except OSError as error:
            raise self._unwritable(error.strerror or "cannot be created") from error
        self.check()

    def check(self) -> None:
        """Check that the home can be written, without writing.

        Raises:
            LakeError: if it cannot be written.
        """
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise self._unwritable(f"{folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise self._unwritable(f"{folder} cannot be written")

    def _unwritable(self, reason: str) -> LakeError:
        return LakeError(f"home {self.root}", f"must be a writable folder ({reason})", "Choose another with --home")


def _restrict_new_files(root: Path) -> None:
    """Let this process create files without the permissions that a folder does not grant to group and others.

    The mask of the process is the only way to reach the files of DuckDB, SQLite, Arrow and MLflow.
    """
    withheld = ~root.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    before = os.umask(stat.S_IRWXG | stat.S_IRWXO)
    os.umask(before | withheld)


def open_home(root: Path, catalog_url: str | None = None, data_url: str | None = None) -> Home:
    """Resolve the home to an absolute path, so that changing the working directory does not move it.

    Raises:
        SettingsError: if a URL is not supported or contains credentials.
    """
    catalog = None if catalog_url is None else check_catalog(catalog_url)
    data = None if data_url is None else check_data(data_url)
    return Home(root.expanduser().absolute(), catalog, data)
