"""A run that fails, is interrupted or is killed leaves a report of what it had done."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort

from flows.reports.saved import MAX_REPORTS, open_report
from storage.locations.home import open_home
from tasks.embed.step import commit_features

Run = Callable[..., dict[str, Any]]
DONE = "Until then: 60 images read, 60 features committed"


def read_reports(home: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((home / "reports").glob("*.json"))]


def read_prefect(key: str) -> tuple[str, str, str]:
    """Return the newest pipeline's type of state, its message, and the artifact."""
    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=30)
        state = next(run.state for run in newest if run.name.startswith("pipeline ") and run.state)
        artifacts = [str(artifact.data) for artifact in client.read_latest_artifacts() if artifact.key == key]
    return state.type.value, str(state.message), artifacts[0]


@pytest.mark.parametrize(
    ("error", "state", "final", "reason"),
    [
        (RuntimeError("bug | <b>\nnext"), "failed", "FAILED", "RuntimeError: bug | <b> next"),
        (KeyboardInterrupt(), "cancelled", "CRASHED", "interrupted from the keyboard"),
        (RuntimeError("Query interrupted"), "cancelled", "FAILED", "interrupted from the keyboard"),
        (SystemExit(3), "crashed", "CRASHED", "SystemExit: 3"),
    ],
)
@pytest.mark.usefixtures("prefect_api")
def test_a_run_that_ends_early_reports_what_it_had_done(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str, final: str, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("flows.pipeline.train", fail)
    with pytest.raises(type(error)):
        run(name=f"ends early {state} {final} {len(reason)}")
    (report,) = read_reports(home)
    assert (report["state"], report["step"]) == (state, "train")
    assert report["error"].startswith(reason)
    assert (report["images"]["seen"], report["features"]["computed"]) == (60, 60)
    assert {"resolve", "ingest", "embed", "train", "total"} == set(report["seconds"])
    kind, message, artifact = read_prefect(f"frostline-ends-early-{state}-{final.lower()}-{len(reason)}")
    assert kind == final
    assert message.startswith(f"{state} in step train: {reason}")
    assert message.endswith(DONE)
    assert "\n" not in message
    assert f"| {state} | in step train |" in artifact
    assert "<b>" not in artifact.replace("\\<b\\>", "")


def test_features_committed_before_an_error_are_counted(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def fail_second(*arguments: Any) -> int:  # noqa: ANN401 - any arguments
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return commit_features(*arguments)

    monkeypatch.setattr("flows.embed.commit_features", fail_second)
    with pytest.raises(KeyboardInterrupt):
        run(embed={"shard": 20})
    (report,) = read_reports(home)
    assert (report["step"], report["features"]["computed"]) == ("embed", 20)


def test_a_completed_run_leaves_the_report_that_it_returns(first_report: dict[str, Any], home: Path) -> None:
    (report,) = read_reports(home)
    assert report["state"] == "completed"
    assert report["metrics"] == first_report["metrics"]


def test_the_report_of_a_killed_run_says_crashed_from_the_next_run_on(tmp_path: Path) -> None:
    home, now = open_home(tmp_path), datetime.now(UTC)
    child = os.fork()
    if child == 0:
        with open_report(home, now, "killed") as save:
            save({"state": "running", "step": "embed"})
            os._exit(0)
    os.waitpid(child, 0)
    assert read_reports(tmp_path) == [{"state": "running", "step": "embed"}]
    with open_report(home, now, "next") as save:
        save({"state": "running"})
        with open_report(home, now, "other"):
            pass
        assert read_reports(tmp_path) == [{"state": "crashed", "step": "embed"}, {"state": "running"}]


def test_the_oldest_reports_are_deleted(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    for number in range(MAX_REPORTS + 5):
        with open_report(home, datetime.fromtimestamp(number, UTC), "run") as save:
            save({"number": number})
    assert [report["number"] for report in read_reports(tmp_path)] == list(range(5, MAX_REPORTS + 5))


def test_a_report_that_cannot_be_saved_is_no_error(tmp_path: Path) -> None:
    home = open_home(tmp_path / "file")
    home.root.write_text("no folder")
    with open_report(home, datetime.now(UTC), "run") as save:
        save({})
    assert home.root.read_text() == "no folder"
