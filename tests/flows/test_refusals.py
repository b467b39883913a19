"""What a run refuses before it writes anything, and what plan says of it beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.operations.plan import Plan, describe_plan, make_plan
from flows.settings import RunSettings
from storage.errors import SourceError
from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.progress import silent
from tasks.ingest.scan import ScanOptions, scan
from tasks.ingest.settings import IngestSettings
from tests.counting import Tally
from tests.pictures import write_image


def plan(photos: Path, home: Path, **settings: Any) -> Plan:  # noqa: ANN401 - settings of any type
    return make_plan(RunSettings.model_validate({"source": photos, "home": home, **settings}))


def count_scans(home: Path) -> int:
    with read_lake(open_home(home)) as lake:
        return int(lake.value("SELECT count(*) FROM scans"))


def test_a_run_over_half_of_the_images_is_refused_until_confirmed(
    embed_photos: Callable[..., Any], photos: Path, home: Path
) -> None:
    embed_photos()
    for path in sorted(photos.glob("*/*.png"))[::2]:
        path.unlink()
    with pytest.raises(SourceError, match=r"30 of 60 images gone .*--accept-gone"):
        embed_photos()
    assert count_scans(home) == 1
    [refused] = plan(photos, home).refusals
    assert "30 of 60 images gone (blue 10 of 20, green 10 of 20, red 10 of 20)" in refused
    assert plan(photos, home, accept_gone=True).refusals == ()
    embed_photos(accept_gone=True)
    embed_photos()
    assert count_scans(home) == 3


def test_plan_says_which_classes_are_too_small_and_what_the_folders_were_taken_for(
    tally: Tally,  # noqa: ARG001 - in place of a real backbone
    photos: Path,
    home: Path,
) -> None:
    assert plan(photos, home).warnings == ()
    for number in range(2):
        write_image(photos / "rare" / f"{number}.png", "blue", 90_000 + number)
    for number in range(5):
        write_image(photos / "thin" / "deep" / f"{number}.png", "blue", 95_000 + number)
    made = plan(photos, home)
    assert made.refusals == ()
    assert [line for line in describe_plan(made) if line.startswith("warning")] == [
        "warning   layout class: 1 folder lies within a class and counts as part of it: thin/deep",
        "warning   1 class was left out, with too few images to train and measure on: rare (2)",
        "warning   1 class has fewer than 3 images in validation or test, so that its own figures say little: thin (5)",
    ]
    assert plan(photos, home, train={"leave_out": ("rare", "thin")}).to_json()["warnings"][1:] == []


@pytest.mark.parametrize(
    ("folders", "doubt", "meant"),
    [
        (("cat", "dog", "test"), "the folder test may be a class or a split", "class"),
        (("val/cat", "val/dog"), "the folder val may be a class or a split", "split/class"),
        (
            ("north/cat", "north/dog", "south/cat", "south/dog"),
            "the folders north, south have the same folders in them, cat, dog: either may be the classes",
            "*/class",
        ),
    ],
)
def test_plan_goes_on_where_a_run_refuses_folders_that_may_mean_something_else(
    frostline_in: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    home: Path,
    folders: tuple[str, ...],
    doubt: str,
    meant: str,
) -> None:
    photos = tmp_path / "pics"
    for number, folder in enumerate(folders):
        for image in range(8):
            write_image(photos / folder / f"{image}.png", "red", 10 * number + image)
    assert frostline_in(tmp_path, "plan", "pics", "--home", str(home)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert f"compute   {8 * len(folders)}" in lines
    assert "warning   layout class: assumed in this plan, until you say which is meant" in lines
    [refused] = [line for line in lines if line.startswith("refused")]
    assert doubt in refused
    assert "Say which: --ingest.layout class" in refused
    with pytest.raises(SourceError) as raised:
        scan(open_home(home), SourceName("pics"), photos, IngestSettings(), silent, ScanOptions(strict=True))
    assert str(raised.value) == refused.removeprefix("refused   ")

    made = plan(photos, home, ingest={"layout": meant})
    assert made.refusals == ()
    assert {part.label for part in made.missing} == {folder.rpartition("/")[2] for folder in folders}
