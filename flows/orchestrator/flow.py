"""Flows that run with or without Prefect's engine."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow

from flows.orchestrator.final_state import explain_state
from tasks.step_task import is_orchestrated

P = ParamSpec("P")
R = TypeVar("R")


class OptionalFlow(Flow[P, R]):
    """A Prefect flow that is a plain call where no server is named and no other flow runs it."""

    # Prefect's own has overloads, for states and for coroutines, which no flow here needs.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run the flow; see :func:`tasks.step_task.is_orchestrated`."""
        return super().__call__(*args, **kwargs) if is_orchestrated() else self.fn(*args, **kwargs)


def flow(run_name: str, *, explain_errors: bool = False) -> Callable[[Callable[P, R]], OptionalFlow[P, R]]:
    """Make a function a flow that persists nothing.

    Args:
        run_name: The name of its runs; ``{argument}`` stands for the value of an argument.
        explain_errors: Whether the last note of the error that ends a run becomes the message of its state.
    """
    hooks: list[Any] = [explain_state] if explain_errors else []

    def decorate(function: Callable[P, R]) -> OptionalFlow[P, R]:
        return OptionalFlow(
            function, flow_run_name=run_name, persist_result=False, on_failure=hooks or None, on_crashed=hooks or None
        )

    return decorate
