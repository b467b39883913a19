"""A private server serves the process that started it, and never outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.test_layers import ROOT

LIVE = """
import sys
from prefect import flow
from flows.orchestrator.server import orchestrate, start_server

@flow
def double(number):
    return 2 * number

with orchestrate(start_server()):
    from prefect.settings import PREFECT_API_URL
    print(double(21), PREFECT_API_URL.value(), flush=True)
if sys.argv[1:] == ["stay"]:
    sys.stdin.read()
"""


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", LIVE, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=30).is_success
    except httpx.TransportError:
        return False


def ends(url: str) -> bool:
    """Wait until a server is gone, within what a busy machine takes."""
    until = time.monotonic() + 60
    while is_up(url) and time.monotonic() < until:
        time.sleep(0.2)
    return not is_up(url)


def test_a_private_server_runs_a_flow_and_ends_when_its_process_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "stay")
    assert process.stdout
    answer, url = process.stdout.readline().split()
    assert answer == "42"
    assert is_up(url)
    process.send_signal(signal.SIGKILL)
    process.wait()  # its pipes are also the server's
    assert ends(url)


def test_an_error_says_what_to_do_about_a_private_server_that_cannot_start(tmp_path: Path) -> None:
    unwritable = "sqlite+aiosqlite:////nowhere/at/all/prefect.db"
    _, stderr = start(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=unwritable).communicate()
    assert "OrchestratorError: Prefect at http://127.0.0.1" in stderr
    assert "is a private server that did not start" in stderr
    assert "Run `prefect server start` to see why" in stderr


def test_no_server_is_started_if_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.orchestrator.server import start_server

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a server was started"))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert start_server() is None
