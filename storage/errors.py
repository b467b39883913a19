"""The errors of all rooms: every message names the value, the rule that it broke, and the remedy."""

import contextlib
import errno
import os
from collections.abc import Iterator


class FrostlineError(Exception):
    """An error that the user can fix; the command line prints it as one line and exits with 2."""

    def __init__(self, value: str, rule: str, remedy: str) -> None:
        super().__init__(value, rule, remedy)
        self.value, self.rule, self.remedy = value, rule, remedy

    def __str__(self) -> str:
        """Return the message as one line."""
        end = "" if self.remedy.endswith("?") else "."
        return " ".join(f"{self.value}: {self.rule}. {self.remedy}{end}".split())


class SettingsError(FrostlineError):
    """An invalid setting."""


class OutputError(FrostlineError):
    """Output that cannot be written."""


class NotCanonicalError(FrostlineError):
    """A value without a canonical form, which cannot be part of an identity."""


class SourceError(FrostlineError):
    """A source that does not exist, is empty, or is a different one under the same name."""


class ImageError(FrostlineError):
    """An image whose file cannot be read or holds other bytes now."""


class LakeError(FrostlineError):
    """A lake that cannot be opened, read or written."""


class LakeTooNewError(LakeError):
    """A lake written by a later release."""


class LakeUnreachableError(LakeError):
    """A catalog or an object store that does not answer."""


class LakeBusyError(LakeError):
    """A commit that lost too many races."""


class QueryError(LakeError):
    """A query that is invalid, or about something that does not exist."""


class ExportError(FrostlineError):
    """An export that cannot be written."""


class EraseError(FrostlineError):
    """An erasure that is ambiguous, or not confirmed."""


class EmbedError(FrostlineError):
    """Images that cannot be embedded as requested."""


class BackboneError(EmbedError):
    """An architecture, or a cut of it, that does not exist."""


class WeightsError(EmbedError):
    """Weights that are missing, cannot be downloaded, or do not fit their architecture."""


class NumbersChangedError(EmbedError):
    """A library, a driver or a device computes vectors that differ from those of the recipe."""


class FailureBudgetError(EmbedError):
    """More failures in a run than the settings allow."""


class TrainError(FrostlineError):
    """Labels with which no head can be trained or measured."""


class ReviewError(FrostlineError):
    """A review that cannot be written, or whose decisions cannot be applied."""


class RegistryError(FrostlineError):
    """A problem with the model registry, or a registered model whose predictions are wrong."""


class RegistryUnreachableError(RegistryError):
    """A model registry that does not answer."""


class OrchestratorError(FrostlineError):
    """A Prefect server that does not answer."""


class OperatingSystemError(FrostlineError):
    """What the operating system refuses: no space, no permission, a file or folder that is gone."""


class NoSpaceError(OperatingSystemError):
    """A disk, a quota or a limit that leaves no room to write."""


_NO_SPACE = {
    errno.ENOSPC: "Free some space, or choose another disk with --home, then run again: what was committed is kept",
    errno.EDQUOT: "Free some of your quota, then run again: what was committed is kept",
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`), then run again: what was committed is kept",
}
_REMEDIES = {
    errno.EACCES: "Change its permissions, or run as its owner",
    errno.EPERM: "Change its permissions, or run as its owner",
    errno.EROFS: "Mount its disk for writing, or choose another with --home",
    errno.ENOENT: "Check that nobody moves or deletes it while the command runs, then run again",
    errno.ESTALE: "Check that its disk is mounted, then run again",
    errno.EIO: "Check its disk, then run again",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "Close other programs: the system has no open files left",
    errno.ENOMEM: "Close other programs: the system has no memory left",
}
_TEXTS = {
    "no space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
    "too many open files": errno.EMFILE,
    "read-only file system": errno.EROFS,
    "disk i/o error": errno.EIO,
}
"""How libraries that raise errors of their own report them, in lower case."""


def find_os_error(error: BaseException, what: str) -> OperatingSystemError | None:
    """Find what the operating system refused behind an error, if that was the reason.

    Args:
        error: Any error; the errors that it was raised from count as well.
        what: What is written or read, if the system names no file, such as "home /data/home".
    """
    cause: BaseException | None = error
    while cause is not None:
        number = _find_number(cause)
        if number:
            return _explain(number, getattr(cause, "filename", None) or what)
        cause = cause.__cause__
    return None


def is_interrupt(error: BaseException) -> bool:
    """Return whether a person interrupted the process; a query of DuckDB reports that as an error of its own."""
    return isinstance(error, KeyboardInterrupt) or str(error) == "Query interrupted"


def _find_number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno  # None if a library raised it for reasons of its own
    text = str(error).lower()
    return next((number for words, number in _TEXTS.items() if words in text), None)


def _explain(number: int, what: object) -> OperatingSystemError:
    rule = f"the system reports: {os.strerror(number).lower()}"
    if number in _NO_SPACE:
        return NoSpaceError(str(what), rule, _NO_SPACE[number])
    return OperatingSystemError(str(what), rule, _REMEDIES.get(number, "Check that file and its disk, then run again"))


@contextlib.contextmanager
def explain_os_errors(what: str) -> Iterator[None]:
    """Raise what the operating system refuses within a block as an error of this tree; others pass through.

    Raises:
        OperatingSystemError: naming the file, or ``what`` if the system names none.
    """
    try:
        yield
    except FrostlineError:
        raise
    except Exception as error:
        explained = find_os_error(error, what)
        if explained is None:
            raise
        raise explained from error
