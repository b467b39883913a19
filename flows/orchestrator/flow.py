"""Flows that run with or without Prefect's engine, and without Prefect where none of it is loaded."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tasks.step_task import is_orchestrated

if TYPE_CHECKING:
    from prefect import Flow

P = ParamSpec("P")
R = TypeVar("R")


def flow(run_name: str, *, explain_errors: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a flow that persists nothing; a plain call where no server is named and no other flow runs it.

    See :func:`tasks.step_task.is_orchestrated`. Deployments name flows, so these are Prefect's own objects wherever
    Prefect was imported before.

    Args:
        run_name: The name of its runs; ``{argument}`` stands for the value of an argument.
        explain_errors: Whether the last note of the error that ends a run becomes the message of its state.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        make = functools.cache(lambda: _make_flow(function, run_name, explain_errors=explain_errors))
        if "prefect" in sys.modules:
            return make()

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return make()(*args, **kwargs) if is_orchestrated() else function(*args, **kwargs)

        return run

    return decorate


def _make_flow(function: Callable[P, R], run_name: str, *, explain_errors: bool) -> "Flow[P, R]":
    from flows.orchestrator.optional_flow import OptionalFlow, explain_state

    hooks: list[Any] | None = [explain_state] if explain_errors else None
    return OptionalFlow(function, flow_run_name=run_name, persist_result=False, on_failure=hooks, on_crashed=hooks)
