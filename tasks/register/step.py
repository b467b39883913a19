"""The register step's tasks."""

from datetime import UTC, datetime

from storage.errors import RegistryUnreachableError
from storage.lake.attach import open_lake
from storage.locations.home import Home
from storage.names import ModelName
from storage.tables.models import Version
from tasks.encoder.pixels.budget import Budget
from tasks.register.champion import ChampionGap, predict_rest
from tasks.register.register import RegisteredVersion, decide_promotion, register_head
from tasks.register.registry.package import WritePage
from tasks.register.settings import RegisterSettings
from tasks.step_task import step_task


@step_task("register {name}", retry_on=RegistryUnreachableError)
def register_model(
    home: Home,
    name: ModelName,
    training_id: str,
    write_page: WritePage,
    batch: int | None,
    settings: RegisterSettings,
    budget: Budget,
) -> str:
    """Log and register a training's model, unless it is registered; returns the version."""
    return register_head(home, name, training_id, write_page, batch, settings, budget)


@step_task("promote {name}", retry_on=RegistryUnreachableError)
def promote_model(home: Home, name: ModelName, training_id: str, settings: RegisterSettings) -> RegisteredVersion:
    """Make a registered version champion if it is better than the champion, and record it."""
    return decide_promotion(home, name, training_id, settings, datetime.now(UTC))


@step_task("predict with {version.name}")
def predict_images(home: Home, version: Version) -> tuple[int, ChampionGap | None]:
    """Let the champion predict the images that by now have the features it needs; returns their number, and the rest.

    MLflow is not needed for that.
    """
    with open_lake(home) as lake:
        return predict_rest(lake, home, version, datetime.now(UTC))
