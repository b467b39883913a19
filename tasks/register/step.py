"""The register step's tasks."""

from datetime import UTC, datetime

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from storage.errors import RegistryUnreachableError
from storage.locations.home import Home
from storage.names import ModelName
from tasks.register.register import Registered, judge_version, register_head
from tasks.register.registry.package import WritePage
from tasks.register.settings import RegisterSettings


async def _registry_may_recover(_: Task[..., object], __: TaskRun, state: State[object]) -> bool:
    """Try again where MLflow did not answer."""
    return isinstance(await state.aresult(raise_on_failure=False), RegistryUnreachableError)


@task(
    task_run_name="register {name}",
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_registry_may_recover,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def register_model(
    home: Home, name: ModelName, training_id: str, write_page: WritePage, batch: int | None, settings: RegisterSettings
) -> str:
    """Log and register a training's model, unless it is registered; gives the version."""
    return register_head(home, name, training_id, write_page, batch, settings)


@task(
    task_run_name="judge {name}",
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_registry_may_recover,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def judge_model(home: Home, name: ModelName, training_id: str, settings: RegisterSettings) -> Registered:
    """Decide whether a version becomes champion, and record it."""
    return judge_version(home, name, training_id, settings, datetime.now(UTC))
