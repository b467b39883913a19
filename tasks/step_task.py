"""The decorator that makes a function a Prefect task, if Prefect runs it. Only the step.py of a step uses it."""

import functools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tasks.named_server import is_prefect_needed

if TYPE_CHECKING:
    from prefect import Task

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

RETRY_DELAYS = [1.0, 5.0]
"""Seconds before each retry."""


def is_orchestrated() -> bool:
    """Return whether Prefect runs flows and tasks: if a server is named, or from within a flow's run.

    Otherwise flows and tasks are plain calls: nobody could watch the run, and starting a server for it would take
    longer than most runs. Where none can be named, Prefect is not even imported.
    """
    if not is_prefect_needed():
        return False
    from prefect.context import FlowRunContext
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value()) or FlowRunContext.get() is not None


def step_task(run_name: str, *, retry_on: type[Exception] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a task that Prefect neither caches nor persists: the lake remembers what was done.

    Where Prefect does not run it, the function is called directly and retried in the same way.

    Args:
        run_name: The name of the task's runs; ``{argument}`` stands for the value of an argument.
        retry_on: A passing error after which the task is tried again; by default it is not.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        make = functools.cache(lambda: _make_task(function, run_name, retry_on))

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if is_orchestrated():
                return make()(*args, **kwargs)
            return _call(lambda: function(*args, **kwargs), retry_on)

        return run

    return decorate


def _call(function: Callable[[], R], retry_on: type[Exception] | None) -> R:
    if retry_on is None:
        return function()
    for delay in RETRY_DELAYS:
        try:
            return function()
        except retry_on as error:
            logger.info("trying again in %g s: %s", delay, error)
            time.sleep(delay)
    return function()


def _make_task(function: Callable[P, R], run_name: str, retry_on: type[Exception] | None) -> "Task[P, R]":
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    async def has_passing_error(_: object, __: object, state: Any) -> bool:  # noqa: ANN401 - Prefect's State
        return retry_on is not None and isinstance(await state.aresult(raise_on_failure=False), retry_on)

    once = task(task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(function)
    if retry_on is None:
        return once
    return once.with_options(
        retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=has_passing_error
    )
