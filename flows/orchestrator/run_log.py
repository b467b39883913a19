"""Forward this project's log messages, from any thread, to the log that Prefect keeps of a flow run."""

import contextlib
import logging
from collections.abc import Iterator

from flows.settings import PROJECT_LOGGERS
from tasks.step_task import is_orchestrated


@contextlib.contextmanager
def forward_logs() -> Iterator[None]:
    """Send a block's log messages to this flow run's log, from INFO on; where there is no such run, do nothing.

    Prefect drops messages below WARNING, and threads do not know which run they work for.
    """
    if not is_orchestrated():
        yield
        return
    from prefect.context import FlowRunContext, TaskRunContext

    run, handlers = FlowRunContext.get(), logging.getLogger("prefect.extra").handlers
    levels = {name: logging.getLogger(name).level for name in PROJECT_LOGGERS}

    def name_run(record: logging.LogRecord) -> bool:
        if run and run.flow_run and not (FlowRunContext.get() or TaskRunContext.get()):
            record.flow_run_id = run.flow_run.id
        return True

    for handler in handlers:
        handler.addFilter(name_run)
    for name in PROJECT_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for handler in handlers:
            handler.removeFilter(name_run)
