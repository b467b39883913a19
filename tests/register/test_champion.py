"""The lake follows the champion: who it is, since when, why, and what it predicts."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.operations.plan import describe_plan, make_plan
from flows.settings import RunSettings
from storage.errors import RegistryError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.tables.trainings import find_training
from tasks.encoder.layers import open_layers
from tasks.heads.load import read_head, read_head_inputs
from tests.counting import Tally
from tests.pictures import write_image

Run = Callable[..., dict[str, Any]]
REJECTED = {"l2": (100.0,)}
OTHER_RECIPE = {"embed": {"interpolation": "nearest"}}


def read(home: Path, sql: str) -> list[Any]:
    with read_lake(Home(home)) as lake:
        return lake.rows(sql)


def test_people_see_the_predictions_of_the_champion_and_it_predicts_images_that_came_after_it(
    first_report: dict[str, Any], run: Run, home: Path, photos: Path
) -> None:
    assert (first_report["model"]["version"], first_report["model"]["alias"]) == (1, "champion")
    write_image(photos / "red" / "late.png", "red", 5000)
    second = run(train=REJECTED)
    assert (second["model"]["version"], second["model"]["alias"]) == (2, None)
    assert read(home, "SELECT version, count(*) FROM latest_predictions GROUP BY version") == [(1, 61)]
    assert read(home, "SELECT name, version, until IS NULL FROM champions") == [("photos", 1, True)]
    (compared,) = read(home, "SELECT list(image_id ORDER BY image_id) FROM gate_rows WHERE version = 1")
    (tested,) = read(
        home,
        f"""SELECT list(image_id ORDER BY image_id) FROM training_sets
            WHERE split = 'test' AND training_id = '{first_report["training"]}'""",
    )
    assert compared == tested
    assert read(home, "SELECT images FROM champions") == [(len(tested[0]),)]

    client = MlflowClient(*2 * (f"sqlite:///{home}/mlflow/mlflow.db",))
    client.set_registered_model_alias("photos", "champion", "2")
    assert not run(train=REJECTED)["model"]["new"]
    assert read(home, "SELECT version, count(*) FROM latest_predictions GROUP BY version") == [(2, 61)]
    assert read(home, "SELECT version, until IS NULL, reason FROM champions ORDER BY since")[1:] == [
        (2, True, "the alias was set in MLflow")
    ]
    assert read(home, "SELECT c.version FROM champions c JOIN champions d ON c.until = d.since") == [(1,)]
    assert read(home, "SELECT alias FROM models ORDER BY version") == [("champion",), (None,)]  # when registered


def test_two_registries_share_no_versions(first_report: dict[str, Any], run: Run, home: Path, tmp_path: Path) -> None:
    elsewhere = {"tracking_uri": f"sqlite:///{tmp_path}/other.db"}
    with pytest.raises(RegistryError, match="is not the registry of the versions in this lake"):
        run(registry=elsewhere)
    assert read(home, "SELECT count(*) FROM models") == [(1,)]
    taken_over = run(registry={**elsewhere, "take_over": True})
    assert taken_over["model"]["new"]
    assert taken_over["model"]["version"] == first_report["model"]["version"] == 1
    assert read(home, "SELECT version, count(DISTINCT registry), count(DISTINCT run_id) FROM models GROUP BY ALL") == [
        (1, 2, 2)
    ]
    assert read(home, "SELECT count(*) FROM latest_predictions") == [(60,)]
    assert not run(registry=elsewhere)["model"]["new"]  # known by now


def count_predicted(home: Path) -> list[Any]:
    """Count the images and the rows of the champion's predictions, by version."""
    return read(home, "SELECT version, count(DISTINCT image_id), count(*) FROM latest_predictions GROUP BY version")


