"""The doctor: check the lake, repair it, check again. Imports no Prefect, and torch only if needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from flows.progress import show_progress
from flows.settings import restore_train_settings
from storage.care.doctor import can_read, check_lake, check_pages, list_lost_heads
from storage.care.row_checks import Finding
from storage.lake.attach import open_lake, read_existing_lake
from storage.lake.checksums import record_checksums
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.tables.trainings import Training, head_path
from tasks.register.registry.packages import check_model_packages

MAX_REPAIRS = 4
"""A repair can uncover the next problem: rows are checked only once their files can be read."""
SEED = 0


@dataclass(frozen=True)
class CheckResult:
    """A problem, and whether it was repaired."""

    finding: Finding
    repaired: bool


def examine(home: Home, now: datetime, *, deep: bool = False, repair: bool = False) -> list[CheckResult]:
    """Check the lake; with ``repair``, repair what can be repaired until a check finds nothing new.

    Raises:
        LakeError: if the home has no lake.
    """
    with read_existing_lake(home) as lake:
        if not repair:
            return [CheckResult(finding, repaired=False) for finding in check(lake, now, deep=deep)]
    return _repair(home, now, deep=deep)


def check(lake: Lake, now: datetime, *, deep: bool) -> list[Finding]:
    """Check catalog, files, rows and heads; with ``deep`` also every page of the features and a sample of vectors."""
    findings = check_lake(lake, now, partial(show_progress, unit="file"))
    if not _has(findings, "file"):
        findings += [*check_heads(lake, now), *check_models(lake)]
    if deep and not _has(findings, "file"):
        findings += check_pages(lake)
    if deep and not _has(findings, "file", "backbone", "recipe"):
        from tasks.embed.checks.audit import check_vectors

        findings += check_vectors(lake, SEED, now)
    return findings


def check_heads(lake: Lake, now: datetime) -> Iterator[Finding]:
    """Find heads whose files are gone; the repair trains them again on the rows of their snapshot."""
    for head in list_lost_heads(lake):
        what = f"head {head.training_id} of {head.label_set}: its file or its metrics are missing or damaged"
        if can_read(lake.home, head):
            repair = f"train it again on the rows of snapshot {head.snapshot}"
            yield Finding("head", what, repair, partial(_train_again, lake.home, head, now))
        else:
            yield Finding("head", what, f"restore it from a backup: snapshot {head.snapshot} cannot be read any more")


def check_models(lake: Lake) -> Iterator[Finding]:
    """Find registered models that are missing from the home's MLflow store."""
    if lake.home.registry_database.is_file():
        yield from check_model_packages(lake)


def to_json(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Return the object that ``frostline doctor --json`` prints."""
    findings = [
        {name: getattr(result.finding, name) for name in ("check", "what", "repair")} | {"repaired": result.repaired}
        for result in results
    ]
    return {"sound": is_sound(results), "findings": findings}


def is_sound(results: Sequence[CheckResult]) -> bool:
    """Return whether nothing is wrong, or everything that was wrong has been repaired."""
    return all(result.repaired for result in results)


def describe_checks(results: Sequence[CheckResult], *, repair: bool) -> list[str]:
    """Describe each finding in one line, and their number in the last."""
    if not results:
        return ["sound"]
    lines = [_describe(result, repair=repair) for result in results]
    total = pluralize(len(results), "finding")
    if repair:
        return [*lines, f"{total}, {sum(result.repaired for result in results)} repaired"]
    return [*lines, f"{total}; `frostline doctor --repair` repairs what it can"]


def _describe(result: CheckResult, *, repair: bool) -> str:
    finding = result.finding
    mark = ("repaired · " if result.repaired else "not repaired · ") if repair else ""
    return f"{mark}{finding.check} · {finding.what}. Repair: {finding.repair}"


def _has(findings: Sequence[Finding], *checks: str) -> bool:
    return any(finding.check in checks for finding in findings)


def _repair(home: Home, now: datetime, *, deep: bool) -> list[CheckResult]:
    found: dict[Finding, None] = {}
    for number in range(MAX_REPAIRS + 1):
        with open_lake(home) as lake:
            remaining = check(lake, now, deep=deep)
            found |= dict.fromkeys(remaining)
            if number == MAX_REPAIRS or not any(finding.fix for finding in remaining):
                break
            _run_repairs(remaining)
    if not _has(remaining, "file"):
        with open_lake(home) as lake:
            record_checksums(lake, now)
    return [CheckResult(finding, repaired=finding not in remaining) for finding in found]


def _run_repairs(findings: Sequence[Finding]) -> None:
    """Run each repair once, even if several findings share it."""
    for mend in dict.fromkeys(finding.fix for finding in findings if finding.fix):
        mend()


def _train_again(home: Home, head: Training, now: datetime) -> None:
    from tasks.train.train import TrainingData, train_head

    head_path(home, head.training_id).unlink(missing_ok=True)  # a damaged file must not count as trained
    data = TrainingData(head.label_set, head.recipe_id, head.views, head.snapshot)
    train_head(home, data, restore_train_settings(head.settings), now)
