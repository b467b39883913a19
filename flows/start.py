"""The process of the command line. It imports what is slow only after Ctrl-C is handled, so that Ctrl-C is one line."""

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

INTERRUPTED = 130
INTERRUPT_MESSAGE = "interrupted. What was committed is kept; run again to continue"
SECONDS_TO_STOP = 5.0
PROJECT = ("storage", "tasks", "flows")
NOT_IN_REPORTS = ("storage", "tasks.embed", "tasks.encoder", "tasks.train.fit", "tasks.register", "flows.reports")
"""Loggers whose warnings no report repeats."""


def main() -> None:
    """Run the command line as a process."""
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = "--debug" in sys.argv  # a log that cannot be sent must not hide the error's line
    signal.signal(signal.SIGINT, _interrupt)
    _show_warnings()
    try:
        with _no_garbage():
            from flows.command.app import run_command
            from storage.lake.extensions import skip_pandas

            skip_pandas()
        run_command(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Turn the garbage collector off during imports, and exempt what they created from later collections."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _show_warnings() -> None:
    """Print on stderr what would otherwise go unseen: Prefect keeps the log off the terminal, also where none runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("frostline: %(message)s"))
    if "--debug" in sys.argv:
        for name in PROJECT:
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).setLevel(logging.DEBUG)
        return
    handler.setLevel(logging.WARNING)
    for name in PROJECT:  # others' warnings are in the report
        logging.getLogger(name).addHandler(logging.NullHandler())
    for name in NOT_IN_REPORTS:
        logging.getLogger(name).addHandler(handler)


def _interrupt(*_: object) -> None:
    """Stop cleanly, but within seconds: Prefect retries a server that does not answer for minutes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"frostline: {INTERRUPT_MESSAGE}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's message
    timer = threading.Timer(SECONDS_TO_STOP, _exit_now)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _exit_now() -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
