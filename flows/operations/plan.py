"""What a run would compute, why, how long and how much disk. Writes nothing, and imports neither Prefect nor torch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.progress import show_progress
from flows.settings import RunSettings
from storage.care.lost_features import locate_lost
from storage.lake.attach import read_lake
from storage.tables.features import Pace, measure_pace
from storage.tables.missing import FeatureRequest, Missing, count_present, explain_missing
from storage.tables.scans import Scan
from tasks.embed.find_recipe import find_known
from tasks.encoder.backbone.weights import find_weights
from tasks.ingest.scan import scan

MOST = 5


@dataclass(frozen=True)
class Plan:
    """How many images a run would embed and reuse, themselves and each view, why, and what it would cost."""

    source: str
    recipe_id: str | None
    missing: tuple[Missing, ...]
    reuse: int
    failed: int
    pace: Pace | None

    @property
    def compute(self) -> int:
        """How many images would be embedded."""
        return sum(part.images for part in self.missing)

    @property
    def reasons(self) -> dict[str, int]:
        """How many of them for each reason, over all classes."""
        reasons = Counter[str]()
        for part in self.missing:
            reasons[part.reason] += part.images
        return dict(sorted(reasons.items()))

    def to_json(self) -> dict[str, Any]:
        """Give the object that ``frostline plan --json`` prints."""
        pace = self.pace if self.compute else Pace(1.0, 0.0)
        return {
            "source": self.source,
            "recipe": self.recipe_id,
            "compute": self.compute,
            "reuse": self.reuse,
            "failed": self.failed,
            "reasons": self.reasons,
            "missing": [{"class": part.label, "reason": part.reason, "images": part.images} for part in self.missing],
            "estimate": {
                "seconds": round(self.compute / pace.images_per_second, 3) if pace else None,
                "bytes": round(self.compute * pace.bytes_per_image) if pace else None,
            },
        }


def make_plan(settings: RunSettings) -> Plan:
    """Compare the source with the lake; new and changed files are read to know them, nothing is written."""
    home = settings.resolved_home
    weights = find_weights(home, settings.embed.backbone, settings.embed.weights)
    views = range(settings.embed.views + 1)
    recipes = [find_known(home, settings.embed, weights, view) for view in views]
    recipe_ids = [recipe.recipe_id if recipe else "" for recipe in recipes]
    found = scan(home, settings.source_name, settings.root, settings.ingest, show_progress, retry=settings.retry)
    with read_lake(home) as lake:
        wanted = [
            FeatureRequest(each, settings.source_name, settings.retry, lost=locate_lost(lake, each))
            for each in recipe_ids
        ]
        missing = _add_up([part for each in wanted for part in explain_missing(lake, each, found)])
        reuse = sum(count_present(lake, each, found) for each in wanted)
        pace = measure_pace(lake, recipe_ids[0] or None)
    return Plan(settings.source_name, recipe_ids[0] or None, missing, reuse, _count_failed(found), pace)


def _add_up(parts: Sequence[Missing]) -> tuple[Missing, ...]:
    """Add up what is missing of the images and of their views, by class and reason."""
    images = Counter[tuple[str | None, str]]()
    for part in parts:
        images[part.label, part.reason] += part.images
    return tuple(Missing(*key, count) for key, count in images.items())


def _count_failed(found: Scan) -> int:
    """Count the files that are no image, of those that were read now."""
    return int(found.reads.num_rows - found.reads["image_id"].drop_null().length())


def describe_plan(plan: Plan) -> list[str]:
    """Tell a plan in a few lines."""
    estimate = plan.to_json()["estimate"]
    cost = "unknown until the first images are embedded"
    if plan.pace or not plan.compute:
        cost = f"about {estimate['seconds']:.0f} s and {estimate['bytes'] / 1e6:.1f} MB, at the pace of the last shards"
    lines = [f"compute   {plan.compute}", f"reuse     {plan.reuse}"]
    return [*lines, *_describe_reasons(plan), f"cost      {cost}"]


def _describe_reasons(plan: Plan) -> Iterator[str]:
    """Tell each reason, with the classes that it concerns most."""
    for reason, count in plan.reasons.items():
        parts = sorted((part for part in plan.missing if part.reason == reason), key=lambda part: -part.images)
        classes = [f"{part.label or 'no class'} {part.images}" for part in parts]
        more = f", {len(classes) - MOST} more classes" if len(classes) > MOST else ""
        yield f"why       {count} {reason.replace('_', ' ')} ({', '.join(classes[:MOST])}{more})"
