"""What the operating system refuses becomes an error of the tree, with its remedy."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import (
    FrostlineError,
    LakeError,
    NoSpaceError,
    OperatingSystemError,
    explain_os_errors,
    find_os_error,
)


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["home /h", "no space left", "Free some space"]),
        (OSError(errno.EDQUOT, "Quota"), ["quota"]),
        (OSError(errno.EFBIG, "File too large"), ["ulimit -f"]),
        (PermissionError(errno.EACCES, "Permission denied", "/h/catalog.sqlite"), ["/h/catalog.sqlite", "permissions"]),
        (OSError(errno.EROFS, "Read-only file system", "/h"), ["Mount its disk for writing"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "/h/heads"), ["/h/heads", "moves or deletes"]),
        (OSError(errno.EMFILE, "Too many open files"), ["ulimit -n"]),
        (OSError(errno.ENOTEMPTY, "Directory not empty", "/h"), ["directory not empty", "Check that file"]),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), ["no space left"]),
        (raised_from(RuntimeError("cannot save"), OSError(errno.ENOSPC, "No space left")), ["no space left"]),
    ],
)
def test_an_error_of_the_system_names_what_it_refused_and_the_remedy(error: Exception, words: list[str]) -> None:
    with pytest.raises(OperatingSystemError) as raised, explain_os_errors("home /h"):
        raise error
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_an_error_of_its_own() -> None:
    assert isinstance(find_os_error(OSError(errno.ENOSPC, "full"), "disk"), NoSpaceError)
    assert not isinstance(find_os_error(OSError(errno.EACCES, "no"), "disk"), NoSpaceError)


@pytest.mark.parametrize("make", [lambda: ValueError("wrong"), lambda: OSError("of a library's own"), RuntimeError])
def test_other_errors_pass_through(make: Callable[[], Exception]) -> None:
    error = make()
    with pytest.raises(type(error)) as raised, explain_os_errors("home"):
        raise error
    assert raised.value is error


def fail_while_handling() -> None:
    try:
        Path("/nowhere/at/all").read_bytes()
    except FileNotFoundError:
        raise KeyError("missing")  # noqa: B904 - as a bug would


def test_an_error_while_another_was_handled_is_not_blamed_on_the_system() -> None:
    with pytest.raises(KeyError), explain_os_errors("home"):
        fail_while_handling()


def test_an_error_that_is_explained_already_stays_as_it_is() -> None:
    error = LakeError("lake", "cannot be written: No space left on device", "Make room")
    with pytest.raises(FrostlineError) as raised, explain_os_errors("home"):
        raise error
    assert raised.value is error
