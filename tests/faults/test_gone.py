"""A catalog's server or an object store that does not answer: every reader reports it in one line, with the remedy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.command.app import run_command
from storage.errors import LakeUnreachableError
from storage.lake.attach import open_lake, read_lake
from storage.lake.extensions import _idle_connections
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.tables.features import read_features
from storage.tables.recipes import save_recipe
from storage.vectors.features_reader import find_features
from tasks.embed.find_recipe import make_request
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import find_weights
from tests.lakes import PASSWORD, SECRET, start_postgres, start_s3
from tests.pictures import write_folder
from tests.rows import NOW, add_features, label, name
from tests.storage.vectors.test_features_reader import RECIPE

URL = "s3://lakes/lake"


def fill(home: Home) -> None:
    """Make a lake with features under the recipe that the defaults lead to."""
    weights = find_weights(home, EmbedSettings().backbone, EmbedSettings().weights)
    assert weights
    with open_lake(home) as lake:
        save_recipe(lake, make_request(EmbedSettings(), weights), RECIPE, NOW)
        label(lake, range(4), "red")
        add_features(lake, range(4), RECIPE.recipe_id)


@pytest.fixture
def orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake that is open for reading, and whose Postgres has stopped since."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with start_postgres() as postgres:
        home = open_home(tmp_path / "home", postgres.make_database())
        fill(home)
        with read_lake(home) as lake:
            postgres.stop()
            yield lake


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A lake in an S3 server that has stopped."""
    home = open_home(tmp_path / "home", None, URL)
    with start_s3(tmp_path) as (env, _):
        for variable, value in env.items():
            monkeypatch.setenv(variable, value)
        fill(home)
    _idle_connections.cache_clear()  # as in a process that starts now, which has read nothing yet
    return home


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line; gives the one line with which it is refused."""
    with pytest.raises(SystemExit) as ended:
        run_command(arguments)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frostline: ")]
    assert not [secret for secret in (PASSWORD, SECRET) if secret in line]
    return line


def test_every_reader_reports_that_the_catalogs_server_does_not_answer(
    orphan: Lake, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = rf"^lake {orphan.home.catalog_url}: does not answer: .*refused.*\. Check lake.catalog and its server"
    for read in (
        lambda: orphan.rows("FROM labels"),
        lambda: orphan.read("FROM labels"),
        lambda: orphan.table("FROM labels"),
        lambda: find_features(orphan, RECIPE.recipe_id),
        lambda: find_features(orphan, RECIPE.recipe_id, where="class = 'red'"),
        lambda: read_features(orphan, RECIPE.recipe_id, [name(1)]),
    ):
        with pytest.raises(LakeUnreachableError, match=said):
            read()
    photos = write_folder(tmp_path / "photos", per_class=1)
    where = ("--home", str(orphan.home.root), "--lake.catalog", str(orphan.home.catalog_url))
    for command in (("sql", "from labels"), ("status",), ("plan", str(photos))):
        line = refuse(capsys, *command, *where)
        assert "Connection refused" in line
        assert "Check lake.catalog, the server" in line


def test_a_commit_reports_that_the_catalogs_server_does_not_answer(orphan: Lake) -> None:
    with pytest.raises(LakeUnreachableError, match=r"Check lake\.catalog and its server"):
        orphan.commit(lambda: orphan.execute("DELETE FROM labels"))


def test_every_reader_reports_that_the_object_store_does_not_answer(
    cut_off: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    photos = write_folder(tmp_path / "photos", per_class=1)
    where = ("--home", str(cut_off.root), "--lake.data", URL)
    for command in (("sql", "select vector from features"), ("status",), ("plan", str(photos)), ("doctor", "--repair")):
        line = refuse(capsys, *command, *where)
        assert line.startswith(f"frostline: data {URL}: ")
        assert "does not answer" in line
        assert line.endswith("Check the store and the network, then run again.")
    with read_lake(cut_off) as lake, pytest.raises(LakeUnreachableError, match=f"data {URL}: does not answer"):
        find_features(lake, RECIPE.recipe_id)
