"""Counts in messages: a noun follows its number in singular or plural, everywhere."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from storage.plural import pluralize

ROOT = Path(__file__).parents[2]
ROOMS = ("frostline", "deployments", "flows", "tasks", "storage")
NOUNS = (
    *("bytes", "canaries", "checkpoints", "classes", "columns", "conflicts", "cuts", "decisions", "erasures", "errors"),
    *("failures", "features", "figures", "files", "findings", "folders", "folds", "groups", "heads", "images"),
    *("labels", "layers", "leases", "lines", "mistakes", "models", "names", "numbers", "pairs", "pixels"),
    *("predictions", "probes", "processes", "readers", "recipes", "refusals", "rows", "runs", "scans", "seconds"),
    *("sections", "settings", "shards", "snapshots", "sources", "splits", "steps", "strengths", "tables", "tags"),
    *("threads", "trainings", "versions", "views", "workers"),
)
COUNTED = re.compile(rf" (?:(?!(?:of|in|the|own|are|is) )[a-z-]*[a-rt-z] ){{0,2}}?(?:{'|'.join(NOUNS)})\b(?!/)")
"""A plural with up to two adjectives; rates such as images/s stay plural."""
FORMATTED = re.compile(r"(?:%d|\{\}|(?<!\" )\}\})" + COUNTED.pattern)
LAST_SIDE = " x "
"""What stands before the last side of a size, such as 1 x 1 pixels."""


def list_counts(text: str) -> Iterator[str]:
    """List the places at which a module's text puts a plural after a number that may be 1."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FORMATTED.search(node.value):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            before: ast.expr | None = None
            for value, after in pairwise(node.values):
                is_side = isinstance(before, ast.Constant) and str(before.value).endswith(LAST_SIDE)
                if not is_side and _may_be_one(value) and isinstance(after, ast.Constant):
                    yield from (f"{ast.unparse(value)}{match}" for match in _match(str(after.value)))
                before = value


def _may_be_one(value: ast.expr) -> bool:
    """Whether a value is formatted that is no constant of the module."""
    if not isinstance(value, ast.FormattedValue):
        return False
    return not any(isinstance(node, ast.Name) and node.id.isupper() for node in ast.walk(value.value))


def _match(text: str) -> list[str]:
    match = COUNTED.match(text)
    return [match[0]] if match else []


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_345, "12,345 images")]
)
def test_a_count_has_its_noun_in_singular_or_plural(count: int, words: str) -> None:
    assert pluralize(count, "image") == words
    assert pluralize(1, "class", "classes") == "1 class"
    assert pluralize(3, "class", "classes") == "3 classes"


def test_no_message_puts_a_plural_after_a_number_that_may_be_1() -> None:
    modules = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    wrong = [(path.name, count) for path in modules for count in list_counts(path.read_text(encoding="utf-8"))]
    templates = (ROOT / "tasks").rglob("*.j2")
    wrong += [(path.name, match[0]) for path in templates for match in FORMATTED.finditer(path.read_text("utf-8"))]
    assert wrong == []


@pytest.mark.parametrize(
    "text", ['f"{n} images"', 'f"has {len(a)} more test images: x"', '"%d features"', '"{} rows".format(n)']
)
def test_a_plural_after_a_number_is_recognised(text: str) -> None:
    assert len(list(list_counts(text))) == 1


@pytest.mark.parametrize("text", ['f"{n} images/s"', 'f"{FEW} images"', 'f"{w} x {h} pixels"', 'f"{some} of images"'])
def test_what_is_always_plural_passes(text: str) -> None:
    assert list(list_counts(text)) == []
