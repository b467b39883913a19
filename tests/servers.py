"""Real servers for tests: on loopback, each in a process group of its own, always stopped."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOREIGN = ("PREFECT_", "MLFLOW_", "FROSTLINE_", "COUNTING_")


def free_port() -> int:
    """Find a port of the loopback interface on which nothing listens."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def environment(**extra: str) -> dict[str, str]:
    """Give the environment of a user who set nothing but this, with nobody phoning home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **extra,
    }


@contextlib.contextmanager
def outlived(pid: int, sent: str = "TERM") -> Iterator[None]:
    """Let a process get a signal where this one is killed within a block: then a pipe to its guard closes."""
    guard = subprocess.Popen(["/bin/sh", "-c", f"read _; kill -s {sent} {pid}"], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()


@contextlib.contextmanager
def process(log: Path, env: Mapping[str, str], *command: str, cwd: Path = ROOT) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ``python -m command`` for the length of a block, then end it and all that it started."""
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", *command], env=env, cwd=cwd, stdout=out, stderr=out, start_new_session=True
        )
    try:
        with outlived(running.pid):
            yield running
    finally:
        _stop(running)


@dataclass(frozen=True)
class Server:
    """A server that was started."""

    uri: str
    log: Path
    running: "subprocess.Popen[bytes]"

    def wait(self, seconds: float = 180) -> None:
        """Wait until it answers; raises with what it said where it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.running.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:  # noqa: S310 - loopback
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"{self.uri} does not answer:\n{self.log.read_text(errors='replace')[-4000:]}")


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """Start a Prefect server; gives the environment for its clients beside it."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}/api"
    env = environment(PREFECT_HOME=str(folder / "prefect"), PREFECT_API_URL=uri, PREFECT_WORKER_QUERY_SECONDS="1")
    log = folder / "prefect-server.log"
    with process(log, env, "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)) as running:
        yield Server(uri, log, running), env


@contextlib.contextmanager
def mlflow_server(folder: Path, template: Path, port: int | None = None) -> Iterator[Server]:
    """Start an MLflow server over a copy of an empty store."""
    port, store = port or free_port(), folder / "mlflow-server.db"
    shutil.copy(template, store)
    command = ("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    stores = ("--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(folder / "artifacts"))
    log = folder / "mlflow-server.log"
    with process(log, environment(), *command, *stores, "--serve-artifacts", cwd=folder) as running:
        yield Server(f"http://127.0.0.1:{port}", log, running)


@contextlib.contextmanager
def model_server(folder: Path, tracking_uri: str, model: str) -> Iterator[Server]:
    """Start ``mlflow models serve`` on a registered model."""
    port = free_port()
    where = ("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))
    env = environment(MLFLOW_TRACKING_URI=tracking_uri)
    log = folder / "model-server.log"
    with process(log, env, "mlflow", "models", "serve", "-m", model, *where, cwd=folder) as running:
        yield Server(f"http://127.0.0.1:{port}", log, running)


def request(url: str, body: object = None, *, seconds: float = 120) -> Any:  # noqa: ANN401 - JSON
    """Get a URL, or post JSON to it; gives the JSON that it answers. A server that is busy is asked again."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=seconds) as answer:  # noqa: S310 - loopback
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:  # Prefect's says 503 while its SQLite is locked
            if error.code != 503 or time.monotonic() > end:
                raise AssertionError(f"{url}: {error.code} {error.read().decode(errors='replace')[:2000]}") from error
        time.sleep(0.5)


def _stop(running: "subprocess.Popen[bytes]", seconds: float = 15) -> None:
    """End a process and all that it started, kindly, then by force: a worker puts runs into groups of their own."""
    started = _list_descendants(running.pid)
    _signal(os.killpg, running.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(seconds)
    _signal(os.killpg, running.pid, signal.SIGKILL)
    for pid in started:
        _signal(os.kill, pid, signal.SIGKILL)
    running.wait()


def _list_descendants(pid: int) -> list[int]:
    """List a process's children and theirs, as Linux tells them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(stat.parent.name)
                found += [child, *_list_descendants(child)]
    return found


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        send(pid, number)


@contextlib.contextmanager
def without_server() -> Iterator[None]:
    """Let flows be plain calls within a block."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: None}):
        yield
