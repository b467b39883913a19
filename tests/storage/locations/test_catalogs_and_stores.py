"""Postgres catalogs and object stores: what is refused, and what a lost server or a failed upload leaves."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import LakeError, SettingsError
from storage.lake.attach import open_lake, read_lake
from storage.lake.extensions import connect, find_extension, list_wheels, recycle
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.locations.parquet_files import open_data, open_file
from storage.names import SourceName
from storage.tables.features import commit_shard, read_features
from storage.vectors.feature_file import FeatureFile, Matrix, Shard, write_features
from tests.lakes import PASSWORD, SECRET, Postgres, database_of, list_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = "c" * 32
IDS = [f"{number:032x}" for number in range(8)]
VECTORS: Matrix = np.arange(8 * 4, dtype=np.float32).reshape(8, 4)
OUTGROWN = pytest.mark.parametrize("place", ["postgres+s3"], indirect=True)

READER = """
import json, pathlib, sys, tempfile
import duckdb

catalog, data, endpoint, query, *files = sys.argv[1:]
con = duckdb.connect()
for file, name in zip(files, ("ducklake", "postgres_scanner", "httpfs", "aws")):
    link = pathlib.Path(tempfile.mkdtemp()) / (name + ".duckdb_extension")
    link.symlink_to(file)
    con.execute(f"LOAD '{link}'")
