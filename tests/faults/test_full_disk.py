"""A full disk, a limit or a deleted home ends a run with one error that says what to do, and the next run continues."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.command.app import run_command
from storage.errors import FrostlineError
from tasks.embed.step import commit_features
from tests.counting import Tally

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The home on a disk of its own with little room."""
    size = ["-t", "tmpfs", "-o", "size=3m", "tmpfs"]
    content = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    if os.geteuid() or subprocess.run(["mount", *size, str(home)], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk")
    try:
        for file, data in content.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        yield home
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


@contextlib.contextmanager
def limit_files(size: int) -> Iterator[None]:
    """Let this process write no file beyond a size: what the system then reports is like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(folder: Path, leave: int) -> Path:
    """Write a file that leaves so many bytes on a disk."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return ballast


def test_a_full_disk_ends_a_run_with_one_error_and_the_next_run_continues(
    run: Run, tally: Tally, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.operations.space.Room.check", lambda _: None)  # somebody else fills it meanwhile
    ballast = fill(small_disk, 200_000)
    with pytest.raises(FrostlineError) as raised:
        run(embed={"shard": 10})
    assert "no space left" in str(raised.value).lower() or "full" in str(raised.value).lower()
    assert "\n" not in str(raised.value)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run(embed={"shard": 10})["model"]["version"] == 1
    assert tally.images >= 60


@pytest.mark.skipif(not os.geteuid(), reason="root mounts a small disk instead")
def test_a_limit_on_files_ends_a_run_with_one_error(run: Run, home: Path) -> None:
    with limit_files(100_000), pytest.raises(FrostlineError) as raised:
        run()
    assert "file" in str(raised.value).lower()
    assert run()["model"]["version"] == 1
    assert (home / "catalog.sqlite").exists()


def test_a_home_that_is_deleted_during_a_run_is_one_error(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_and_delete(*arguments: Any) -> int:  # noqa: ANN401 - any arguments
        added = commit_features(*arguments)
        shutil.rmtree(home)
        return added

    monkeypatch.setattr("flows.embed.commit_features", commit_and_delete)
    with pytest.raises(FrostlineError):
        run(embed={"shard": 10})


def test_what_the_system_refuses_is_one_line_with_exit_code_2(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(home / "catalog.sqlite"))

    monkeypatch.setattr("storage.lake.attach.read_existing_lake", refuse)
    with pytest.raises(SystemExit) as ended:
        run_command(["status", "--home", str(home)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "catalog.sqlite: the system reports: permission denied. Change its permissions" in line
