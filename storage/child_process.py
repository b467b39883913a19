"""Start a function of ours in a process of its own, which ends when the process that started it does."""

import pickle
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO

BOOTSTRAP = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); pickle.load(sys.stdin.buffer)()"


class ChildProcess:
    """A process that runs one function and ends when that returns; its standard input is a stream of pickles.

    The system closes the input when the parent ends, however it ends: the function must return then. An interrupt from
    the keyboard reaches the parent alone. The child imports the function's module and nothing else of the parent's.
    """

    def __init__(self, function: Callable[[], None], *, pass_fds: Sequence[int] = (), answers: bool = False) -> None:
        """Start the process.

        Args:
            function: A module's function; it reads what :meth:`send` sends by :func:`receive`.
            pass_fds: File descriptors that the child inherits.
            answers: Whether the child's standard output is read, by :meth:`take`; discarded by default.
        """
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a constant of ours
            [sys.executable, "-P", "-c", BOOTSTRAP],  # -P: no module of the working directory hides what it imports
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.send(sys.path)
        self.send(function)

    def send(self, value: object) -> None:
        """Send a value.

        Raises:
            OSError: if the child has ended.
        """
        stdin = _require(self._process.stdin)
        pickle.dump(value, stdin)
        stdin.flush()

    def take(self) -> object:
        """Wait for the child's next value.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: if the child has ended or is ending.
        """
        return pickle.load(_require(self._process.stdout))  # noqa: S301 - from our own child

    def has_answer(self, timeout: float | None) -> bool:
        """Wait until :meth:`take` returns at once, or for so many seconds; None waits without a limit."""
        return bool(select.select([_require(self._process.stdout)], [], [], timeout)[0])

    def end(self) -> int:
        """Make the child end and wait until it has; return its exit status."""
        self._process.communicate()
        return self._process.returncode


def receive() -> object:
    """Receive the next value in a child process.

    Raises:
        EOFError: if the parent has ended or closed the stream.
    """
    return pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one


def _require(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise EOFError("the process has no such pipe")
    return stream
