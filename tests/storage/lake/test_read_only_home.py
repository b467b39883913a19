"""A home that may be read but not written: its lake is read, by this project and by a plain DuckDB."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.lake.attach import open_lake
from storage.locations.home import Home, open_home
from tests.rows import add_features, label
from tests.storage.lake.test_attach import READER

NOBODY = 65534
COUNT = "SELECT count(*) FROM features JOIN labels USING (image_id)"
BECOME = f"import os; os.geteuid() or os.setuid({NOBODY})\n"
OURS = """
import sys
from pathlib import Path
from storage.lake.attach import read_existing_lake
from storage.lake.extensions import connect, recycle
from storage.locations.home import open_home
recycle(connect(("ducklake", "sqlite")), ("ducklake", "sqlite"))
{become}
with read_existing_lake(open_home(Path(sys.argv[1]))) as lake:
    print(lake.value(sys.argv[3]))
"""


@pytest.fixture
def readable() -> Iterator[Home]:
    """A filled home that anybody may read, and only its owner may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = open_home(Path(folder, "home"))
        with open_lake(home) as lake:
            label(lake, range(4), "red")
            add_features(lake, range(4))
        for path in (home.root, *home.root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield home
        for path in (home.root, *home.root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def read_as_another(code: str, home: Home) -> str:
    """Run code that becomes a user who may not write the home, once its libraries are loaded; root may write all."""
    command = [sys.executable, "-c", code, str(home.root), "", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_reader_without_write_permission_reads_the_lake(readable: Home) -> None:
    assert sorted(path.name for path in readable.root.glob("catalog*")) == ["catalog.sqlite"]
    assert read_as_another(OURS.format(become=BECOME), readable) == "4"


def test_a_plain_duckdb_without_write_permission_reads_the_lake(readable: Home) -> None:
    loaded, attach, rest = READER.partition('con.execute(\n    f"ATTACH')
    assert attach
    assert '"rows": [[4]]' in read_as_another(f"{loaded}{BECOME}{attach}{rest}", readable)
