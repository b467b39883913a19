"""The process of the command line. It imports what is slow only after Ctrl-C is handled, so that Ctrl-C is one line."""

import logging
import os
import signal
import sys
import threading
import warnings

INTERRUPTED = 130
INTERRUPT_MESSAGE = "interrupted. What was committed is kept; run again to continue"
SECONDS_TO_STOP = 5.0


def main() -> None:
    """Run the command line as a process."""
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = "--debug" in sys.argv  # a log that cannot be sent must not hide the error's line
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from flows.command.app import run_command

        run_command(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _interrupt(*_: object) -> None:
    """Stop cleanly, but within seconds: Prefect would retry a server that Ctrl-C ended as well for minutes."""
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
