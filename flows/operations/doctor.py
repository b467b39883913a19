"""The doctor: check the lake, repair what can be, check again. Imports no Prefect, and torch only where it must."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from flows.progress import show_progress
from flows.settings import recall_settings
from storage.care.doctor import can_read, check_lake, check_pages, list_lost_heads
from storage.care.row_checks import Finding
from storage.lake.attach import open_lake, read_existing_lake
from storage.lake.checksums import seal_files
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.trainings import Training, head_path

ROUNDS = 4
"""A repair lays bare what it hid: rows are checked once their files can be read."""
SEED = 0


@dataclass(frozen=True)
class CheckResult:
    """What is wrong, and whether it was repaired."""

    finding: Finding
    repaired: bool


def examine(home: Home, now: datetime, *, deep: bool = False, repair: bool = False) -> list[CheckResult]:
    """Check the lake; with ``repair`` mend what can be until a check finds nothing new."""
    with read_existing_lake(home) as lake:
        if not repair:
            return [CheckResult(finding, repaired=False) for finding in check(lake, now, deep=deep)]
    seen: dict[Finding, None] = {}
    for round_ in range(ROUNDS + 1):
        with open_lake(home) as lake:
            left = check(lake, now, deep=deep)
            seen |= dict.fromkeys(left)
            if round_ == ROUNDS or not any(finding.mend for finding in left):
                break
            mend_all(left)
    if all(finding.check != "file" for finding in left):
        with open_lake(home) as lake:
            seal_files(lake, now)
    return [CheckResult(finding, repaired=finding not in left) for finding in seen]


def check(lake: Lake, now: datetime, *, deep: bool) -> list[Finding]:
    """Check catalog, files, rows and heads; with ``deep`` also every page of the features, and a sample of vectors."""
    found = check_lake(lake, now, partial(show_progress, unit="files"))
    if all(finding.check != "file" for finding in found):
        found += [*check_heads(lake, now), *check_models(lake)]
    if deep:
        broken = {finding.what for finding in found if finding.check == "file"}
        if not broken:
            found += check_pages(lake)
        if all(finding.check not in ("file", "backbone", "recipe") for finding in found):
            from tasks.embed.audit import check_vectors

            found += check_vectors(lake, SEED, now)
    return found


def check_heads(lake: Lake, now: datetime) -> Iterator[Finding]:
    """Find heads whose files are gone; they are trained again from the rows of their snapshot."""
    for head in list_lost_heads(lake):
        what = f"head {head.training_id} of {head.label_set}: its file or its figures are gone or broken"
        if can_read(lake.home, head):
            repair = f"it is trained again on the rows of snapshot {head.snapshot}"
            yield Finding("head", what, repair, partial(_train_again, lake.home, head, now))
        else:
            yield Finding("head", what, f"restore it from a backup: snapshot {head.snapshot} cannot be read any more")


def check_models(lake: Lake) -> Iterator[Finding]:
    """Find registered models that the home's own MLflow store has no more; needs MLflow where there are any."""
    if (lake.home.registry / "mlflow.db").is_file() and lake.value("SELECT count(*) FROM models"):
        from tasks.register.registry.client import check_packages

        yield from check_packages(lake)


def mend_all(found: Sequence[Finding]) -> None:
    """Do each repair once, though several findings may share it."""
    for mend in dict.fromkeys(finding.mend for finding in found if finding.mend):
        mend()


def to_json(outcomes: Sequence[CheckResult]) -> dict[str, Any]:
    """Give the object that ``frostline doctor --json`` prints."""
    findings = [
        {name: getattr(outcome.finding, name) for name in ("check", "what", "repair")} | {"repaired": outcome.repaired}
        for outcome in outcomes
    ]
    return {"sound": is_sound(outcomes), "findings": findings}


def is_sound(outcomes: Sequence[CheckResult]) -> bool:
    """Tell whether nothing is wrong any more."""
    return all(outcome.repaired for outcome in outcomes)


def describe(outcomes: Sequence[CheckResult], *, repair: bool) -> list[str]:
    """Tell each finding in a line."""
    if not outcomes:
        return ["sound"]
    lines = [_tell(outcome, repair=repair) for outcome in outcomes]
    repaired = sum(outcome.repaired for outcome in outcomes)
    count = f"{len(outcomes)} finding{'s' if len(outcomes) > 1 else ''}"
    end = f"{count}, {repaired} repaired" if repair else count
    hint = "" if repair else "; `frostline doctor --repair` does what is named as repair"
    return [*lines, f"{end}{hint}"]


def _tell(outcome: CheckResult, *, repair: bool) -> str:
    found = outcome.finding
    mark = ("repaired · " if outcome.repaired else "not repaired · ") if repair else ""
    return f"{mark}{found.check} · {found.what}. Repair: {found.repair}"


def _train_again(home: Home, head: Training, now: datetime) -> None:
    from tasks.train.train import TrainingData, train_head

    head_path(home, head.training_id).unlink(missing_ok=True)  # lest a broken one counts as known
    data = TrainingData(head.label_set, head.recipe_id, head.views, head.snapshot)
    train_head(home, data, recall_settings(head.settings), now)
