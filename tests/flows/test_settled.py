"""A run with nothing to do looks first, and says what a full run would say; whatever has changed makes it run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.command.app import run_command
from flows.operations.settled import find_idle_report
from flows.settings import RunSettings
from storage.lake.attach import open_lake, read_lake
from tasks.named_server import may_name_server
from tests.counting import Tally
from tests.pictures import write_image
from tests.test_layers import ROOT

Run = Callable[..., dict[str, Any]]
TIMES = ("seconds", "snapshot")


@pytest.fixture
def settings(photos: Path, home: Path) -> RunSettings:
    return RunSettings(source=photos, home=home)


def look(settings: RunSettings) -> dict[str, Any] | None:
    return find_idle_report(settings)


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in TIMES}


@pytest.fixture
def settled(run: Run, settings: RunSettings) -> dict[str, Any]:
    """A source that needs nothing after a first run, with a bad file and a conflict; returns the run's report."""
    photos = settings.source_path
    (photos / "red" / "words.jpg").write_text("not an image")
    (photos / "red" / "notes.txt").write_text("ignored")
    shutil.copy(photos / "red" / "000.png", photos / "green" / "same.png")
    return run()


@pytest.mark.usefixtures("settled")
def test_the_report_is_that_of_a_full_run_with_nothing_to_do(run: Run, settings: RunSettings) -> None:
    report, full = look(settings), run()
    assert report
    assert without_times(report) == without_times(full)
    again = look(settings)  # remembered by a run that did nothing itself
    assert again
    assert without_times(again) == without_times(full)
    assert again["snapshot"] == full["snapshot"]


@pytest.mark.usefixtures("settled")
def test_looking_writes_nothing_into_the_lake_and_the_command_keeps_a_report(
    settings: RunSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.pipeline.pipeline", lambda _: pytest.fail("a full run was started"))
    with read_lake(settings.resolved_home) as lake:
        before = lake.snapshot
    run_command(["run", str(settings.source), "--home", str(settings.home), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["backbone_calls"] == 0
    with read_lake(settings.resolved_home) as lake:
        assert lake.snapshot == before == report["snapshot"]
    kept = [json.loads(file.read_text()) for file in settings.resolved_home.reports.glob("*.json")]
    assert report in kept


def add(photos: Path, _: Path) -> None:
    write_image(photos / "red" / "new.png", "red", 99)


def delete(photos: Path, _: Path) -> None:
    (photos / "red" / "001.png").unlink()


def rename(photos: Path, _: Path) -> None:
    (photos / "red" / "001.png").rename(photos / "red" / "renamed.png")


def move(photos: Path, _: Path) -> None:
    (photos / "red" / "001.png").rename(photos / "green" / "moved.png")


def touch(photos: Path, _: Path) -> None:
    os.utime(photos / "red" / "001.png", ns=(0, 0))


def replace_silently(photos: Path, _: Path) -> None:
    """Same size and time of modification, other bytes: the time of change or the inode tells."""
    file = photos / "red" / "001.png"
    status, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def hide(photos: Path, _: Path) -> None:
    (photos / "red").rename(photos / ".red")


def move_alias(_: Path, home: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    MlflowClient(uri, uri).delete_registered_model_alias("photos", "champion")


def lose_features(_: Path, home: Path) -> None:
    next((home / "data" / "main" / "features").rglob("*.parquet")).unlink()


def lose_head(_: Path, home: Path) -> None:
    next((home / "heads").rglob("head.safetensors")).unlink()


def lose_backbone(_: Path, home: Path) -> None:
    shutil.rmtree(home / "backbones")


def lose_lake(_: Path, home: Path) -> None:
    (home / "catalog.sqlite").unlink()
    shutil.rmtree(home / "data")


CHANGES = (
    *(add, delete, rename, move, touch, replace_silently, hide),
    *(move_alias, lose_features, lose_head, lose_backbone, lose_lake),
)


@pytest.mark.usefixtures("first_report")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_has_changed_is_left_to_a_full_run(
    change: Callable[[Path, Path], None], settings: RunSettings, run: Run, photos: Path, home: Path
) -> None:
    run()
    assert look(settings)
    change(photos, home)
    assert look(settings) is None


@pytest.mark.usefixtures("first_report")
def test_other_settings_another_label_or_an_expired_snapshot_are_left_to_a_full_run(
    settings: RunSettings, run: Run
) -> None:
    run()
    assert look(settings)
    for change in ({"retry": True}, {"rehash": True}, {"train": {"seed": 5}}, {"registry": {"alias": "best"}}):
        assert look(RunSettings.model_validate({**settings.model_dump(), **change})) is None
    with open_lake(settings.resolved_home) as lake:
        lake.commit(lambda: None)
        assert look(settings)  # only the guard's number
        lake.commit(lambda: lake.execute("UPDATE labels SET class = 'green' WHERE class = 'red'"))
    assert look(settings) is None


@pytest.mark.usefixtures("first_report")
def test_predictions_that_were_deleted_are_made_again(settings: RunSettings, run: Run) -> None:
    run()
    assert look(settings)
    with open_lake(settings.resolved_home) as lake:
        lake.commit(lambda: lake.execute("DELETE FROM predictions WHERE image_id = (SELECT min(image_id) FROM images)"))
    assert look(settings) is None
    run()
    assert look(settings)
    with read_lake(settings.resolved_home) as lake:
        assert lake.value("SELECT count(DISTINCT image_id) FROM predictions") == 60


@pytest.mark.usefixtures("first_report")
def test_what_another_program_left_in_place_of_it_is_ignored(settings: RunSettings, run: Run) -> None:
    run()
    for file in settings.resolved_home.settled.glob("*.json"):
        file.write_text("{")
    assert look(settings) is None


def test_a_process_with_nothing_to_do_imports_none_of_the_slow_libraries(
    run: Run, tally: Tally, settings: RunSettings
) -> None:
    run()
    code = (
        "import sys; sys.argv = ['frostline', *sys.argv[1:]]; from flows.start import main; main();"
        "print(sorted({'torch', 'prefect', 'mlflow', 'pandas', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "run", str(settings.source), "--home", str(settings.home), "--json"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert ended.stderr.splitlines()[-1] == "[]"
    assert json.loads(ended.stdout)["features"] == {"computed": 0, "reused": 60, "failed": 0}
    assert tally.images == 60


def test_a_server_may_be_named_by_the_environment_a_profile_or_a_file(tmp_path: Path) -> None:
    profiles = {"PREFECT_HOME": str(tmp_path / "prefect")}
    assert not may_name_server(profiles, tmp_path)
    assert may_name_server({**profiles, "PREFECT_API_URL": "http://127.0.0.1:4200/api"}, tmp_path)
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "profiles.toml").write_text('[profiles.x]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"')
    assert may_name_server(profiles, tmp_path)
    (tmp_path / "prefect" / "profiles.toml").write_text('active = "local"\n')
    assert may_name_server(profiles, tmp_path)
    (tmp_path / "prefect" / "profiles.toml").write_text('active = "ephemeral"\n')
    assert not may_name_server(profiles, tmp_path)
    assert may_name_server({**profiles, "PREFECT_PROFILE": "local"}, tmp_path)
    assert not may_name_server({"PREFECT_HOME": str(tmp_path)}, tmp_path)
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:4200/api")
    assert may_name_server({"PREFECT_HOME": str(tmp_path)}, tmp_path)
