"""What a run would compute, why, how long and how much disk, and what it would be refused for.

Writes nothing; imports neither Prefect nor torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from flows.operations.space import Room, format_bytes, measure_room
from flows.progress import show_progress
from flows.settings import RunSettings
from storage.errors import FrostlineError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.queries.scan_effects import ScanEffects, find_effects
from storage.recipe import Recipe
from storage.tables.features import Pace, measure_pace
from storage.tables.lost_files import locate_lost
from storage.tables.missing import FeatureRequest, Missing, count_present, explain_missing
from storage.tables.models import find_champions_training
from storage.tables.scans import Scan, count_labels_after
from tasks.embed.find_recipe import find_recorded_recipe
from tasks.embed.foresee import foresee_recipe, needs_look
from tasks.encoder.backbone.weights import find_weights
from tasks.ingest.scan import ScanOptions, list_refusals, scan
from tasks.train.rows.coverage import forecast_warnings

T = TypeVar("T")

MAX_CLASSES = 5
"""Classes that a line of text names; JSON names all."""
UNSUPPORTED = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".ai", ".eps", ".raw", ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw"),
    *(".arw", ".srf", ".sr2", ".orf", ".raf", ".rw2", ".pef", ".3fr", ".iiq", ".x3f", ".erf", ".mrw"),
)
"""Suffixes of images that Frostline does not read; it reads what Pillow opens."""


@dataclass(frozen=True)
class ChampionWork:
    """How many features a run would compute under the recipes of the champion, if it stays the champion.

    Attributes:
        version: The champion.
        compute: How many features of images and views it lacks.
        seconds: About how long that takes; None if the pace is not known.
    """

    version: int
    compute: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """How many vectors a run would compute and reuse, of images and of their views, why, and at what cost.

    Attributes:
        source: The name of the source.
        recipe_id: The recipe; None if the lake does not have it yet.
        missing: What would be computed, by class and reason.
        reuse: How many vectors would be reused.
        failed: How many of the files that were read for this plan are not images.
        pace: What recent images took; None if nothing was embedded yet.
        skipped: How many files would be ignored, by suffix.
        unreadable: Folders and files that cannot be read, with the reasons.
        champion: What the run would embed for the champion, besides; None if it uses the same features.
        effects: What would change in the labels, and the files that add nothing.
        layout: What the folders of the source mean.
        room: The disk space that is needed and free.
        warnings: What was decided about the folders, and what a training would warn about.
        refusals: Why a run would be refused: the messages of its errors.
    """

    source: str
    recipe_id: str | None
    missing: tuple[Missing, ...]
    reuse: int
    failed: int
    pace: Pace | None
    champion: ChampionWork | None
    skipped: Mapping[str, int]
    unreadable: tuple[tuple[str, str], ...]
    effects: ScanEffects
    layout: str
    room: Room
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

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
            "champion": asdict(self.champion) if self.champion else None,
            "layout": self.layout,
            "disk": self.room.to_json(),
            "skipped": dict(self.skipped),
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
            **asdict(self.effects),
            "warnings": list(self.warnings),
            "refusals": list(self.refusals),
        }


class _Refusals:
    """Runs checks, and collects the messages of those that fail."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def check(self, function: Callable[[], T]) -> T | None:
        """Return the function's value; None if it is refused."""
        try:
            return function()
        except FrostlineError as error:
            if str(error) not in self.messages:
                self.messages.append(str(error))
            return None


