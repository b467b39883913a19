"""The contact sheet: one HTML page of the images to check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.sources.copies import ImageCopy
from tasks.train.report.render import render
from tasks.train.report.thumbnails import Thumbnail, make_thumbnail
from tasks.train.review.issues import Problem

MAX_SHOWN = 200
"""Images of each problem on the contact sheet; the table has all."""


@dataclass(frozen=True)
class ReviewItem:
    """An image to check, by its id: an ``Issue`` or a conflict. ``label`` is its class; of a conflict, all of them."""

    problem: Problem
    image_id: str
    label: str
    suggestion: str = ""
    score: float | None = None
    other_id: str | None = None


@dataclass(frozen=True)
class ImageCard:
    """An image to show; ``name`` is its path within its source, or its image id."""

    label: str
    name: str
    thumbnail: Thumbnail | None


@dataclass(frozen=True)
class ItemCard:
    """An image to check, and its near-duplicate if that is the problem."""

    image: ImageCard
    suggestion: str
    score: float | None
    other: ImageCard | None


@dataclass(frozen=True)
class Section:
    """The images that share a problem: the number of all, cards for the first, and how many items have none."""

    title: str
    explanation: str
    score_text: str
    images: int
    cards: Sequence[ItemCard]
    hidden: int


SECTIONS: Mapping[Problem, tuple[str, str, str]] = {
    "label": (
        "Labels that are likely wrong",
        "Heads that were trained without the image predict another class. The least probable labels come first.",
        "label's probability: {}",
    ),
    "duplicate": (
        "Near-duplicates with different labels",
        "The two images look the same, so that at most one of the labels is right. The most similar pairs come first.",
        "",
    ),
    "outlier": (
        "Outliers",
        "These images are unlike all others: they may be broken, out of place, or just rare. The farthest come first.",
        "similarity to the nearest images: {}",
    ),
    "conflict": (
        "Several labels",
        "The same image is in the folders of several classes.",
        "",
    ),
}


@dataclass(frozen=True)
class ContactSheet:
    """What the page shows: issues of a label set's images, and how to decide on them.

    ``files`` maps image ids to files; images that no source lists any more are missing.
    """

    label_set: str
    images: int
    items: Sequence[ReviewItem]
    files: Mapping[str, ImageCopy]
    table: str
    command: str


def write_sheet(sheet: ContactSheet, file: Path) -> None:
    """Write the contact sheet as one HTML page that needs no other file."""
    sections = [section for problem in SECTIONS if (section := _make_section(sheet, problem)).images]
    images = len({item.image_id for item in sheet.items})
    html = render("review/templates/review.html.j2", sheet=sheet, sections=sections, images_to_check=images)
    file.write_text(html, encoding="utf-8")


def _make_section(sheet: ContactSheet, problem: Problem) -> Section:
    items = [item for item in sheet.items if item.problem == problem]
    unique = _drop_mirrored(items)
    cards = [_make_card(item, sheet.files) for item in unique[:MAX_SHOWN]]
    return Section(*SECTIONS[problem], len(items), cards, len(unique) - len(cards))


def _drop_mirrored(items: Sequence[ReviewItem]) -> list[ReviewItem]:
    """Drop the second item of each pair of near-duplicates: the first shows both images."""
    kept: dict[frozenset[str | None], ReviewItem] = {}
    for item in items:
        kept.setdefault(frozenset((item.image_id, item.other_id)), item)
    return list(kept.values())


def _make_card(item: ReviewItem, files: Mapping[str, ImageCopy]) -> ItemCard:
    other = _make_image_card(item.other_id, item.suggestion, files) if item.other_id else None
    return ItemCard(_make_image_card(item.image_id, item.label, files), item.suggestion, item.score, other)


def _make_image_card(image_id: str, label: str, files: Mapping[str, ImageCopy]) -> ImageCard:
    file = files.get(image_id)
    return ImageCard(label, file.locator.path if file else image_id, make_thumbnail(file, image_id))
