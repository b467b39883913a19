"""Locks between processes of one machine."""

import errno
import fcntl
from pathlib import Path

import pytest

from storage.locations.locks import hold_lock, try_lock


def test_a_folder_is_locked_for_the_length_of_a_block(tmp_path: Path) -> None:
    with hold_lock(tmp_path), try_lock(tmp_path) as locked:
        assert not locked
    with try_lock(tmp_path) as locked:
        assert locked


def test_a_file_system_without_locks_makes_nobody_wait_and_gives_nobody_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # as NFS for a folder

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_lock(tmp_path), try_lock(tmp_path) as locked:
        assert not locked
