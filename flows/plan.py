"""What a run would compute, why, how long and how much disk. Writes nothing, and imports neither Prefect nor torch."""

from dataclasses import dataclass
from typing import Any

from flows.progress import show_progress
from flows.settings import RunSettings
from storage.attach import read_lake
from storage.features import Pace, count_features_after, count_missing_after, measure_pace
from storage.files import Scan
from tasks.embed.plan import find_known
from tasks.embed.weights import find_weights
from tasks.ingest.scan import scan


@dataclass(frozen=True)
class Plan:
    """How many images a run would embed and reuse, why, and what it would cost."""

    recipe_id: str | None
    compute: int
    reuse: int
    failed: int
    reasons: dict[str, int]
    pace: Pace | None

    def to_json(self) -> dict[str, Any]:
        """Give the object that ``frostline plan --json`` prints."""
        pace = self.pace if self.compute else Pace(1.0, 0.0)
        return {
            "recipe": self.recipe_id,
            "compute": self.compute,
            "reuse": self.reuse,
            "failed": self.failed,
            "reasons": self.reasons,
            "estimate": {
                "seconds": round(self.compute / pace.images_per_second, 3) if pace else None,
                "bytes": round(self.compute * pace.bytes_per_image) if pace else None,
            },
        }


def make_plan(settings: RunSettings) -> Plan:
    """Compare the source with the lake; new and changed files are read to know them, nothing is written."""
    home = settings.place
    weights = find_weights(home, settings.embed.backbone, settings.embed.weights)
    recipe = find_known(home, settings.embed, weights)
    recipe_id = recipe.recipe_id if recipe else None
    found = scan(home, settings.title, settings.root, settings.ingest, show_progress, retry=settings.retry)
    with read_lake(home) as lake:
        reasons = count_missing_after(lake, recipe_id, found, retry=settings.retry)
        reuse = count_features_after(lake, recipe_id, found)
        pace = measure_pace(lake, recipe_id)
    compute = sum(reasons.values())
    return Plan(recipe_id, compute, reuse, _count_failed(found), reasons, pace)


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
    lines += [f"why       {count} {reason.replace('_', ' ')}" for reason, count in plan.reasons.items()]
    return [*lines, f"cost      {cost}"]
