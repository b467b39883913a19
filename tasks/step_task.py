"""The decorator that makes a function a Prefect task. Only the step.py of a step uses it."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

P = ParamSpec("P")
R = TypeVar("R")

RETRY_DELAYS = [1.0, 5.0]
"""Seconds before each retry."""


def step_task(run_name: str, *, retry_on: type[Exception] | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task that Prefect neither caches nor persists: the lake remembers what was done.

    Args:
        run_name: The name of the task's runs; ``{argument}`` stands for the value of an argument.
        retry_on: A passing error after which the task is tried again; by default it is not.
    """

    async def has_passing_error(_: Task[..., object], __: TaskRun, state: State[object]) -> bool:
        return retry_on is not None and isinstance(await state.aresult(raise_on_failure=False), retry_on)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        once = task(task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(function)
        if retry_on is None:
            return once
        return once.with_options(
            retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=has_passing_error
        )

    return decorate
