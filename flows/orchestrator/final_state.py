"""The message of a flow run's final state: what happened and what was done until then, in one line."""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import get_state_exception


def explain_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's
    """Write the last note of the error that ended a run into the message of its state; a hook of the flow."""
    notes = getattr(get_state_exception(state), "__notes__", [])
    if notes:
        explained: State[Any] = State(type=state.type, name=state.name, message=notes[-1])
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, explained, force=True)