def test_a_champion_of_other_settings_than_the_runs_predicts_every_image_and_a_second_run_computes_nothing(
    first_report: dict[str, Any],
    run: Run,
    home: Path,
    photos: Path,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.operations.plan.needs_look", lambda *_: False)  # would ask the real backbone
    for number in range(3):
        write_image(photos / "red" / f"late-{number}.png", "red", 5000 + number)
    before, settings = tally.images, {"train": REJECTED, **OTHER_RECIPE}
    made = make_plan(RunSettings(source=photos, home=home, **settings))
    assert (made.compute, made.to_json()["champion"]["compute"]) == (63, 3)
    switched_off = {**settings, "registry": {"champion_predicts": "embedded"}}
    assert make_plan(RunSettings(source=photos, home=home, **switched_off)).champion is None
    assert any(
        line.startswith("champion  3 more features for version 1, unless it is replaced")
        for line in describe_plan(made)
    )

    second = run(**settings)
    assert (second["model"]["version"], second["model"]["alias"]) == (2, None)
    assert second["recipe"] != first_report["recipe"]
    expected = {"version": 1, "recipe": first_report["recipe"], "computed": 3, "failed": 0, "predicted": 3}
    assert second["champion"] == expected
    assert (second["backbone_calls"], tally.images - before) == (66, 66)
    assert not any("champion" in warning for warning in second["warnings"])
    assert count_predicted(home) == [(1, 63, 63)]

    assert make_plan(RunSettings(source=photos, home=home, **settings)).champion is None
    third = run(**settings)
    assert (third["champion"], third["backbone_calls"], tally.images - before) == (None, 0, 66)
    assert count_predicted(home) == [(1, 63, 63)]


def test_images_that_are_not_embedded_for_the_champion_cost_a_warning_until_its_backbone_is_back(
    first_report: dict[str, Any], run: Run, home: Path, photos: Path
) -> None:
    write_image(photos / "red" / "late.png", "red", 5000)
    settings = {"train": REJECTED, **OTHER_RECIPE}
    switched_off = {**settings, "registry": {"champion_predicts": "embedded"}}
    backbone = home / "backbones" / first_report["recipe"]
    begin = "1 image cannot be predicted by the champion, version 1: "

    (warning,) = (text for text in run(**switched_off)["warnings"] if "champion" in text)
    assert warning.startswith(begin)
    assert "--registry.champion-predicts all" in warning

    next(backbone.glob("weights*")).unlink()
    (warning,) = (text for text in run(**settings)["warnings"] if "champion" in text)
    assert warning.startswith(f"{begin}backbone {backbone}: has lost its weights. ")
    assert "\n" not in warning
    assert count_predicted(home) == [(1, 60, 60)]

    shutil.rmtree(backbone)  # as in another home that shares the lake: the weights are found by their digest
    assert run(**settings)["champion"]["predicted"] == 1
    assert count_predicted(home) == [(1, 61, 61)]


@pytest.mark.usefixtures("first_report")
def test_a_champion_that_averages_over_views_predicts_no_image_before_its_views_are_computed(
    run: Run, home: Path, photos: Path
) -> None:
    averaged = run(embed={"views": 2}, train={"average_views": True})
    MlflowClient(*2 * (f"sqlite:///{home}/mlflow/mlflow.db",)).set_registered_model_alias("photos", "champion", "2")
    late = write_image(photos / "red" / "late.png", "red", 5000)
    without = run(train=REJECTED)
    assert without["champion"]["computed"] == 2
    with read_lake(Home(home)) as lake:
        training = find_training(lake, averaged["training"])
        assert training
        (image_id,) = lake.column("SELECT image_id::VARCHAR FROM files WHERE path = 'red/late.png'")
        inputs = read_head_inputs(lake, training, [image_id])
        (stored,) = lake.column("SELECT probability FROM latest_predictions WHERE image_id = ?::UUID", [image_id])
    assert late.exists()
    assert not np.array_equal(inputs[:, :48], inputs[:, 48:96])
    head = read_head(Home(home), training, open_layers)
    assert stored == pytest.approx(head.probabilities(inputs).max(), rel=1e-5)
