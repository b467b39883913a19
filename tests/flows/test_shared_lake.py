"""The pipeline on a lake in Postgres and S3: the same commands with two settings, and no credential anywhere."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from flows.command.care import move
from flows.reports.output import OutputOptions
from flows.settings import HomeSettings
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home, open_home
from storage.locations.parquet_files import open_data
from tests.lakes import PASSWORD, SECRET, Postgres, database_of, list_files
from tests.pictures import write_image
from tests.servers import ROOT, request

Frostline = Callable[..., dict[str, Any]]
PREFECT_RECORDS = ("flow_runs", "task_runs", "logs", "artifacts")


@pytest.fixture
def output_file(tmp_path: Path) -> Path:
    """A file with everything that the commands printed."""
    return tmp_path / "output"


@pytest.fixture
def frostline(prefect_api: str, home: Path, place: Home, tmp_path: Path, output_file: Path) -> Frostline:
    """Run ``frostline`` in its own process, on the lake of ``place`` and the home of ``home``."""
    assert place.root == home
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": prefect_api,
        "COUNTING_LOG": str(tmp_path / "calls"),
    }

    def call(*arguments: str, flags: bool = True) -> dict[str, Any]:
        at = () if "--home" in arguments else ("--home", str(home))
        where = (*at, "--lake.catalog", place.catalog_url or "", "--lake.data", place.data_url or "")
        command = [sys.executable, "-m", "tests.counting", *arguments, *(where if flags else ()), "--json"]
        ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        with output_file.open("a") as log:
            log.write(ran.stdout + ran.stderr)
        assert ran.returncode == 0, ran.stderr
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    return call


def write_config(folder: Path, home: Home) -> None:
    """Write the settings to frostline.toml."""
    lines = [f'source = "{folder / "photos"}"', f'home = "{home.root}"', "[lake]"]
    urls = [f'catalog = "{home.catalog_url}"', f'data = "{home.data_url}"']
    (folder / "frostline.toml").write_text("\n".join([*lines, *urls]))


def read_all(home: Home, output_file: Path, api: str, postgres: Postgres) -> str:
    """Return all that a run leaves: its output, the catalog, the data, the home, and Prefect's records."""
    system, _ = open_data(home)
    parts = [output_file.read_bytes(), postgres.dump(database_of(home)).encode()]
    parts += [system.open_input_file(path).read() for path in list_files(home)]
    parts += [path.read_bytes() for path in home.root.rglob("*") if path.is_file()]
    parts += [json.dumps(request(f"{api}/{kind}/filter", {"limit": 200})).encode() for kind in PREFECT_RECORDS]
    return b"\n".join(parts).decode(errors="replace")


@pytest.mark.parametrize("place", ["postgres+s3"], indirect=True)
def test_move_prints_where_the_lake_is_now(place: Home, capsys: pytest.CaptureFixture[str]) -> None:
    open_lake(open_home(place.root)).close()
    lake = {"catalog": place.catalog_url, "data": place.data_url}
    move(settings=HomeSettings.model_validate({"home": place.root, "lake": lake}), output=OutputOptions(json=True))
    with read_lake(place) as moved:
        assert json.loads(capsys.readouterr().out) == {"lake": place.catalog_url, "snapshot": moved.snapshot}


@pytest.mark.parametrize("place", ["postgres+s3"], indirect=True)
def test_homes_share_a_lake_in_postgres_and_s3_and_no_credential_is_left_anywhere(
    frostline: Frostline,
    place: Home,
    photos: Path,
    tmp_path: Path,
    prefect_api: str,
    output_file: Path,
    postgres: Postgres,
) -> None:
    other = Path(shutil.copytree(place.root, tmp_path / "other"))
    first = frostline("run", str(photos))
    assert (first["backbone_calls"], first["model"]["version"]) == (60, 1)

    registry = ("--registry.tracking-uri", f"sqlite:///{place.root / 'mlflow' / 'mlflow.db'}")
    second = frostline("run", str(photos), "--home", str(other), *registry)
    assert (second["backbone_calls"], second["training"]) == (0, first["training"])

    write_config(tmp_path, place)
    write_image(photos / "red" / "another.png", "red", 4711)
    assert frostline("plan", flags=False)["reasons"] == {"new_image": 1}
    assert frostline("status", flags=False)["features"] == 60
    past = ("--at", str(first["snapshot"]))
    assert frostline("sql", "SELECT count(*) FROM features", *past, flags=False)["rows"] == [[60]]

    assert [path for path in (place.catalog, place.data) if path.exists()] == []
    assert isinstance(open_data(place)[0], fs.S3FileSystem)
    assert [name for name in list_files(place) if "/features/" in name]
    left = read_all(place, output_file, prefect_api, postgres)
    assert str(place.catalog_url) in left  # the search below would find anything
    assert [secret for secret in (PASSWORD, SECRET) if secret in left] == []
