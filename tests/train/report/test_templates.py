"""The templates: what they escape, what they leave out, and that a wheel contains them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tasks.train.report.gallery import MistakeCard, MistakeGroup
from tasks.train.report.page import list_values
from tasks.train.report.plots import MAX_LETTERS, draw_confusion
from tasks.train.report.render import render
from tasks.train.report.thumbnails import Thumbnail
from tasks.train.review.contact_sheet import ContactSheet, ReviewItem, write_sheet
from tests.train.report.test_verdict import evaluation

ROOT = Path(__file__).parents[3]
SCRIPT = "<script>alert('1')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"


def render_page(found: dict[str, Any], groups: list[MistakeGroup]) -> str:
    facts = [("Backbone", SCRIPT)]
    values = list_values(SCRIPT, {"slices": (), **found}, {})
    return render("report/templates/evaluation.html.j2", **values, groups=groups, mistakes_shown=SCRIPT, facts=facts)


def test_every_text_on_the_evaluation_page_is_escaped() -> None:
    found = evaluation([[48, 2], [4, 46]])
    for row in found["classes"]:
        row["class"] = SCRIPT + row["class"]
    unknown = {"class": SCRIPT, "images": 9, "false_accept": 0.5, "false_accept_low": 0.4, "false_accept_high": 0.6}
    slices = [{"slice": SCRIPT, "value": SCRIPT, "images": 20, **accuracy(0.5)}]
    groups = [
        MistakeGroup(
            SCRIPT,
            1,
            2,
            [Thumbnail("data:", tiny=False)],
            [MistakeCard(SCRIPT, 0.9, SCRIPT, Thumbnail("data:", tiny=True))],
        )
    ]
    found["metrics"]["refuse_below"] = 0.5
    page = render_page({**found, "unknown": [unknown], "slices": slices}, groups)
    assert "<script" not in page
    assert page.count(ESCAPED) > 20


def accuracy(share: float) -> dict[str, float]:
    return {"accuracy": share, "accuracy_low": share - 0.1, "accuracy_high": share + 0.1}


def test_every_text_on_the_contact_sheet_is_escaped(tmp_path: Path) -> None:
    image_ids = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(2)]
    items = [
        ReviewItem("label", image_ids[0], SCRIPT, SCRIPT, 0.1),
        ReviewItem("duplicate", image_ids[0], SCRIPT, SCRIPT, 0.99, image_ids[1]),
    ]
    write_sheet(ContactSheet(SCRIPT, 9, items, {}, SCRIPT, SCRIPT), tmp_path / "review.html")
    page = (tmp_path / "review.html").read_text()
    assert "<script" not in page
    assert page.count(ESCAPED) > 6


def test_empty_tables_are_left_out() -> None:
    page = render_page(evaluation([[10, 0], [0, 10]]), [])
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == ["Next", "Classes", "Metrics", "How it was made"]
    assert not re.search(r"<tbody>\s*</tbody>", page)


def test_a_page_of_a_head_that_may_answer_neither_says_when_and_what_other_rates_cost() -> None:
    found = {**evaluation([[48, 2], [4, 46]]), "images": {"train": 70, "validation": 200, "test": 100}, "slices": ()}
    found["metrics"] |= {"refuse_below": 0.81, "refuse_nearest": 3.0}
    found["prices"] = [{"false_accept": 0.05, "refused": 0.62}, {"false_accept": 0.2, "refused": 0.085}]
    values = list_values("photos", found, {}, rate=0.2)
    page = render("report/templates/evaluation.html.j2", **values, groups=[], mistakes_shown="", facts=[])
    assert "answers &#34;neither&#34;" not in page
    assert 'answers "neither" if fewer than 3 training images have a cosine of at least 0.8100 to the image.' in page
    rows = re.findall(r'<th scope="row" class="number">(.*?)</th><td class="number">(.*?)</td>', page)
    assert rows == [("5 %", "62 %"), ("20 %<small>this head</small>", "8 %")]
    found["metrics"].pop("refuse_nearest")
    found.pop("prices")  # a head of an earlier release
    page = render_page(found, [])
    assert 'answers "neither" if no class has a probability of 0.8100.' in page
    assert "What other limits would cost" not in page


def test_the_contact_sheet_shows_each_pair_once_and_no_empty_section(tmp_path: Path) -> None:
    one, other = (f"00000000-0000-0000-0000-00000000000{number}" for number in range(2))
    items = [ReviewItem("duplicate", one, "a", "b", 0.99, other), ReviewItem("duplicate", other, "b", "a", 0.99, one)]
    write_sheet(ContactSheet("photos", 9, items, {}, "review.csv", "frostline"), tmp_path / "review.html")
    page = (tmp_path / "review.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Next", "Near-duplicates with different labels"]
    assert page.count('class="pair"') == 1
    assert "2 of 9 images to check" in page


def test_a_review_without_issues_says_so(tmp_path: Path) -> None:
    write_sheet(ContactSheet("photos", 9, [], {}, "review.csv", "frostline"), tmp_path / "review.html")
    assert "Nothing to check in 9 images" in (tmp_path / "review.html").read_text()


@pytest.mark.parametrize("classes", [30, 31])
def test_more_than_30_classes_fold_away(classes: int) -> None:
    found = evaluation([[10, 0], [0, 10]])
    found["classes"] = [{**found["classes"][0], "class": f"class {number}"} for number in range(classes)]
    found["confusion"] = [[0] * classes for _ in range(classes)]
    page = render_page(found, [])
    assert page.count('<th scope="row"><div>class ') == classes
    assert ("Show the other 1 class" in page) == (classes > 30)


def test_long_names_take_no_more_room_from_a_confusion_matrix_than_their_first_letters() -> None:
    confusion = [[3, 1], [0, 4]]
    cut_off, longer = (draw_confusion(confusion, ["a" * letters, "b"]) for letters in (MAX_LETTERS, 500))
    assert longer[16:24] == cut_off[16:24]  # width and height in the header of a PNG


def test_a_wheel_contains_the_templates() -> None:
    """Hatchling packs every file of the packages that version control does not ignore."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    templates = [path.relative_to(ROOT) for path in (ROOT / "tasks").rglob("*.j2")]
    assert len(templates) == 4
    assert {path.parts[0] for path in templates} <= set(wheel["packages"])
    assert not {"include", "exclude", "only-include"} & set(wheel)
    assert not any(path.match(pattern) for path in templates for pattern in ignored_patterns())


def ignored_patterns() -> list[str]:
    return [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line]
