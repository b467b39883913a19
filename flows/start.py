"""The command's process. What takes long is imported here, so that Ctrl-C is one line from the first moment on."""

import os
import signal
import sys
import threading
import warnings

INTERRUPTED = 130
INTERRUPT = "interrupted. What was committed stays; run again to go on"
PATIENCE = 5.0


def main() -> None:
    """Run the command line as a process."""
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from flows.command.app import obey

        obey(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _interrupt(*_: object) -> None:
    """Stop in order, but soon: Ctrl-C also ends a private server, which Prefect then tries to reach for minutes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"frostline: {INTERRUPT}", file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal
    timer = threading.Timer(PATIENCE, _give_up)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
