"""Prefect's server: the one that is named, or a private one, which ends when this process does, however that ends."""

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

from storage.errors import OrchestratorError

START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from flows.orchestrator.server import serve; serve()"
)
PATIENCE = 180.0  # seconds in which a private server starts
GRACE = 5  # seconds in which it ends
REMEDY = "Start it with `prefect server start`, or unset PREFECT_API_URL for a private one"


def start_server() -> str | None:
    """Start a private server, unless one is named, and do not wait for it; gives its URL.

    It is started before anything else is imported, so that both take their seconds at the same time.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return None
    with socket.create_server(("127.0.0.1", 0)) as door:  # who asks before the server is ready waits
        process = subprocess.Popen(  # noqa: S603 - this interpreter, a text of ours
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[door.fileno()],
            start_new_session=True,  # an interrupt from the keyboard is the parent's, which has yet to tell the server
        )
        if process.stdin:
            atexit.register(process.stdin.close)  # after all that Prefect registers later, and sends at the end
            for value in (sys.path, door.fileno()):
                pickle.dump(value, process.stdin)
            process.stdin.flush()
        return f"http://127.0.0.1:{door.getsockname()[1]}/api"


@contextlib.contextmanager
def orchestrate(private: str | None) -> Iterator[None]:
    """Run flows under the server that is named, or under the private one that ``start_server`` gave.

    Raises:
        OrchestratorError: where a server does not answer.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Nobody watches a private server's heartbeat, and stopping it holds each flow up for a second.
    own = {PREFECT_API_URL: private, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if private else {}
    try:
        with temporary_settings(own):
            if private:
                _wait(private)
            yield
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OrchestratorError("Prefect", str(error), REMEDY) from error


def _wait(url: str) -> None:
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=PATIENCE, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise OrchestratorError(
            f"Prefect at {url}",
            f"is a private server, and did not start ({type(error).__name__})",
            "See with `prefect server start` why, or name one that runs with PREFECT_API_URL",
        ) from error


def serve() -> None:
    """Be the private server until standard input ends: nobody writes there, and the system closes it at the latest."""
    door = socket.socket(fileno=pickle.load(sys.stdin.buffer))  # noqa: S301 - from the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    make = partial(create_app, ephemeral=True, final=True)
    config = uvicorn.Config(make, factory=True, log_level="error", timeout_graceful_shutdown=GRACE)
    uvicorn.Server(config).run(sockets=[door])


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
