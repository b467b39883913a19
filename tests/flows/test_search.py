"""The whole search, `frostline train --cut auto`, over a small network with random weights."""

import itertools
import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.command.app import run_command
from flows.embed import embed
from flows.ingest import ingest
from flows.reports.search_report import SearchReport, describe_search, search_to_json, write_settings
from flows.search import search
from flows.settings import RunSettings
from flows.train import train
from storage.errors import SettingsError, TrainError
from storage.lake.attach import read_lake
from storage.locations.home import open_home
from tests.pictures import write_folder
from tests.train.fit.test_tail import save_weights

Make = Callable[..., RunSettings]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a lake of 60 images without features; keywords are settings of the search."""
    folder = tmp_path_factory.mktemp("searched")
    save_weights(folder / "network.safetensors")
    photos = write_folder(folder / "photos")

    def make(name: str, **asked: object) -> RunSettings:
        embedded = {"backbone": "timm/test_resnet", "weights": str(folder / "network.safetensors"), "device": "cpu"}
        made = RunSettings.model_validate(
            {
                "source": photos,
                "home": folder / name,
                "embed": embedded | {"crop": 32, "resize": 32},
                "train": {"l2": [0.1], "tail": {"epochs": 1}},
                "search": {"heads": ["prototypes"], "tails": 1, "cuts": 2} | asked,
            }
        )
        ingest(made)
        return made

    return make


@pytest.fixture(scope="module")
def settings(make: Make) -> RunSettings:
    """The settings of the search that tests share."""
    return make("whole", heads=["softmax", "prototypes"])


@pytest.fixture(scope="module")
def first(settings: RunSettings) -> SearchReport:
    """The first search, in a lake without features."""
    return search(settings)


def list_recipes(settings: RunSettings) -> list[tuple[str, int]]:
    """List the cuts that have features, and how many."""
    with read_lake(open_home(settings.home)) as lake:
        return lake.rows("SELECT cut, count(*) FROM features JOIN recipes USING (recipe_id) GROUP BY recipe_id, cut")


def test_a_second_search_makes_the_same_decisions_and_computes_nothing(
    settings: RunSettings, first: SearchReport
) -> None:
    second = search(settings)
    assert first.computed == 60 * len(list_recipes(settings)) == 60 * 4
    assert second.computed == 0
    assert (first.trained.new, second.trained.new) == (True, False)
    assert first.trained.training.training_id == second.trained.training.training_id
    assert list_decisions(first) == list_decisions(second)


def list_decisions(found: SearchReport) -> list[tuple[object, ...]]:
    return [(o.contender, o.share, o.verdict, o.trial and (o.trial.loss, o.trial.correct)) for o in found.results]


def test_the_winner_has_the_lowest_validation_loss_and_its_settings_reproduce_it(
    settings: RunSettings, first: SearchReport
) -> None:
    trials = [result.trial for result in first.results if result.trial and result.trial.share == 1]
    best = min((trial for trial in trials if trial.epoch != 0), key=lambda trial: trial.loss).contender
    assert (first.settings.embed.cut, first.settings.train.heads) == (best.cut, (best.kind,))
    tried = {result.contender for result in first.results if result.trial}
    assert {kind for _, kind in tried} == {"softmax", "prototypes", "tail"}
    assert len([cut for cut, kind in tried if kind == "tail"]) == 2
    written = RunSettings.model_validate(
        settings.model_dump(exclude={"embed": {"cut", "pooling"}, "train": {"heads"}})
        | {"embed": {**settings.embed.model_dump(), **tomllib.loads("\n".join(write_settings(first)))["embed"]}}
        | {"train": {**settings.train.model_dump(), **tomllib.loads("\n".join(write_settings(first)))["train"]}}
    )
    found = train(written)
    assert (found.new, found.training.training_id) == (False, first.trained.training.training_id)
    check_told(first)


def test_training_a_tried_tail_resumes_from_its_checkpoint(
    settings: RunSettings, first: SearchReport, caplog: pytest.LogCaptureFixture
) -> None:
    cut, *_ = [result.contender.cut for result in first.results if result.contender.kind == "tail"]
    update = {"embed": settings.embed.model_copy(update={"cut": cut, "pooling": "flatten"})}
    asked = settings.model_copy(update=update | {"train": settings.train.model_copy(update={"heads": ("tail",)})})
    with caplog.at_level("INFO", logger="tasks.train.fit.tail"):
        trained = train(asked)
    assert trained.new
    assert "tail: resumed after epoch 1" in caplog.messages
    assert not [message for message in caplog.messages if "log loss" in message]


def check_told(found: SearchReport) -> None:
    told = search_to_json(found)
    assert Path(told["plot"]).read_bytes().startswith(b"\x89PNG")
    assert len(told["table"]) == len(found.results)
    rows = [row for row in told["table"] if row["accuracy"] is not None]
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    lines = [line for line in describe_search(found) if isinstance(line, str)]
    assert f"advice    {told['advice']}" in lines
    assert f'cut = "{found.settings.embed.cut}"' in lines


def test_the_byte_budget_limits_embedding(make: Make) -> None:
    settings = make("bytes", bytes=100)
    embed(settings)
    found = search(settings)
    assert list_recipes(settings) == [("avgpool", 60)]
    assert found.computed == 0
    assert found.settings.embed.cut == "avgpool"
    refused = [result for result in found.results if result.trial is None]
    assert {result.contender.cut for result in refused} > {"input"}
    assert all("search.bytes leaves 100" in result.verdict for result in refused)


def test_tails_that_do_not_fit_the_minutes_are_not_trained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make("minutes")
    monkeypatch.setattr("flows.search.estimate_tail", lambda *_: 1e6)
    found = search(settings)
    tails = [result for result in found.results if result.contender.kind == "tail"]
    assert len(tails) == 2
    assert all(result.trial is None and "search.minutes leaves" in result.verdict for result in tails)
    with read_lake(open_home(settings.home)) as lake:
        assert not lake.value("SELECT count(*) FROM recipes WHERE cut = 'input'")  # by the estimate of the other tail


def test_a_tail_slower_than_estimated_is_stopped_and_resumed_in_a_longer_search(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make("slow")
    tail = settings.train.tail.model_copy(update={"epochs": 3})
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"tail": tail})})
    slow = itertools.count(time.monotonic(), 600.0)
    with monkeypatch.context() as patched, caplog.at_level("INFO", logger="tasks.train.fit.tail"):
        patched.setattr("tasks.train.fit.tail.time", SimpleNamespace(monotonic=slow.__next__))
        tails = [result for result in search(settings).results if result.contender.kind == "tail"]
        assert len([message for message in caplog.messages if "tail: epoch" in message]) == len(tails) == 2
    assert all(result.trial is None for result in tails)
    assert all("stopped after epoch 1 of 3: the rest would take about 1,200 s" in result.verdict for result in tails)
    with caplog.at_level("INFO", logger="tasks.train.fit.tail"):
        tails = [result for result in search(settings).results if result.contender.kind == "tail"]
    assert "tail: resumed after epoch 1" in caplog.messages
    assert all(result.trial for result in tails)


@pytest.mark.parametrize(
    "asked",
    [
        {"embed": {"views": 2}},
        {"train": {"multi_label": True}},
        {"train": {"false_accept": 0.05}},
    ],
)
def test_unsupported_settings_are_refused_before_anything_is_done(tmp_path: Path, asked: dict[str, Any]) -> None:
    flags = [f"--{room}.{name}={value}" for room, part in asked.items() for name, value in part.items()]
    with pytest.raises(SystemExit) as left:
        run_command(["train", "--name", "photos", "--home", str(tmp_path / "home"), "--cut", "auto", *flags])
    assert left.value.code == 2
    assert not (tmp_path / "home").exists()


def test_an_empty_lake_and_a_tiny_budget_are_refused(make: Make, tmp_path: Path) -> None:
    settings = make("short", minutes=1e-9)
    with pytest.raises(TrainError, match="frostline run FOLDER"):
        search(settings.model_copy(update={"home": tmp_path / "other"}))
    with pytest.raises(SettingsError, match=r"--search\.minutes"):
        search(settings)
    assert list_recipes(settings) == []


def test_the_command_prints_one_json_object(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make("command")
    embedded = settings.embed
    flags = [f"--embed.{name}={getattr(embedded, name)}" for name in ("backbone", "weights", "crop", "resize")]
    flags += ["--search.cuts=1", "--search.tails=0", "--search.heads=ridge"]
    run_command(["train", str(settings.source), "--home", str(settings.home), "--cut", "auto", "--json", *flags])
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"embed": {"cut": "avgpool", "pooling": "average"}, "train": {"heads": ["ridge"]}}
    assert {row["share"] for row in told["table"]} == {0.25, 0.5, 1.0}
    assert told["features"] == {"computed": 60}
    assert "unfreezing was not tried" in told["advice"]
    assert told["metrics"]["accuracy"] >= 0
