"""Homes that are moved or copied, or whose names mean something in a URL: all that they write stays in them."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage.care.doctor import check_lake
from storage.errors import LakeError
from storage.lake.attach import open_lake, read_lake
from storage.lake.extensions import _idle_connections
from storage.locations.home import Home, open_home
from storage.locations.registry_paths import find_former
from storage.locations.urls import read_sqlite_url, write_sqlite_url
from storage.names import ModelName
from tasks.register.registry.client import find_experiment, open_registry
from tasks.register.settings import RegisterSettings
from tests.rows import add_features, label

NAMES = ("q?x=1", "with%20pct", "quo'te", "ha#sh & spa ce", "[br]*")


def log_file(home: Home, name: str) -> str:
    """Log a run with one file, as registering does; returns the URI of the run's files."""
    with open_registry(home, RegisterSettings()) as client:
        run = client.create_run(find_experiment(client, home, ModelName(name)))
        client.log_text(run.info.run_id, "text", "file.txt")
        return str(run.info.artifact_uri)


def list_logged(home: Home) -> list[Path]:
    return sorted((home.registry / "artifacts").rglob("file.txt"))


def test_a_copied_home_writes_into_itself_and_a_moved_one_finds_what_it_has(home: Path, tmp_path: Path) -> None:
    original = open_home(home)
    log_file(original, "photos")
    shutil.copytree(home, tmp_path / "copy")
    copy = open_home(tmp_path / "copy")
    assert find_former(copy) == [original.registry_artifacts]
    uri = log_file(copy, "photos")
    assert uri.startswith(copy.registry_artifacts)
    assert (len(list_logged(original)), len(list_logged(copy))) == (1, 2)
    moved = open_home(tmp_path / "moved")
    shutil.move(home, moved.root)
    open_lake(moved).close()
    with open_registry(moved, RegisterSettings()) as client:
        [run] = client.search_runs([find_experiment(client, moved, ModelName("photos"))])
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["file.txt"]
        assert run.info.artifact_uri.startswith(moved.registry_artifacts)


@pytest.mark.parametrize("name", NAMES)
def test_a_home_of_any_name_has_its_lake_and_its_registry_in_it(
    tmp_path: Path, registry_template: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    temporary = tmp_path / f"tmp {name}"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    _idle_connections.cache_clear()
    home = open_home(tmp_path / "around" / name)
    home.registry.mkdir(parents=True)
    shutil.copy(registry_template, home.registry_database)
    read_lake(home).close()  # an empty one, in memory
    with open_lake(home) as lake:
        label(lake, range(3), "red")
        add_features(lake, range(3))
    with read_lake(home) as lake:
        assert lake.value("SELECT count(vector) FROM features") == 3
        assert [finding for finding in check_lake(lake, datetime.now(UTC)) if finding.check in ("file", "orphan")] == []
    log_file(home, "photos")
    assert len(list_logged(home)) == 1
    assert list((tmp_path / "around").iterdir()) == [home.root]


def test_a_home_with_a_backslash_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="backslash"):
        open_lake(open_home(tmp_path / "back\\slash"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_url_of_a_database_leads_back_to_its_file(name: str) -> None:
    path = Path("/homes", name, "mlflow.db")
    assert read_sqlite_url(write_sqlite_url(path)) == path


def test_a_run_over_a_copied_home_registers_in_the_copy(
    first_report: dict[str, Any],  # noqa: ARG001 - makes the home
    run: Callable[..., dict[str, Any]],
    photos: Path,
    home: Path,
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    before = sorted(home.rglob("*"))
    (photos / "red" / "000.png").unlink()
    run(home=copy)
    assert sorted(home.rglob("*")) == before
    with open_registry(open_home(copy), RegisterSettings()) as client:
        for version in client.search_model_versions("name='photos'"):
            folder = client.get_model_version_download_uri("photos", version.version)
            assert folder.startswith(open_home(copy).registry_artifacts)
