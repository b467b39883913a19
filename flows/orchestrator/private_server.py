"""The process of a private Prefect server.

Everybody on the machine can reach its port, and so can any web page in a browser. So it answers only requests that
carry the run's credential, under its own address, and to no other origin. Its database is in the home: a run neither
reads nor changes what the user's own server stores.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from storage.child_process import receive
from storage.locations.atomic import write_folder

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
STOP_SECONDS = 5
DATABASE = "prefect.db"
OWN_SETTINGS = ("PREFECT_SERVER_", "PREFECT_API_", "PREFECT_UI_")
"""Prefixes of settings that are about the user's own server; a private one takes none of them but telemetry."""
TELEMETRY = "PREFECT_SERVER_ANALYTICS_ENABLED"


@dataclass(frozen=True)
class ServerJob:
    """What the process needs: two open file descriptors, the credential, and the folder of the databases.

    ``door`` is the socket on which it listens; into ``report`` it writes why it did not start. With ``debug`` it shows
    its errors, which a run otherwise reports in one line.
    """

    door: int
    report: int
    credential: str = field(repr=False)
    folder: Path
    debug: bool


def serve() -> None:
    """Run the private server until standard input closes, which happens at the latest when the parent ends."""
    job = cast("ServerJob", receive())
    door = socket.socket(fileno=job.door)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with os.fdopen(job.report, "w", encoding="utf-8") as report:
        try:
            app = _prepare(job, door.getsockname()[1])
        except Exception as error:  # noqa: BLE001 - the parent raises it as its own
            report.write(f"{type(error).__name__}: {error}")
            sys.exit(1)
    import uvicorn

    config = uvicorn.Config(app, log_level="error" if job.debug else "critical", timeout_graceful_shutdown=STOP_SECONDS)
    uvicorn.Server(config).run(sockets=[door])


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _prepare(job: ServerJob, port: int) -> "FastAPI":
    """Make the database if it is not there yet, and build the server's application."""
    os.umask(0o077)  # the database holds the settings and the logs of runs
    job.folder.mkdir(parents=True, exist_ok=True)
    _configure(job, port)
    from prefect import __version__

    make_database(job.folder / __version__)
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = create_app(ephemeral=True, final=True)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST])  # a page can rename its own host to this address
    return app


def _configure(job: ServerJob, port: int) -> None:
    """Set what Prefect reads on import. The credential is in no command line and in no environment that `ps` shows."""
    for name in [name for name in os.environ if name.startswith(OWN_SETTINGS) and name != TELEMETRY]:
        del os.environ[name]
    os.environ |= {
        "PREFECT_HOME": str(job.folder),
        "PREFECT_SERVER_API_AUTH_STRING": job.credential,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{DATABASE}",  # in the working directory
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # runs use no blocks
    }


def make_database(folder: Path) -> None:
    """Make a folder with an empty database if it does not exist, and change into it.

    The database is made elsewhere and moved: whoever sees it sees it whole, and of two processes one is too late. A
    path in a database's URL would need quoting, which its libraries do not agree on; so the URL has none.
    """
    if not folder.exists():
        with contextlib.suppress(FileExistsError), write_folder(folder) as unfinished:
            os.chdir(unfinished)
            asyncio.run(_migrate())
            with contextlib.closing(sqlite3.connect(DATABASE)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.chdir(folder)


async def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    interface = provide_database_interface()
    await interface.create_db()
    await (await interface.engine()).dispose()
