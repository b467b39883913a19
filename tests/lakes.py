"""Places for a lake: SQLite and a folder, Postgres and a folder, Postgres and an S3 server, all on loopback."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import duckdb
import pytest
from pyarrow import fs

from storage.lake.extensions import Wheels, connect
from storage.locations.home import Home, open_home
from storage.locations.parquet_files import open_data
from tests.servers import environment, free_port, outlived, process

PLACES = ("sqlite+folder", "postgres+folder", "postgres+s3")
PASSWORD, SECRET = "correct-horse-battery", "staple/Secret+Key"  # must be found nowhere
DEBIAN = Path("/usr/lib/postgresql")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let DuckDB work on one thread: on lakes as small as a test's, waking several is half of what a query takes."""

    def connect_alone(wheels: Wheels) -> duckdb.DuckDBPyConnection:
        con = connect(wheels)
        con.execute("SET threads = 1")
        return con

    with patch("storage.lake.attach.connect", connect_alone):
        yield


@dataclass(frozen=True)
class Postgres:
    """A server in which each test makes a database of its own."""

    port: int
    programs: Path
    running: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop the server at once, whoever is connected."""
        self.running.send_signal(signal.SIGINT)
        self.running.wait(30)

    def make_database(self) -> str:
        """Make an empty database; gives its url for ``lake.catalog``."""
        name = f"lake_{uuid.uuid4().hex}"
        self.psql("postgres", f"CREATE DATABASE {name}")
        return f"postgres:dbname={name} user=lake host=127.0.0.1 port={self.port}"

    def psql(self, database: str, sql: str) -> str:
        """Run SQL; gives what it prints."""
        flags = ["--no-psqlrc", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]
        return self.call("psql", *flags, "--command", sql, database)

    def dump(self, database: str) -> str:
        """Write down all that a database holds."""
        return self.call("pg_dump", database)

    def call(self, program: str, *arguments: str) -> str:
        """Run one of Postgres's programs; gives what it prints."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "lake", "PGPASSWORD": PASSWORD}
        command = [str(self.programs / program), *arguments]
        return subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, check=True).stdout


def database_of(home: Home) -> str:
    """Name the database of a catalog."""
    assert home.catalog_url
    return home.catalog_url.split()[0].rpartition("=")[2]


def find_programs() -> Path | None:
    """Find the newest Postgres that Debian installed, or that the path leads to."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    newest = found[-1] if found else on_path and Path(on_path).resolve()
    return newest.parent if newest else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server, run by an unprivileged user."""
    with start_postgres() as started:
        yield started


@contextlib.contextmanager
def start_postgres() -> Iterator[Postgres]:
    """Start a Postgres server for the length of a block, or until it is stopped."""
    programs = find_programs()
    if not programs:
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    user = find_user()
    with tempfile.TemporaryDirectory(prefix="frostline-postgres-") as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            os.chown(path, user or -1, -1)
        initialise(programs, folder, user)
        with serve(programs, folder, port, user) as running:
            yield Postgres(port, programs, running)


def initialise(programs: Path, folder: Path, user: int | None) -> None:
    flags = ["--username=lake", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    files = [f"--pgdata={folder / 'data'}", f"--pwfile={folder / 'password'}"]
    done = subprocess.run(
        [str(programs / "initdb"), *flags, *files],
        user=user,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def serve(programs: Path, folder: Path, port: int, user: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    forgetful = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, **forgetful}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    with (folder / "log").open("wb") as log:
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *flags]
        running = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        with outlived(running.pid, "INT"):
            wait_for_postgres(programs, port, folder / "log")
            yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def find_user() -> int | None:
    """Find whom Postgres runs as: it refuses root; None where this process is somebody else already."""
    return pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None


def wait_for_postgres(programs: Path, port: int, log: Path) -> None:
    for _ in range(300):
        ready = [str(programs / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server with the bucket "lakes": the environment of its clients."""
    with start_s3(tmp_path_factory.mktemp("s3")) as (env, _):
        yield env


@contextlib.contextmanager
def start_s3(folder: Path) -> Iterator[tuple[dict[str, str], "subprocess.Popen[bytes]"]]:
    """Start an S3 server for the length of a block; gives its clients' environment, and the process."""
    if not (find_spec("moto") and find_spec("flask")):
        pytest.skip("moto is not installed: pip install 'moto[server]'")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ENDPOINT_URL": uri,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "lake",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with process(folder / "log", environment(), "moto.server", "-H", "127.0.0.1", "-p", str(port)) as running:
        make_bucket(f"{uri}/lakes", folder / "log")
        yield env, running


def make_bucket(url: str, log: Path) -> None:
    for _ in range(300):
        asked = urllib.request.Request(url, method="PUT")  # noqa: S310 - loopback
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=30):  # noqa: S310 - loopback
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with no lake, whose catalog and data lie in each kind of place."""
    catalog, data = request.param.split("+")
    catalog_url = data_url = None
    if catalog == "postgres":
        catalog_url = request.getfixturevalue("postgres").make_database()
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    if data == "s3":
        data_url = f"s3://lakes/{uuid.uuid4().hex}"
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
    return open_home(tmp_path / "home", catalog_url, data_url)


def list_files(home: Home) -> dict[str, int]:
    """List the lake's Parquet files and what else lies among them, with their sizes."""
    system, folder = open_data(home)
    found = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return {info.path: info.size for info in found if info.is_file}
