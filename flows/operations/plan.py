"""What a run would compute, why, how long and how much disk. Writes nothing; imports neither Prefect nor torch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.progress import show_progress
from flows.settings import RunSettings
from storage.care.lost_features import locate_lost
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.tables.features import Pace, measure_pace
from storage.tables.missing import FeatureRequest, Missing, count_present, explain_missing
from storage.tables.scans import Scan
from tasks.embed.find_recipe import find_recorded_recipe
from tasks.encoder.backbone.weights import find_weights
from tasks.ingest.scan import scan

MAX_CLASSES = 5
"""Classes that a line of text names; JSON names all."""


@dataclass(frozen=True)
class Plan:
    """How many vectors a run would compute and reuse, of images and of their views, why, and at what cost.

    ``failed`` counts the files read for this plan that are not images; ``pace`` is None if nothing was embedded yet.
    """

    source: str
    recipe_id: str | None
    missing: tuple[Missing, ...]
    reuse: int
    failed: int
    pace: Pace | None

    @property
    def compute(self) -> int:
        """How many vectors would be computed."""
        return sum(part.images for part in self.missing)

    @property
    def reasons(self) -> dict[str, int]:
        """How many would be computed for each reason, over all classes."""
        reasons = Counter[str]()
        for part in self.missing:
            reasons[part.reason] += part.images
        return dict(sorted(reasons.items()))

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``frostline plan --json`` prints."""
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
    """Compare the source with the lake. Reads new and changed files to identify them, and writes nothing."""
    home, source = settings.resolved_home, settings.source_name
    recipe_ids = _find_recipes(home, settings)
    scanned = scan(home, source, settings.source_path, settings.ingest, show_progress, retry=settings.retry)
    with read_lake(home) as lake:
        requests = [
            FeatureRequest(recipe_id, source, settings.retry, lost=locate_lost(lake, recipe_id))
            for recipe_id in recipe_ids
        ]
        missing = _sum_by_class([part for request in requests for part in explain_missing(lake, request, scanned)])
        reuse = sum(count_present(lake, request, scanned) for request in requests)
        pace = measure_pace(lake, recipe_ids[0] or None)
    return Plan(source, recipe_ids[0] or None, missing, reuse, _count_failed(scanned), pace)


def describe_plan(plan: Plan) -> list[str]:
    """Describe a plan in a few lines."""
    estimate = plan.to_json()["estimate"]
    cost = "unknown until the first images are embedded"
    if plan.pace or not plan.compute:
        cost = f"about {estimate['seconds']:.0f} s and {estimate['bytes'] / 1e6:.1f} MB, at the pace of recent shards"
    lines = [f"compute   {plan.compute}", f"reuse     {plan.reuse}"]
    return [*lines, *_describe_reasons(plan), f"cost      {cost}"]


def _find_recipes(home: Home, settings: RunSettings) -> list[str]:
    """Find the recipe id of the images and of each view; empty if the recipe is new."""
    weights = find_weights(home, settings.embed.backbone, settings.embed.weights)
    recipes = [find_recorded_recipe(home, settings.embed, weights, view) for view in range(settings.embed.views + 1)]
    return [recipe.recipe_id if recipe else "" for recipe in recipes]


def _sum_by_class(parts: Sequence[Missing]) -> tuple[Missing, ...]:
    """Sum what is missing of the images and of their views, by class and reason."""
    images = Counter[tuple[str | None, str]]()
    for part in parts:
        images[part.label, part.reason] += part.images
    return tuple(Missing(*key, count) for key, count in images.items())


def _count_failed(scanned: Scan) -> int:
    """Count the files read by this scan that are not images."""
    return int(scanned.reads.num_rows - scanned.reads["image_id"].drop_null().length())


def _describe_reasons(plan: Plan) -> Iterator[str]:
    """Describe each reason, with the classes that it concerns most."""
    for reason, count in plan.reasons.items():
        parts = sorted((part for part in plan.missing if part.reason == reason), key=lambda part: -part.images)
        classes = [f"{part.label or 'no class'} {part.images}" for part in parts]
        hidden = len(classes) - MAX_CLASSES
        more = f", {pluralize(hidden, 'more class', 'more classes')}" if hidden > 0 else ""
        yield f"why       {count} {reason.replace('_', ' ')} ({', '.join(classes[:MAX_CLASSES])}{more})"
