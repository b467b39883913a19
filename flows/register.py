"""The register flow: register a trained head as a model that serves raw images."""

from pathlib import Path

from flows.orchestrator.flow import flow
from flows.settings import RunSettings
from flows.train import find_recipe_id
from storage.errors import RegistryError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.tables.trainings import find_newest
from tasks.register.register import RegisteredVersion
from tasks.register.step import promote_model, register_model


def write_page(home: Home, training_id: str, folder: Path) -> None:
    """Write a training's page and plots. Imports Matplotlib here: a run that registers nothing does not need it."""
    from tasks.train.report import page

    page.write_page(home, training_id, folder)


@flow("register {settings.source}")
def register(settings: RunSettings, training_id: str | None = None) -> RegisteredVersion:
    """Register a training's model, by default the newest, and let the gate decide whether it becomes champion."""
    training_id = training_id or _find_newest(settings)
    home, name, embed = settings.resolved_home, settings.model_name, settings.embed
    register_model(home, name, training_id, write_page, embed.batch, settings.registry, embed.budget)
    return promote_model(home, name, training_id, settings.registry)


def _find_newest(settings: RunSettings) -> str:
    with read_lake(settings.resolved_home) as lake:
        training = find_newest(lake, settings.label_set, find_recipe_id(settings))
    if training is None:
        raise RegistryError(settings.label_set, "has no trained head under these settings", "Run the train flow first")
    return training.training_id
