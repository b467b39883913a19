"""Without a named server no server is started and nothing listens; with one, a run is a flow run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.command.app import run_command
from flows.pipeline import pipeline
from flows.settings import RunSettings
from storage.errors import SourceError, TrainError
from tasks.step_task import step_task
from tests.counting import Tally
from tests.test_layers import ROOT


def run(photos: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    run_command(["run", str(photos), "--home", str(home), "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_without_a_named_server_a_run_starts_none_and_does_the_same(
    tally: Tally, photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.socket.listen", lambda *_: pytest.fail("a server was started"))
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda *_, **__: pytest.fail("Prefect was asked"))
    with temporary_settings({PREFECT_API_URL: None}):
        assert run(photos, home, capsys)["features"]["computed"] == tally.images == 60
        report = run(photos, home, capsys)
    assert (report["features"]["reused"], report["model"]["alias"]) == (60, "champion")
    kept = [json.loads(path.read_text()) for path in (home / "reports").glob("*.json")]
    assert [each["features"]["computed"] for each in sorted(kept, key=lambda each: -each["features"]["computed"])] == [
        60,
        0,
    ]


@pytest.mark.usefixtures("prefect_api", "tally")
def test_with_a_named_server_a_run_is_a_flow_run(photos: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(photos, home, capsys)
    with get_client(sync_client=True) as client:
        names = [flow_run.name for flow_run in client.read_flow_runs()]
    assert f"pipeline {photos}" in names


def test_a_step_is_tried_again_after_a_passing_error_without_prefect_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()
    monkeypatch.setattr("tasks.step_task.RETRY_DELAYS", [0.0, 0.0])

    @step_task("step", retry_on=ConnectionError)
    def step(fails: int, error: type[Exception]) -> int:
        calls.append(fails)
        if len(calls) <= fails:
            raise error("passing")
        return len(calls)

    with temporary_settings({PREFECT_API_URL: None}):
        assert step(2, ConnectionError) == 3
        calls.clear()
        with pytest.raises(ConnectionError):
            step(3, ConnectionError)
        calls.clear()
        with pytest.raises(SourceError):
            step(1, lambda text: SourceError("value", text, "remedy"))  # type: ignore[arg-type]
        assert len(calls) == 1


def test_a_named_server_that_does_not_answer_is_one_line(photos: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "flows.start", "run", str(photos), "--home", str(tmp_path / "home")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "prefect server start" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_run_that_fails_without_prefect_leaves_its_report(
    tally: Tally, photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrainError("value", "rule", "remedy")

    monkeypatch.setattr("flows.pipeline.train", fail)
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(TrainError):
        pipeline(RunSettings(source=photos, home=home))
    (kept,) = (home / "reports").glob("*.json")
    report = json.loads(kept.read_text())
    assert (report["state"], report["step"], report["error"]) == ("failed", "train", "TrainError: value: rule. remedy.")
    assert (report["features"]["computed"], tally.images) == (60, 60)
