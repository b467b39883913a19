"""Missing features: listed in the order of image_id, with the reason, now or once a scan is committed."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.tables.features import count_failed
from storage.tables.missing import (
    Counts,
    FeatureRequest,
    Missing,
    count_images,
    count_present,
    explain_missing,
)
from storage.vectors.feature_file import Failure
from tests.pictures import write_folder, write_image
from tests.storage.tables.test_features import NOW, OTHER, RECIPE, commit, ingest, list_pairs, look, missing


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with open_lake(open_home(tmp_path / "home")) as opened:
        yield opened


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Six images, two a class."""
    return write_folder(tmp_path / "photos", per_class=2)


def explain(lake: Lake, folder: Path, recipe: str, *, retry: bool = False) -> dict[str, int]:
    """Count what will be missing after a scan, by reason."""
    reasons = Counter[str]()
    for part in explain_missing(lake, FeatureRequest(recipe, SourceName("photos"), retry), look(lake, folder)):
        reasons[part.reason] += part.images
    return dict(reasons)


def test_images_of_the_source_without_a_feature_are_missing_in_order_of_id(lake: Lake, few: Path) -> None:
    write_image(few / "blue" / "copy of 000.png", "blue", 2000)  # the same bytes as 000.png
    (few / "blue" / "broken.png").write_bytes(b"no image")
    found = ingest(lake, few)
    assert sorted(found) == found
    assert {path for _, path in found} == {f"{color}/00{n}.png" for color in ("blue", "green", "red") for n in (0, 1)}
    assert count_images(lake, FeatureRequest(RECIPE, SourceName("photos"))) == Counts(missing=6, present=0)
    commit(lake, [image_id for image_id, _ in found[:2]])
    assert missing(lake) == found[2:]
    assert missing(lake, OTHER) == found
    assert count_images(lake, FeatureRequest(RECIPE, SourceName("photos"))).present == 2


@pytest.mark.parametrize("stage", ["decode", "embed"])
def test_a_failed_image_is_left_out_unless_retry_is_set(lake: Lake, few: Path, stage: str) -> None:
    found = ingest(lake, few)
    commit(lake, [], failures=[Failure(*found[0], stage, "broken")])
    assert missing(lake) == found[1:]
    assert missing(lake, retry=True) == found
    assert missing(lake, OTHER) == found
    assert count_failed(lake, RECIPE, SourceName("photos")) == 1


def test_an_image_that_could_not_be_read_is_tried_again(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    commit(lake, [], failures=[Failure(*found[0], "read", "share went away")])
    assert missing(lake) == found


def test_a_run_does_not_retry_its_own_failures(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    commit(lake, [], failures=[Failure(*found[0], "read", "share went away")], now=NOW)
    commit(lake, [], failures=[Failure(*found[1], "decode", "broken")], now=NOW)
    later = NOW + timedelta(seconds=1)
    assert list_pairs(lake, FeatureRequest(RECIPE, SourceName("photos"), retry=True, since=NOW), 100) == found[2:]
    assert list_pairs(lake, FeatureRequest(RECIPE, SourceName("photos"), retry=True, since=later), 100) == found


def test_missing_images_are_listed_in_pages(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    wanted = FeatureRequest(RECIPE, SourceName("photos"))
    assert list_pairs(lake, wanted, 4) == found[:4]
    assert list_pairs(lake, wanted, 4, after=found[3][0]) == found[4:]
    assert list_pairs(lake, wanted, 4, after=found[5][0]) == []


def test_missing_images_are_counted_by_class_and_reason(lake: Lake, few: Path) -> None:
    (few / "elsewhere.png").write_bytes((few / "red" / "000.png").read_bytes())
    write_image(few / "alone.png", "red", 99)
    found = {path: image_id for image_id, path in ingest(lake, few)}
    commit(lake, [found["blue/000.png"]])
    commit(lake, [], failures=[Failure(found["green/001.png"], "green/001.png", "decode", "broken")])
    expected = [
        Missing("blue", "unfinished", 1),
        Missing("green", "retry", 1),
        Missing("green", "unfinished", 1),
        Missing("red", "unfinished", 2),
        Missing(None, "unfinished", 1),
    ]
    assert explain_missing(lake, FeatureRequest(RECIPE, SourceName("photos"), retry=True)) == expected
    assert explain_missing(lake, FeatureRequest(RECIPE, SourceName("photos"), retry=True), look(lake, few)) == expected


def test_reasons_are_known_before_the_scan_is_committed(lake: Lake, few: Path) -> None:
    before = lake.snapshot
    assert explain(lake, few, "") == {"new_image": 6}
    assert explain(lake, few, RECIPE) == {"new_image": 6}
    assert lake.snapshot == before

    found = ingest(lake, few)
    assert explain(lake, few, RECIPE) == {"unfinished": 6}

    commit(lake, [image_id for image_id, _ in found[:4]], failures=[Failure(*found[4], "decode", "broken")])
    assert explain(lake, few, RECIPE) == {"unfinished": 1}
    assert explain(lake, few, RECIPE, retry=True) == {"retry": 1, "unfinished": 1}
    assert explain(lake, few, OTHER) == {"new_recipe": 4, "unfinished": 2}
    assert count_present(lake, FeatureRequest(RECIPE, SourceName("photos")), look(lake, few)) == 4

    write_image(few / found[0][1], "blue", 77)
    write_image(few / "blue" / "another.png", "blue", 78)
    expected = {"bytes_changed": 1, "new_image": 1, "unfinished": 1}
    assert explain(lake, few, RECIPE) == expected
    assert count_present(lake, FeatureRequest(RECIPE, SourceName("photos")), look(lake, few)) == 3


def test_deleted_and_moved_files_are_no_work(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    commit(lake, [image_id for image_id, _ in found[:5]])
    (few / found[5][1]).unlink()
    (few / found[0][1]).rename(few / "blue" / "renamed.png")
    assert explain(lake, few, RECIPE) == {}
    assert count_present(lake, FeatureRequest(RECIPE, SourceName("photos")), look(lake, few)) == 5


def test_the_feature_of_a_deleted_image_is_reused_when_it_returns(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    commit(lake, [image_id for image_id, _ in found])
    gone = few / found[0][1]
    data = gone.read_bytes()
    gone.unlink()
    assert ingest(lake, few) == []
    gone.write_bytes(data)
    assert explain(lake, few, RECIPE) == {}
    assert ingest(lake, few) == []
    assert count_images(lake, FeatureRequest(RECIPE, SourceName("photos"))).present == 6
