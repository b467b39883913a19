"""Promise 2: whatever changes a vector's value changes the recipe; promise 5: the same question has the same head."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.tables.trainings import head_path
from tasks.embed.settings import EmbedSettings
from tasks.train.settings import TrainSettings
from tests.counting import Tally

if TYPE_CHECKING:
    from flows.embed import Embedded

Run = Callable[..., dict[str, Any]]


def test_every_change_that_affects_vectors_makes_a_new_recipe_beside_the_others(
    embed_photos: Callable[..., "Embedded"], tally: Tally, home: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "net.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, weights)
    net = {"backbone": "torchvision/resnet18", "weights": str(weights)}
    settings = [
        EmbedSettings(**net),
        EmbedSettings(**net, interpolation="bicubic"),
        EmbedSettings(**net, dtype="float16"),
        EmbedSettings(**net, cut="layer3"),
    ]
    recipes = [embed_photos(embed=each).recipe_id for each in settings]
    save_file({"w": np.array([0, 0, 1e-30], np.float32)}, weights)
    recipes.append(embed_photos(embed=settings[0]).recipe_id)
    assert len(set(recipes)) == 5
    assert tally.images == 300
    with read_lake(open_home(home)) as lake:
        counts = lake.rows("SELECT count(*) FROM features GROUP BY recipe_id")
    assert counts == [(60,)] * 5


def test_paths_and_batch_sizes_are_not_part_of_the_identity(run: Run, tally: Tally, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, first)
    second.write_bytes(first.read_bytes())
    one = run(embed=EmbedSettings(backbone="torchvision/resnet18", weights=str(first), batch=8, shard=16))
    two = run(embed=EmbedSettings(backbone="torchvision/resnet18", weights=str(second), batch=32, decoders=1))
    assert one["recipe"] == two["recipe"]
    assert two["backbone_calls"] == 0
    assert tally.images == 60


def test_an_automatic_choice_is_recorded_as_if_set(first_report: dict[str, Any], run: Run, home: Path) -> None:
    recipe = first_report["recipe"]
    with read_lake(open_home(home)) as lake:
        assert '"dtype":"float32"' in lake.value("SELECT recipe FROM recipes WHERE recipe_id = ?", [recipe])
    assert run(embed=EmbedSettings(dtype="float32"))["recipe"] == recipe


def test_the_same_snapshot_and_seed_yield_the_same_head_bit_for_bit(
    first_report: dict[str, Any], run: Run, home: Path
) -> None:
    path = head_path(open_home(home), first_report["training"])
    before = path.read_bytes()
    path.unlink()
    again = run()
    assert again["trained"]
    assert again["training"] == first_report["training"]
    assert path.read_bytes() == before


def test_other_training_settings_train_again_without_the_backbone(first_report: dict[str, Any], run: Run) -> None:
    after = run(train=TrainSettings(seed=1))
    assert after["trained"]
    assert after["backbone_calls"] == 0
    assert after["training"] != first_report["training"]


def test_a_trainings_rows_can_be_restored_from_its_snapshot(
    first_report: dict[str, Any], run: Run, photos: Path, home: Path
) -> None:
    report = first_report
    (photos / "red" / "000.png").unlink()
    run()
    with read_lake(open_home(home), at=report["model"]["snapshot"]) as then, read_lake(open_home(home)) as now:
        rows = then.rows("SELECT image_id, class FROM labels ORDER BY image_id")
        sql = "SELECT image_id, class FROM training_sets WHERE training_id = ? ORDER BY image_id"
        assert now.rows(sql, [report["training"]]) == rows
        assert now.value("SELECT count(*) FROM labels") == 59
