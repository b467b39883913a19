"""Layouts: what the folders of a source mean, and when that is in doubt."""

import pytest
from pydantic import ValidationError

from tasks.ingest.settings import IngestSettings
from tasks.ingest.sources.layout import Layout, recognise


@pytest.mark.parametrize(
    ("folders", "layout"),
    [
        ({"cat", "dog"}, "class"),
        ({"cat", "cat/2024", "dog/2023"}, "class"),
        ({""}, "class"),
        ({"train/cat", "val/cat", "test/cat"}, "split/class"),
        ({"Training/cat", "Training/dog", "Testing/cat", "Testing/dog/deeper"}, "split/class"),
        ({"train/cat", "train/dog", "test"}, "split/class"),
        ({"train/cat", "train/dog"}, "split/class"),
        ({"cat/train", "cat/test", "dog/train", "dog/test"}, "class/split"),
        ({"animal/cat", "animal/dog", "plant/rose"}, "class"),
    ],
)
def test_plausible_layouts_are_recognised(folders: set[str], layout: str) -> None:
    recognised = recognise(folders)
    assert (recognised.layout.text, recognised.doubt) == (layout, None)


@pytest.mark.parametrize(
    ("folders", "doubt"),
    [
        ({"cat", "dog", "test"}, "the folder test may be a class or a split"),
        ({"train", "test"}, "the folders test, train may be classes or splits"),
        ({"val/cat", "test/cat"}, "the folders test, val may be classes or splits"),
        ({"train/cat", "test/cat", "extra/cat"}, "the folders test, train may be classes or splits"),
        (
            {"north/cat", "north/dog", "south/cat", "south/dog"},
            "the folders north, south have the same folders in them, cat, dog: either may be the classes",
        ),
    ],
)
def test_folders_that_may_mean_something_else_are_in_doubt(folders: set[str], doubt: str) -> None:
    recognised = recognise(folders)
    assert (recognised.layout.text, recognised.doubt) == ("class", doubt)


def test_deeper_trees_and_given_splits_are_noted() -> None:
    assert recognise({"animal/cat", "animal/dog", "plant/rose"}).note == (
        "3 folders lie within classes and count as part of them: animal/cat, animal/dog, plant/rose"
    )
    assert (
        recognise({"train/cat", "test/cat"}).note == "the folders test, train are given splits of the classes in them"
    )
    assert recognise({"cat", "dog"}).note is None


@pytest.mark.parametrize(
    ("layout", "folder", "meaning"),
    [
        ("class", "cat/2024", ("cat", None)),
        ("class", "", (None, None)),
        ("split/class", "VAL/cat/deeper", ("cat", "validation")),
        ("split/class", "test", (None, "test")),
        ("split/class", "extra/cat", ("cat", None)),
        ("class/split", "cat/train", ("cat", "train")),
        ("*/class", "north/cat", ("cat", None)),
        ("class/class", "animal/cat", ("animal/cat", None)),
        ("class/class", "animal", (None, None)),
    ],
)
def test_each_level_of_a_layout_has_its_meaning(
    layout: str, folder: str, meaning: tuple[str | None, str | None]
) -> None:
    assert Layout(layout).read(folder) == meaning


@pytest.mark.parametrize("layout", ["", "split", "split/split/class", "class/", "folder", "class/any"])
def test_an_invalid_layout_is_refused(layout: str) -> None:
    with pytest.raises(ValidationError, match="joined by slashes"):
        IngestSettings(layout=layout)
