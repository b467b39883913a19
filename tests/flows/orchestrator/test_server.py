"""A private server serves the process that started it and nobody else, and never outlives it."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.test_layers import ROOT

LIVE = """
import sys
from pathlib import Path
from prefect import flow
from flows.orchestrator.server import orchestrate, start_server
from storage.locations.home import open_home

@flow
def double(number):
    return 2 * number

private = start_server(open_home(Path(sys.argv[1])))
with orchestrate(private):
    print(double(21), private.url, private.credential, flush=True)
if sys.argv[2:] == ["stay"]:
    sys.stdin.read()
"""


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PREFECT_HOME": str(folder / "user"), "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", LIVE, str(folder / "a home?x=1%20"), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_answer(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read the URL and the credential that a process prints once its flow has run."""
    assert process.stdout
    answer, url, credential = process.stdout.readline().split()
    assert answer == "42"
    return url, credential


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


def count_flows(url: str, **options: object) -> httpx.Response:
    return httpx.post(f"{url}/flows/count", json={}, timeout=30, trust_env=False, **options)  # type: ignore[arg-type]


def list_commands() -> str:
    """Read the command line and the environment of every process of this user, as `ps e` shows them."""
    texts = []
    for file in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        try:
            texts.append(file.read_bytes().decode(errors="replace"))
        except OSError:  # ended meanwhile, or another user's
            continue
    return "\n".join(texts)


def test_two_private_servers_of_a_new_home_run_flows_and_answer_only_their_own_process(tmp_path: Path) -> None:
    users = f"sqlite+aiosqlite:///{tmp_path}/users.db"
    processes = [start(tmp_path, "stay", PREFECT_API_DATABASE_CONNECTION_URL=users) for _ in range(2)]
    try:
        (url, credential), (_, other) = map(read_answer, processes)
        _check_refusals(url, credential, other)
        _check_privacy(tmp_path, credential)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()  # its pipes are also the server's
    assert ends(url)


def _check_refusals(url: str, credential: str, other: str) -> None:
    user, _, password = credential.partition(":")
    assert count_flows(url).status_code == 401
    assert count_flows(url, auth=(user, other.partition(":")[2])).status_code == 401
    assert count_flows(url, auth=(user, password)).json() == 1
    page = count_flows(url, auth=(user, password), headers={"Origin": "http://page.example"})
    assert "access-control-allow-origin" not in page.headers
    preflight = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{url}/flows/count", headers=preflight, timeout=30).status_code == 400
    assert count_flows(url, auth=(user, password), headers={"Host": "page.example"}).status_code == 400


def _check_privacy(folder: Path, credential: str) -> None:
    (database,) = folder.rglob("prefect.db")
    assert database.is_relative_to(folder / "a home?x=1%20" / "prefect")
    assert not (folder / "users.db").exists()
    assert (database.stat().st_mode & 0o077, database.parent.stat().st_mode & 0o077) == (0, 0)
    with closing(sqlite3.connect(database)) as opened:
        assert opened.execute("SELECT count(*) FROM flow_run").fetchall() == [(2,)]
    assert [path.name for path in database.parent.parent.glob(".*unfinished")] == []
    assert credential.partition(":")[2] not in list_commands()


def test_an_error_names_the_reason_why_a_private_server_did_not_start(tmp_path: Path) -> None:
    (tmp_path / "a home?x=1%20").write_text("no folder")
    _, stderr = start(tmp_path).communicate()
    assert "OrchestratorError: Prefect at http://127.0.0.1" in stderr
    assert "is a private server that did not start (NotADirectoryError" in stderr
    assert "Check the home's folder prefect" in stderr


def test_no_server_is_started_if_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.orchestrator.server import start_server
    from storage.locations.home import open_home

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a server was started"))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert start_server(open_home(tmp_path)) is None
