"""Prefect's server: the one in PREFECT_API_URL, or a private one, which always ends with this process."""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import cast

from storage.child_process import ChildProcess, receive
from storage.errors import OrchestratorError

START_SECONDS = 180.0
STOP_SECONDS = 5
REMEDY = "Start it with `prefect server start`, or unset PREFECT_API_URL for a private one"


def start_server() -> str | None:
    """Start a private server and return its URL without waiting for it; None if PREFECT_API_URL names one.

    It starts before anything else is imported, so that both take their seconds at the same time.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return None
    with socket.create_server(("127.0.0.1", 0)) as door:  # early requests wait until the server is ready
        server = ChildProcess(serve, pass_fds=[door.fileno()])
        atexit.register(server.close_input)  # after all that Prefect registers later, and sends at the end
        server.send(door.fileno())
        return f"http://127.0.0.1:{door.getsockname()[1]}/api"


@contextlib.contextmanager
def orchestrate(private: str | None) -> Iterator[None]:
    """Run a block's flows under the server in PREFECT_API_URL, or under a private one.

    Args:
        private: The URL that :func:`start_server` returned.

    Raises:
        OrchestratorError: if the server does not answer.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Nobody watches a private server's heartbeats, and stopping them delays each flow by a second.
    own = {PREFECT_API_URL: private, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if private else {}
    try:
        with temporary_settings(own):
            if private:
                _wait_until_healthy(private)
            yield
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OrchestratorError("Prefect", str(error), REMEDY) from error


def _wait_until_healthy(url: str) -> None:
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=START_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise OrchestratorError(
            f"Prefect at {url}",
            f"is a private server that did not start ({type(error).__name__})",
            "Run `prefect server start` to see why, or name a running one in PREFECT_API_URL",
        ) from error


def serve() -> None:
    """Run the private server until standard input closes, which happens at the latest when the parent ends."""
    door = socket.socket(fileno=cast("int", receive()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    factory = partial(create_app, ephemeral=True, final=True)
    config = uvicorn.Config(factory, factory=True, log_level="error", timeout_graceful_shutdown=STOP_SECONDS)
    uvicorn.Server(config).run(sockets=[door])


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