def make_plan(settings: RunSettings) -> Plan:
    """Compare the source with the lake, and check what a run would check.

    Reads new and changed files to identify them, and writes nothing.

    Raises:
        SourceError: if there is no folder, or no image in it.
        LakeError: if the lake cannot be read.
    """
    home, source, refusals = settings.resolved_home, settings.source_name, _Refusals()
    refusals.check(settings.check)
    refusals.check(home.check)
    of_weights = _Refusals()  # an unknown network is the better message
    weights = of_weights.check(lambda: find_weights(home, settings.embed.backbone, settings.embed.weights))
    recipes = [find_recorded_recipe(home, settings.embed, weights, view) for view in range(settings.embed.views + 1)]
    recipe = recipes[0]
    if needs_look(settings.embed, recipe):
        recipe = refusals.check(lambda: foresee_recipe(settings.embed, weights)) or recipe
    refusals.messages += of_weights.messages
    options = ScanOptions(settings.retry, settings.rehash)
    scanned = scan(home, source, settings.source_path, settings.ingest, show_progress, options)
    refused = list_refusals(home, scanned, settings.ingest, accept_gone=settings.accept_gone)
    refusals.messages += map(str, refused)
    missing, reuse, effects, pace = _compare(home, settings, recipes, scanned)
    champion = _compare_champion(home, settings, recipes, scanned)
    room = measure_room(home, sum(part.images for part in missing), recipe, weights)
    refusals.check(room.check)
    of_labels = refusals if not scanned.listing.doubt else _Refusals()  # which classes there are is in doubt, too
    return Plan(
        source,
        recipes[0].recipe_id if recipes[0] else None,
        missing,
        reuse,
        _count_failed(scanned),
        pace,
        champion,
        scanned.listing.skipped,
        (*scanned.listing.unreadable, *_list_unread(scanned)),
        effects,
        scanned.listing.layout,
        room,
        (*_describe_layout(scanned), *(of_labels.check(lambda: _check_labels(home, settings, scanned)) or ())),
        tuple(refusals.messages),
    )


def _compare(
    home: Home, settings: RunSettings, recipes: Sequence[Recipe | None], scanned: Scan
) -> tuple[tuple[Missing, ...], int, ScanEffects, Pace | None]:
    """Count what would be computed, how many vectors would be reused, and what would change; estimate the pace."""
    recipe_ids = [recipe.recipe_id if recipe else "" for recipe in recipes]
    with read_lake(home) as lake:
        requests = [
            FeatureRequest(recipe_id, settings.source_name, settings.retry, lost=locate_lost(lake, recipe_id))
            for recipe_id in recipe_ids
        ]
        missing = _sum_by_class([part for request in requests for part in explain_missing(lake, request, scanned)])
        reuse = sum(count_present(lake, request, scanned) for request in requests)
        effects = find_effects(lake, scanned)
        if settings.train.multi_label:
            effects = replace(effects, conflicting=0)
        return missing, reuse, effects, measure_pace(lake, recipe_ids[0] or None)


def _compare_champion(
    home: Home, settings: RunSettings, recipes: Sequence[Recipe | None], scanned: Scan
) -> ChampionWork | None:
    """Count what the run would compute so that the champion predicts every image of the source."""
    with read_lake(home) as lake:
        champion = find_champions_training(lake, settings.model_name)
        if champion is None or settings.registry.champion_predicts == "embedded":
            return None
        version, training = champion
        others = set(training.input_recipes) - {recipe.recipe_id for recipe in recipes if recipe}
        requests = [
            FeatureRequest(recipe_id, settings.source_name, settings.retry, lost=locate_lost(lake, recipe_id))
            for recipe_id in sorted(others)
        ]
        compute = sum(part.images for request in requests for part in explain_missing(lake, request, scanned))
        pace = measure_pace(lake, training.recipe_id)
    seconds = round(compute / pace.images_per_second, 3) if pace else None
    return ChampionWork(version, compute, seconds) if compute else None


def _check_labels(home: Home, settings: RunSettings, scanned: Scan) -> tuple[str, ...]:
    """Return what a training would warn about, as far as the numbers of images tell.

    Raises:
        TrainError: if the labels cannot be trained on.
    """
    with read_lake(home) as lake:
        images = count_labels_after(lake, scanned, several=settings.train.multi_label)
    return forecast_warnings(images, settings.train)


def _describe_layout(scanned: Scan) -> tuple[str, ...]:
    listing = scanned.listing
    note = "assumed in this plan, until you say which is meant" if listing.doubt else listing.note
    return (f"layout {listing.layout}: {note}",) if note else ()


