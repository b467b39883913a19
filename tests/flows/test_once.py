"""Promise 1: a feature is computed once, whatever happens to paths and labels."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.lake.attach import read_lake
from storage.locations.home import open_home
from tests.counting import Tally
from tests.pictures import write_image

if TYPE_CHECKING:
    from flows.embed import Embedded

Run = Callable[..., dict[str, Any]]


def test_a_second_run_over_unchanged_files_opens_none_and_computes_nothing(run: Run, tally: Tally) -> None:
    first, second = run(), run()
    assert first["features"] == {"computed": 60, "reused": 0, "failed": 0}
    assert second["features"] == {"computed": 0, "reused": 60, "failed": 0}
    assert second["files"]["opened"] == 0
    assert (first["backbone_calls"], second["backbone_calls"]) == (60, 0)
    assert tally.images == 60


@pytest.mark.usefixtures("first_report")
def test_renaming_copying_moving_and_touching_compute_nothing(run: Run, tally: Tally, photos: Path) -> None:
    (photos / "red" / "000.png").rename(photos / "red" / "renamed.png")
    shutil.copy(photos / "red" / "001.png", photos / "red" / "copy.png")
    (photos / "red" / "deeper").mkdir()
    (photos / "red" / "002.png").rename(photos / "red" / "deeper" / "moved.png")
    os.utime(photos / "red" / "003.png", ns=(0, 0))
    report = run()
    assert report["images"] == {"seen": 60, "new": 0, "unchanged": 60, "gone": 0}
    assert report["backbone_calls"] == 0
    assert not report["trained"]
    assert tally.images == 60


@pytest.mark.usefixtures("first_report")
def test_a_file_with_new_bytes_is_embedded_once(run: Run, tally: Tally, photos: Path) -> None:
    write_image(photos / "red" / "000.png", "red", seed=99)
    report = run()
    assert report["images"] == {"seen": 60, "new": 1, "unchanged": 59, "gone": 1}
    assert report["features"] == {"computed": 1, "reused": 59, "failed": 0}
    assert report["backbone_calls"] == 1
    assert tally.images == 61


@pytest.mark.usefixtures("first_report")
def test_a_deleted_image_leaves_the_training_set_and_keeps_its_feature(run: Run, photos: Path, home: Path) -> None:
    (photos / "red" / "000.png").unlink()
    report = run()
    assert report["images"]["gone"] == 1
    with read_lake(open_home(home)) as lake:
        rows = lake.value("SELECT count(*) FROM training_sets WHERE training_id = ?", [report["training"]])
        assert rows == 59
        assert lake.value("SELECT count(*) FROM features") == 60


def test_renaming_a_class_folder_changes_labels_and_trains_again_without_the_backbone(
    first_report: dict[str, Any], run: Run, tally: Tally, photos: Path, home: Path
) -> None:
    (photos / "red").rename(photos / "crimson")
    after = run()
    assert after["backbone_calls"] == 0
    assert after["trained"]
    assert after["model"]["version"] == first_report["model"]["version"] + 1
    assert tally.images == 60
    with read_lake(open_home(home)) as lake:
        assert lake.rows("SELECT DISTINCT class FROM labels ORDER BY class") == [("blue",), ("crimson",), ("green",)]


def test_paths_with_the_same_bytes_are_one_image_in_one_split(run: Run, photos: Path, home: Path) -> None:
    for number in range(20):
        shutil.copy(photos / "red" / f"{number:03}.png", photos / "red" / f"copy-{number}.png")
    report = run()
    assert report["images"]["seen"] == 60
    assert report["features"]["computed"] == 60
    with read_lake(open_home(home)) as lake:
        twice = "SELECT image_id FROM training_sets GROUP BY image_id, training_id HAVING count(*) > 1"
        assert lake.rows(twice) == []


def test_the_same_bytes_under_two_classes_are_a_conflict_and_are_not_trained_on(
    run: Run, photos: Path, home: Path
) -> None:
    shutil.copy(photos / "red" / "000.png", photos / "green" / "same.png")
    report = run()
    assert report["conflicts"] == 1
    with read_lake(open_home(home)) as lake:
        assert lake.rows("SELECT classes FROM conflicts") == [(["green", "red"],)]
        in_training = "SELECT count(*) FROM training_sets WHERE image_id IN (SELECT image_id FROM conflicts)"
        assert lake.value(in_training) == 0
        assert lake.value("SELECT count(*) FROM training_sets") == 59


def test_bad_files_affect_no_others_and_are_not_opened_again(run: Run, photos: Path, home: Path) -> None:
    whole = (photos / "red" / "000.png").read_bytes()
    (photos / "red" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "empty.jpg").touch()
    (photos / "red" / "words.jpg").write_text("not an image")
    (photos / "red" / "notes.txt").write_text("ignored")
    first, second = run(), run()
    assert first["features"] == {"computed": 60, "reused": 0, "failed": 3}
    assert second["features"] == {"computed": 0, "reused": 60, "failed": 3}
    assert (first["files"]["ignored"], second["files"]["opened"]) == (1, 0)
    with read_lake(open_home(home)) as lake:
        found = lake.rows("SELECT path, stage FROM failures ORDER BY path")
    assert found == [("red/empty.jpg", "probe"), ("red/truncated.png", "decode"), ("red/words.jpg", "probe")]


def test_a_failed_image_is_retried_on_request_and_if_its_bytes_change(
    embed_photos: Callable[..., "Embedded"], photos: Path
) -> None:
    whole = (photos / "red" / "000.png").read_bytes()
    broken = photos / "red" / "broken.png"
    broken.write_bytes(whole[: len(whole) // 2])
    assert embed_photos().failed == 1
    assert embed_photos(retry=True).failed == 1
    write_image(broken, "red", seed=77)
    done = embed_photos()
    assert (done.computed, done.reused, done.failed) == (1, 60, 0)


@pytest.mark.usefixtures("first_report")
def test_moving_the_whole_source_computes_nothing(run: Run, photos: Path) -> None:
    moved = photos.rename(photos.parent / "elsewhere")
    report = run(source=moved, name="photos")
    assert report["images"] == {"seen": 60, "new": 0, "unchanged": 60, "gone": 0}
    assert report["files"]["opened"] == 0


def test_a_lost_file_is_planned_as_lost_and_computed_again(run: Run, tally: Tally, photos: Path, home: Path) -> None:
    from flows.operations.plan import make_plan
    from flows.settings import RunSettings

    run(embed={"shard": 20})
    lost = min((home / "data" / "main" / "features").rglob("*.parquet"))
    lost.unlink()
    planned = make_plan(RunSettings(source=photos, home=home))
    assert planned.reasons == {"feature_lost": 20}
    assert planned.reuse == 40
    report = run(embed={"shard": 20})
    assert report["features"] == {"computed": 20, "reused": 40, "failed": 0}
    assert tally.images == 80
    assert make_plan(RunSettings(source=photos, home=home)).compute == 0
