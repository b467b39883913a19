"""The entry of the command ``frostline``: look whether Python finds Frostline's own packages, then start it."""

import sys

from frostline_start.own_packages import HiddenPackageError, check_packages

USER_ERROR = 2
"""Exit code: what the user can fix."""


def main() -> None:
    """Run the command line as a process; a file that hides a package of Frostline's ends it with one line."""
    try:
        check_packages()
    except HiddenPackageError as error:
        print(f"frostline: {error}", file=sys.stderr)  # noqa: T201 - the command line's error message
        sys.exit(USER_ERROR)
    from flows.start import main as start

    start()
