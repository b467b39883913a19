"""Errors of the Prefect server that PREFECT_API_URL names, in one line."""

import contextlib
from collections.abc import Iterator

from storage.errors import OrchestratorError

REMEDY = "Start it with `prefect server start`, or unset PREFECT_API_URL to run without Prefect"


@contextlib.contextmanager
def explain_server_errors() -> Iterator[None]:
    """Explain why a named server does not run a block's flows.

    Raises:
        OrchestratorError: if the server does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OrchestratorError("Prefect", str(error), REMEDY) from error