where = f"ENDPOINT '{endpoint}', USE_SSL false, URL_STYLE 'path'"
con.execute(f"CREATE SECRET (TYPE s3, PROVIDER credential_chain, {where})")
con.execute(f"ATTACH 'ducklake:{catalog}' AS lake (DATA_PATH '{data}/', READ_ONLY)")
print(json.dumps(con.execute(query).fetchall()))
"""


def add_features(lake: Lake, image_ids: list[str] = IDS) -> int:
    file = write_features(lake.home, RECIPE, image_ids, VECTORS[: len(image_ids)])
    return commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), len(image_ids), 1.0), NOW)


def refuse(home: Home) -> str:
    """Give the message with which opening is refused, by reading and by writing; it holds no credential."""
    messages = []
    for open_it in (read_lake, open_lake):
        with pytest.raises(LakeError) as refused:
            open_it(home)
        messages.append(str(refused.value))
    assert not [message for message in messages for secret in (PASSWORD, SECRET, "wrong-secret") if secret in message]
    return "\n".join(messages)


@pytest.mark.parametrize(
    "url",
    [
        "postgres:dbname=lake host=db password=hunter2",
        "postgres:dbname=lake PASSWORD = 'hunter2'",
        "postgres:postgresql://me:hunter2@db/lake",
        "postgresql://me:hunter2@db/lake",
        "postgresql://db/lake?user=me&password=hunter2",
        "mysql://me:hunter2@db/lake",
        "hunter2",
    ],
)
def test_a_catalog_with_a_password_or_of_another_kind_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_home(tmp_path, url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["s3://key:hunter2@bucket/folder", "s3://bucket/folder?secret=hunter2", "s3://", "/hunter2", "file:///hunter2"],
)
def test_data_with_credentials_or_in_no_bucket_are_refused_without_showing_them(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_home(tmp_path, None, url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgres:dbname=lake host=db", "postgres:dbname=lake host=db"),
        ("postgresql://me@db:5432/lake?sslmode=require", "postgres:postgresql://me@db:5432/lake?sslmode=require"),
        ("postgres:service=lake passfile=/run/pass", "postgres:service=lake passfile=/run/pass"),
    ],
)
def test_a_catalog_without_a_password_is_accepted(tmp_path: Path, url: str, name: str) -> None:
    assert open_home(tmp_path, url, "s3://bucket/folder/").catalog_name == name
    assert open_home(tmp_path, url, "s3://bucket/folder/").data_url == "s3://bucket/folder"


@OUTGROWN
def test_a_server_that_does_not_answer_is_one_error(place: Home) -> None:
    gone = re.sub(r"port=\d+", "port=1", str(place.catalog_url))
    assert refuse(open_home(place.root, gone, place.data_url)).count("Check lake.catalog, the server") == 2


@OUTGROWN
def test_a_wrong_password_is_one_error(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    assert refuse(place).count("password authentication failed") == 2


@OUTGROWN
def test_a_store_without_credentials_is_one_error(place: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_lake(place).close()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert refuse(place).count("no credentials were found") == 2


@OUTGROWN
def test_a_missing_database_is_one_error(place: Home) -> None:
    other = str(place.catalog_url).replace(database_of(place), "nowhere")
    assert refuse(open_home(place.root, other, place.data_url)).count('database "nowhere" does not exist') == 2


@OUTGROWN
def test_a_missing_bucket_is_refused_before_anything_is_created(place: Home) -> None:
    wrong = open_home(place.root, place.catalog_url, "s3://elsewhere/lake")
    with pytest.raises(LakeError, match="bucket elsewhere: does not exist"):
        open_lake(wrong)
    with open_lake(place) as lake:
        assert lake.snapshot


@OUTGROWN
def test_a_data_folder_other_than_that_of_the_catalog_is_refused(place: Home, tmp_path: Path) -> None:
    open_lake(place).close()
    for other in (None, "s3://lakes/another"):
        refused = refuse(open_home(place.root, place.catalog_url, other))
        assert refused.count(f"has its data in {place.data_url}/") == 2
    local = open_home(tmp_path / "local")
    open_lake(local).close()
    assert "has its data in" in refuse(open_home(local.root, None, place.data_url))
    bucket = open_home(tmp_path / "bucket", None, place.data_url)
    open_lake(bucket).close()
    assert "has its data in s3" in refuse(open_home(bucket.root))


@OUTGROWN
def test_reading_an_empty_database_gives_an_empty_lake_and_creates_nothing(place: Home, postgres: Postgres) -> None:
    with read_lake(place) as lake:
        assert lake.value("SELECT count(*) FROM features") == 0
        assert not lake.exists
    assert "ducklake" not in postgres.dump(database_of(place))


@OUTGROWN
def test_lakes_of_both_kinds_can_be_opened_in_one_process(place: Home, tmp_path: Path) -> None:
    homes = (open_home(tmp_path / "local"), place)
    for count in range(2):
        for home in homes:
            with open_lake(home) as lake:
                assert add_features(lake) == (0 if count else len(IDS))
                assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)


def test_an_idle_connection_is_reused_for_the_same_extensions(tmp_path: Path) -> None:
    local, far = list_wheels(open_home(tmp_path)), list_wheels(open_home(tmp_path, "postgres:dbname=x", "s3://b"))
    kept = connect(local)
    recycle(kept, local)
    other = connect(far)
    assert other is not kept
    loaded = "SELECT extension_name FROM duckdb_extensions() WHERE loaded"
    assert {"postgres_scanner", "httpfs"} <= {name for (name,) in other.execute(loaded).fetchall()}
    assert connect(local) is kept


@OUTGROWN
def test_an_interrupted_upload_leaves_nothing(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    open_lake(place).close()
    whole = pq.ParquetWriter.write_table

    def write_then_fail(self: pq.ParquetWriter, table: Any, **options: Any) -> None:  # noqa: ANN401 - no types
        whole(self, table, **options)
        raise OSError("connection lost")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_then_fail)
    with pytest.raises(LakeError, match=r"features s3://.*connection lost.*Check the bucket"):
        write_features(place, RECIPE, IDS, VECTORS)
    assert list_files(place) == {}


@OUTGROWN
def test_an_object_appears_when_its_upload_is_complete(place: Home) -> None:
    with FeatureFile(place, RECIPE, 4) as file:
        file.write(IDS, VECTORS)
        file._flush()
        assert (list_files(place), file.path) == ({}, None)
    assert file.path
    assert file.path.startswith(f"{place.data_url}/main/features/recipe_id={RECIPE}/")
    with open_file(place, file.path) as opened:
        assert pq.read_metadata(opened).num_rows == len(IDS)


@OUTGROWN
def test_a_google_folder_uses_the_s3_compatible_api(place: Home) -> None:
    with open_lake(open_home(place.root, None, str(place.data_url).replace("s3://", "gs://"))) as lake:
        assert add_features(lake) == len(IDS)
        assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)


def test_an_azure_folder_needs_the_name_of_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = open_home(tmp_path, None, "az://container/folder")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(LakeError, match="AZURE_STORAGE_ACCOUNT"):
        open_lake(azure)


@OUTGROWN
def test_a_commit_is_repeated_when_the_server_closes_the_connection(place: Home, postgres: Postgres) -> None:
    with open_lake(place) as lake:
        tries: list[int] = []

        def write() -> None:
            lake.execute("INSERT INTO recipes (recipe_id) VALUES ('once')")
            if not tries:
                postgres.psql(
                    "postgres",
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_of(place)}'",
                )
            tries.append(1)

        lake.commit(write)
        assert len(tries) > 1
        assert lake.value("SELECT count(*) FROM recipes") == 1


@OUTGROWN
def test_a_plain_duckdb_reads_the_features_as_they_are_and_as_they_were(place: Home, s3: dict[str, str]) -> None:
    with open_lake(place) as lake:
        add_features(lake, IDS[:5])
        then = lake.snapshot
        add_features(lake)
    for at, count in (("", 8), (f"AT (VERSION => {then})", 5)):
        query = f"SELECT count(*), sum(list_sum(vector)) FROM lake.features {at}"
        assert read_plainly(place, s3, query) == [[count, float(VECTORS[:count].sum())]]


def read_plainly(home: Home, s3: dict[str, str], query: str) -> Any:  # noqa: ANN401 - rows
    """Ask a DuckDB in a process of its own, which knows nothing of this project."""
    files = [str(find_extension(wheel)) for wheel in ("ducklake", "postgres", "httpfs", "aws")]
    endpoint = s3["AWS_ENDPOINT_URL"].removeprefix("http://")
    command = [sys.executable, "-I", "-c", READER, str(home.catalog_url), str(home.data_url), endpoint, query, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@OUTGROWN
def test_keys_in_a_profile_file_open_the_lake(place: Home, tmp_path: Path, s3: dict[str, str]) -> None:
    open_lake(place).close()
    (tmp_path / "credentials").write_text(f"[team]\naws_access_key_id = lake\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "pass").write_text(f"127.0.0.1:*:*:lake:{PASSWORD}\n")
    (tmp_path / "pass").chmod(0o600)
    env = {
        "AWS_ENDPOINT_URL_S3": s3["AWS_ENDPOINT_URL"],
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_PROFILE": "team",
        "AWS_REGION": "us-east-1",
        "PGPASSFILE": str(tmp_path / "pass"),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    code = (
        "import sys; from pathlib import Path; from tests.storage.locations.test_catalogs_and_stores import *\n"
        "with open_lake(open_home(Path(sys.argv[1]), *sys.argv[2:])) as lake: print(add_features(lake))"
    )
    command = [sys.executable, "-c", code, str(place.root), str(place.catalog_url), str(place.data_url)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{len(IDS)}\n", "")
    assert open_data(place)[1] == str(place.data_url).removeprefix("s3://")


def test_a_second_catalog_for_one_data_folder_is_refused(
    place: Home, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with open_lake(place) as lake:
        add_features(lake)
    other = open_home(place.root, postgres.make_database(), place.data_url)
    assert refuse(other).count("has files of one") == 2
    with read_lake(place) as lake:
        assert lake.value("SELECT count(*) FROM features") == len(IDS)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (None, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY is not set"),
    ],
)
def test_missing_google_credentials_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, missing: str
) -> None:
    for variable in [key for key in os.environ if key.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if given:
        monkeypatch.setenv(given, "known")
    home = open_home(tmp_path / "home", None, "gs://bucket/lake")
    with pytest.raises(LakeError, match=f"^data gs://bucket/lake: no credentials.*: {missing}, which for gs.* HMAC"):
        open_lake(home)
    assert not home.catalog.exists()
