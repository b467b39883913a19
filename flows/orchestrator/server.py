"""Prefect's server: the one in PREFECT_API_URL, or a private one, which always ends with this process."""

import atexit
import contextlib
import os
import secrets
import select
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.orchestrator.private_server import HOST, ServerJob, serve
from storage.child_process import ChildProcess
from storage.errors import FrostlineError, OrchestratorError, no_space_error
from storage.locations.home import Home

START_SECONDS = 180.0
REPORT_BYTES = 4096
LEAST_BYTES = 1_000_000
"""With less free space than this, a database can hardly be written."""
REMEDY = "Start it with `prefect server start`, or unset PREFECT_API_URL for a private one"


@dataclass(frozen=True)
class PrivateServer:
    """A private server that is starting: its URL, and the credential without which it answers nothing.

    From ``report``, a file descriptor, one reads why it did not start. Its database is below ``folder``.
    """

    url: str
    credential: str = field(repr=False)
    report: int
    folder: Path


def start_server(home: Home, *, debug: bool = False) -> PrivateServer | None:
    """Start a private server without waiting for it; None if PREFECT_API_URL names one.

    It starts before anything else is imported, so that both take their seconds at the same time. Its database is in
    the home. With ``debug`` it shows its errors.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return None
    credential = f"frostline:{secrets.token_urlsafe(32)}"
    report, written = os.pipe()
    with socket.create_server((HOST, 0)) as door:  # early requests wait until the server is ready
        server = ChildProcess(serve, pass_fds=[door.fileno(), written])
        atexit.register(server.close_input)  # after all that Prefect registers later, and sends at the end
        server.send(ServerJob(door.fileno(), written, credential, home.prefect, debug))
        os.close(written)
        return PrivateServer(f"http://{HOST}:{door.getsockname()[1]}/api", credential, report, home.prefect)


@contextlib.contextmanager
def orchestrate(private: PrivateServer | None) -> Iterator[None]:
    """Run a block's flows under the server in PREFECT_API_URL, or under a private one.

    Args:
        private: What :func:`start_server` returned.

    Raises:
        OrchestratorError: if the server does not answer.
    """
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    own: dict[Any, Any] = {}
    if private:
        own = {PREFECT_API_URL: private.url, PREFECT_API_AUTH_STRING: private.credential}
        own[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None  # nobody watches, and stopping it delays each flow by a second
    try:
        with temporary_settings(own):
            if private:
                _wait_until_healthy(private)
            yield
    except PrefectHTTPStatusError as error:
        if private is None:
            raise
        raise _explain_failure(private, error) from error
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OrchestratorError("Prefect", str(error), REMEDY) from error


def _explain_failure(private: PrivateServer, error: Exception) -> FrostlineError:
    """Explain why a private server answers with an error: mostly because its disk is full, which it does not say."""
    home = private.folder.parent
    cause = error.__context__
    while cause is not None:  # the server failed while the run reported this
        if isinstance(cause, FrostlineError):
            return cause
        cause = cause.__context__
    if shutil.disk_usage(home).free < LEAST_BYTES:
        return no_space_error(f"home {home}")
    rule = f"is a private server that answers with an error ({error})"
    return OrchestratorError(f"Prefect at {private.url}", rule, "Run again with --debug to see its log")


def _wait_until_healthy(private: PrivateServer) -> None:
    import httpx

    try:
        httpx.get(f"{private.url}/health", timeout=START_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise OrchestratorError(
            f"Prefect at {private.url}",
            f"is a private server that did not start ({_read_report(private) or type(error).__name__})",
            "Check the home's folder prefect, or name a running server in PREFECT_API_URL",
        ) from error


def _read_report(private: PrivateServer) -> str:
    """Read why the server did not start; empty if it did not say."""
    if not select.select([private.report], [], [], 1.0)[0]:
        return ""
    return " ".join(os.read(private.report, REPORT_BYTES).decode(errors="replace").split())
