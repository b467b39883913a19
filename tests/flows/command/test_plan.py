"""A plan shows what a run would lose or refuse, and stays a pure read."""

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.operations.plan import Plan, describe_plan, make_plan
from flows.settings import RunSettings
from storage.errors import FrostlineError, NoSpaceError
from tasks.embed.foresee import needs_look, try_recipe
from tasks.embed.settings import EmbedSettings
from tests.counting import Tally
from tests.pictures import write_folder, write_image

Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - as shutil's


def plan(photos: Path, home: Path, **settings: object) -> Plan:
    return make_plan(RunSettings.model_validate({"source": photos, "home": home, **settings}))


def fill_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


def test_a_plan_counts_the_files_that_would_be_skipped_by_type(photos: Path, home: Path) -> None:
    for name in ("a.heic", "b.HEIC", "c.CR2", "notes.txt", ".hidden", "README"):
        (photos / "red" / name).write_bytes(b"x")
    (photos / "red" / "broken.png").write_bytes(b"no image")
    (photos / "red" / "loop.png").symlink_to(photos / "red" / "loop.png")
    made = plan(photos, home)
    assert made.to_json()["skipped"] == {".heic": 2, ".cr2": 1, ".txt": 1, "hidden": 1, "other": 1}
    text = "\n".join(describe_plan(made))
    assert "skipped   3 images of a type that Frostline does not read (2 .heic, 1 .cr2): convert them" in text
    assert "skipped   3 other files" in text
    assert "failed    1 file that cannot be read as images" in text
    assert "unread    red/loop.png: " in text
    assert made.refusals == ()


@pytest.mark.usefixtures("first_report")
def test_a_plan_counts_relabelled_conflicting_duplicate_and_vanished_files(photos: Path, home: Path) -> None:
    shutil.move(photos / "red" / "000.png", photos / "blue" / "moved.png")
    shutil.copy(photos / "red" / "001.png", photos / "green" / "copy.png")
    for number in range(2):
        shutil.copy(photos / "blue" / "000.png", photos / "blue" / f"copy-{number}.png")
    (photos / "green" / "000.png").unlink()
    made = plan(photos, home)
    counts = {"relabelled": 2, "conflicting": 1, "duplicates": 3, "vanished": 2}
    assert {name: made.to_json()[name] for name in counts} == counts
    assert made.compute == 0
    text = "\n".join(describe_plan(made))
    for line in (
        "labels    2 images moved to other classes",
        "conflicts 1 image in several classes: left out of training",
        "copies    3 files with the same bytes as another: counted once",
        "vanished  2 files of the last scan",
    ):
        assert line in text
    assert plan(photos, home, train={"multi_label": True}).effects.conflicting == 0


@pytest.mark.usefixtures("first_report")
def test_a_plan_without_changes_reports_none(photos: Path, home: Path) -> None:
    made = plan(photos, home)
    assert (made.compute, made.refusals, set(made.effects.__dict__.values())) == (0, (), {0})
    assert [line for line in describe_plan(made) if not line.startswith("warning")] == describe_plan(made)[:4]


def test_a_plan_refuses_what_a_run_refuses(photos: Path, home: Path) -> None:
    shutil.rmtree(photos / "blue")
    shutil.rmtree(photos / "green")
    made = plan(photos, home, train={"average_views": True})
    assert [message.partition(":")[0] for message in made.refusals] == [
        "train.average_views",
        "20 labelled images of 1 class (red)",
    ]
    assert "refused   train.average_views: needs views to average over" in "\n".join(describe_plan(made))


@pytest.mark.parametrize(
    ("embed", "words"),
    [
        ({"cut": "no.such.layer"}, ["cut 'no.such.layer'", "is not a layer"]),
        ({"device": "cuda:7"}, ["embed.device cuda:7"]),
        ({"backbone": "torchvision/resnet19"}, ["torchvision/resnet19", "Did you mean", "torchvision/resnet18"]),
        ({"backbone": "resnet18"}, ["backbone 'resnet18'", "torchvision/resnet18"]),
    ],
)
def test_an_unknown_cut_device_or_network_is_refused_without_its_weights(
    embed: dict[str, str], words: list[str]
) -> None:
    settings = EmbedSettings.model_validate(embed)
    assert needs_look(settings, None)
    with pytest.raises(FrostlineError) as raised:
        try_recipe(settings, None)
    for word in words:
        assert word in str(raised.value)


def test_a_plan_looks_at_a_network_in_another_process(photos: Path, home: Path) -> None:
    unknown = {"backbone": "torchvision/resnet19", "weights": "torchvision:ResNet19_Weights.DEFAULT"}
    assert "torchvision/resnet19: is not a classification network" in plan(photos, home, embed=unknown).refusals[0]


def test_a_plan_compares_what_is_needed_with_what_is_free(
    photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, free=1_000_000)
    made = plan(photos, home)
    assert made.room.free == 1_000_000 < made.room.needed
    assert f"home {home}: needs at least" in made.refusals[0]
    assert "1.0 MB free" in made.refusals[0]


def test_a_run_without_enough_space_writes_nothing(
    run: Callable[..., dict[str, Any]], tally: Tally, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, free=1_000_000)
    with pytest.raises(NoSpaceError, match=r"1\.0 MB free"):
        run()
    assert tally.images == 0
    assert not (home / "catalog.sqlite").exists()


@pytest.mark.usefixtures("first_report")
def test_a_run_with_nothing_to_do_needs_no_space(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, free=0)
    assert run()["features"]["reused"] == 60


def test_a_refused_plan_ends_with_code_2(
    frostline_in: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "photos", 20, ("red",))
    assert frostline_in(tmp_path, "plan", "photos") == 2
    assert "refused   20 labelled images of 1 class (red)" in capsys.readouterr().out
    write_image(tmp_path / "photos" / "blue" / "1.png", "blue", 1)