def _sum_by_class(parts: Sequence[Missing]) -> tuple[Missing, ...]:
    """Sum what is missing of the images and of their views, by class and reason."""
    images = Counter[tuple[str | None, str]]()
    for part in parts:
        images[part.label, part.reason] += part.images
    return tuple(Missing(*key, count) for key, count in images.items())


def _count_failed(scanned: Scan) -> int:
    """Count the files read by this scan that are not images."""
    return int(scanned.reads.num_rows - scanned.reads["image_id"].drop_null().length())


def _list_unread(scanned: Scan) -> Iterator[tuple[str, str]]:
    """List the files that could not be read at all, with the reasons."""
    for read in scanned.reads.select(["path", "stage", "reason"]).to_pylist():
        if read["stage"] == "read":
            yield read["path"], read["reason"]


def describe_plan(plan: Plan) -> list[str]:
    """Describe a plan in a few lines."""
    estimate = plan.to_json()["estimate"]
    cost = "unknown until the first images are embedded"
    if plan.pace or not plan.compute:
        cost = f"about {estimate['seconds']:.0f} s and {estimate['bytes'] / 1e6:.1f} MB, at the pace of recent shards"
    return [
        f"compute   {plan.compute}",
        f"reuse     {plan.reuse}",
        *_describe_reasons(plan),
        f"cost      {cost}",
        *_describe_champion(plan.champion),
        f"disk      at least {format_bytes(plan.room.needed)} needed · {format_bytes(plan.room.free)} free",
        *_describe_lost(plan),
        *(f"warning   {warning}" for warning in plan.warnings),
        *(f"refused   {message}" for message in plan.refusals),
    ]


def _describe_champion(work: ChampionWork | None) -> Iterator[str]:
    """Describe what the champion needs, in one line; nothing if it needs nothing."""
    if work:
        cost = "" if work.seconds is None else f", about {work.seconds:.0f} s"
        features = pluralize(work.compute, "more feature")
        yield f"champion  {features} for version {work.version}, unless it is replaced{cost}"


def _describe_reasons(plan: Plan) -> Iterator[str]:
    """Describe each reason, with the classes that it concerns most."""
    for reason, count in plan.reasons.items():
        parts = sorted((part for part in plan.missing if part.reason == reason), key=lambda part: -part.images)
        classes = [f"{part.label or 'no class'} {part.images}" for part in parts]
        hidden = len(classes) - MAX_CLASSES
        more = f", {pluralize(hidden, 'more class', 'more classes')}" if hidden > 0 else ""
        yield f"why       {reason.replace('_', ' ')}: {count} ({', '.join(classes[:MAX_CLASSES])}{more})"


def _describe_lost(plan: Plan) -> Iterator[str]:
    """Describe what the run would change or make no use of; nothing if there is none."""
    images = {suffix: count for suffix, count in plan.skipped.items() if suffix in UNSUPPORTED}
    others = sum(plan.skipped.values()) - sum(images.values())
    if images:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(images.items(), key=lambda part: -part[1]))
        files = pluralize(sum(images.values()), "image")
        yield f"skipped   {files} of a type that Frostline does not read ({kinds}): convert them to JPEG, PNG or TIFF"
    if others:
        yield f"skipped   {pluralize(others, 'other file')}"
    if plan.failed:
        yield f"failed    {pluralize(plan.failed, 'file')} that cannot be read as images"
    for path, reason in plan.unreadable[:MAX_CLASSES]:
        yield f"unread    {path or 'the folder itself'}: {reason}"
    if len(plan.unreadable) > MAX_CLASSES:
        more = pluralize(len(plan.unreadable) - MAX_CLASSES, "more file or folder", "more files and folders")
        yield f"unread    {more}: see --json"
    effects = plan.effects
    if effects.relabelled:
        yield f"labels    {pluralize(effects.relabelled, 'image')} moved to other classes"
    if effects.conflicting:
        yield f"conflicts {pluralize(effects.conflicting, 'image')} in several classes: left out of training"
    if effects.duplicates:
        yield f"copies    {pluralize(effects.duplicates, 'file')} with the same bytes as another: counted once"
    if effects.vanished:
        yield f"vanished  {pluralize(effects.vanished, 'file')} of the last scan"
