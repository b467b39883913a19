"""An evaluation as one page that needs no other file, and its pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from storage.errors import TrainError
from storage.lake.attach import read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.recipes import get_recipe
from storage.tables.trainings import Training, find_training
from tasks.train.report.plots import draw_confusion, draw_reliability
from tasks.train.report.recorded import (
    Mistake,
    count_images,
    find_mistakes,
    list_classes,
    list_figures,
    list_unknown,
    read_evaluation,
)
from tasks.train.report.thumbnails import show, to_uri

WORST = 20
STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .15rem .8rem; text-align: left; border-bottom: 1px solid #8886 }
td { font-variant-numeric: tabular-nums }
img { max-width: 100% }
.picture { background: white }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem }
figure { margin: 0; overflow-wrap: anywhere }
"""
CALIBRATION = "<h2>Calibration</h2><p>How often the head is right, when it says how sure it is.</p>"
UNKNOWN = """<h2>Unknown classes</h2>
<p>How many test images of a class were given another one, by a head that had never seen their class.</p>"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Page:
    """The page as HTML, and the pictures in it as PNG."""

    html: str
    pictures: dict[str, bytes]


def write_page(home: Home, training_id: str, folder: Path) -> None:
    """Write ``evaluation.html`` of a training into a folder, and the pictures that it has.

    Raises:
        TrainError: where the lake has no such training, or the home not its head.
    """
    page = make_page(home, training_id)
    (folder / "evaluation.html").write_text(page.html, encoding="utf-8")
    for name, picture in page.pictures.items():
        (folder / name).write_bytes(picture)


def make_page(home: Home, training_id: str) -> Page:
    """Make the page of a training; the gallery has what the lake still knows and whose file is still what it was.

    Raises:
        TrainError: where the lake has no such training, or the home not its head.
    """
    with read_lake(home) as lake:
        training = find_training(lake, training_id)
        if training is None:
            raise TrainError(f"training {training_id}", "is none of this lake's", "See `frostline sql 'from heads'`")
        found = read_evaluation(lake, home, training)
        mistakes = find_mistakes(lake, home, training)
        facts = _list_facts(lake, training, found)
    pictures = _draw(found) if found["confusion"] else {}
    return Page(_write(training.label_set, facts, found, mistakes, pictures), pictures)


def _draw(found: dict[str, Any]) -> dict[str, bytes]:
    return {
        "confusion.png": draw_confusion(found["confusion"], [row["class"] for row in found["classes"]]),
        "reliability.png": draw_reliability(found["reliability"]),
    }


def _list_facts(lake: Lake, training: Training, found: dict[str, Any]) -> list[tuple[str, object]]:
    recipe = get_recipe(lake, training.recipe_id)
    numbers = {
        "temperature": found["metrics"].get("temperature"),
        "neither below": found["metrics"].get("refuse_below"),
    }
    return [
        ("training", training.training_id),
        ("backbone", f"{recipe.architecture}, cut at {recipe.cut}"),
        ("recipe", training.recipe_id),
        ("snapshot", training.snapshot),
        ("images", ", ".join(f"{count} {split}" for split, count in count_images(found).items())),
        *((name, f"{value:.4f}") for name, value in numbers.items() if value is not None),
    ]


def _write(
    name: str,
    facts: Sequence[tuple[str, object]],
    found: dict[str, Any],
    mistakes: Sequence[Mistake],
    pictures: dict[str, bytes],
) -> str:
    slices = [tuple(row.values()) for row in found["slices"][:WORST]]
    unknown, classes = list_unknown(found), list_classes(found)
    between = ("from", "to")
    body = [
        f"<h1>{escape(name)}</h1>",
        _table((), facts),
        "<h2>Figures</h2><p>On the test images, which the head never saw, with 95 % bootstrap intervals.</p>",
        _table(("figure", "value", *between), list_figures(found["metrics"])),
        "<h2>Worst slices</h2><p>Of 20 test images and more, by the upper end of the 95 % interval.</p>",
        _table(("slice", "value", "images", "accuracy", *between), slices),
        *_show_picture("reliability", CALIBRATION, pictures),
        "<h2>Classes</h2>",
        _table(*classes),
        *_show_picture("confusion", "", pictures),
        *((UNKNOWN, _table(("class", "images", "accepted", *between), unknown)) if unknown else ()),
        "<h2>Surest mistakes</h2><p>Look at these first: some are labels that are wrong.</p>",
        f'<div class="gallery">{"".join(map(_show, mistakes))}</div>' if mistakes else "<p>None.</p>",
    ]
    return frame(f"{name}: evaluation", body)


def frame(title: str, body: Iterable[str]) -> str:
    """Make a page of HTML that loads nothing and runs nothing."""
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return "\n".join(("<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{escape(_say(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _say(cell: object) -> str:
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def _show_picture(name: str, title: str, pictures: dict[str, bytes]) -> Iterable[str]:
    if png := pictures.get(f"{name}.png"):
        yield f'{title}<p><img class="picture" alt="{name}" src="{to_uri("png", png)}"></p>'


def _show(mistake: Mistake) -> str:
    words = f"{mistake.label}, taken for {mistake.predicted} at {mistake.probability:.4f}"
    where = escape(mistake.place or mistake.image_id)
    shown = show(mistake.place, mistake.image_id)
    return f"<figure>{shown}<figcaption>{escape(words)}<br><small>{where}</small></figcaption></figure>"
