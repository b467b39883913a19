"""A Prefect flow that is a plain call where nobody watches, and the message of its final state."""

from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import get_state_exception

from tasks.step_task import is_orchestrated

P = ParamSpec("P")
R = TypeVar("R")


class OptionalFlow(Flow[P, R]):
    """A Prefect flow that is a plain call where no server is named and no other flow runs it."""

    # Prefect's own has overloads, for states and for coroutines, which no flow here needs.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run the flow; see :func:`tasks.step_task.is_orchestrated`."""
        return super().__call__(*args, **kwargs) if is_orchestrated() else self.fn(*args, **kwargs)


def explain_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's
    """Write the last note of the error that ended a run into the message of its state; a hook of the flow."""
    notes = getattr(get_state_exception(state), "__notes__", [])
    if notes:
        explained: State[Any] = State(type=state.type, name=state.name, message=notes[-1])
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, explained, force=True)
