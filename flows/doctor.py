"""The doctor as a command: check, mend where asked, check again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.attach import reopen_lake
from storage.doctor import check_lake, seal_files
from storage.findings import Finding
from storage.lake import Lake
from storage.paths import Home
from tasks.embed.settings import EmbedSettings

ROUNDS = 4
"""What one repair lays bare, the next mends."""


@dataclass(frozen=True)
class Examined:
    """What is wrong now, and what was mended before."""

    findings: tuple[Finding, ...]
    mended: tuple[Finding, ...]
    sealed: int


def examine(home: Home, *, deep: bool, repair: bool, now: datetime) -> Examined:
    """Check the lake; with ``repair`` mend what can be, and give what is left."""
    mended: list[Finding] = []
    with reopen_lake(home) as lake:
        found = _check(lake, now, deep=deep)
        for _ in range(ROUNDS if repair else 0):
            mendable = [finding for finding in found if finding.mend]
            for finding in mendable:
                if finding.mend:
                    finding.mend(lake)
            mended += mendable
            found = _check(lake, now, deep=deep) if mendable else found
        sealed = seal_files(lake, now) if repair and not found else 0
    return Examined(tuple(found), tuple(mended), sealed)


def _check(lake: Lake, now: datetime, *, deep: bool) -> list[Finding]:
    found = check_lake(lake, now)
    from tasks.embed.verify import check_vectors, check_weights

    found += check_weights(lake)
    return [*found, *check_vectors(lake, EmbedSettings())] if deep and not found else found


def to_json(examined: Examined) -> dict[str, Any]:
    """Give the object that ``frostline doctor --json`` prints."""
    return {
        "sound": not examined.findings,
        "findings": [finding.to_json() for finding in examined.findings],
        "mended": [finding.to_json() for finding in examined.mended],
        "sealed": examined.sealed,
    }


def describe(examined: Examined) -> Sequence[str]:
    """Tell the findings, one a line."""
    lines = [f"mended    {finding.subject}: {finding.problem}" for finding in examined.mended]
    lines += [f"{found.kind}: {found.subject} {found.problem}. Repair: {found.repair}" for found in examined.findings]
    return [*lines, "sound" if not examined.findings else f"{len(examined.findings)} findings"]
