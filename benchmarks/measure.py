"""Whole processes, timed: wall seconds and peak memory; and the machine that they ran on."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Run:
    """One process: what it printed, how long it took, and how much memory its largest moment held."""

    answer: dict[str, Any]
    seconds: float
    peak_mb: float


def run_frostline(*arguments: str) -> Run:
    """Run ``frostline ARGUMENTS --json`` as a process of its own."""
    command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return Run(json.loads(printed), seconds, usage.ru_maxrss / 1024)


def describe_machine() -> str:
    """Name processor, cores and versions."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "timm", "duckdb", "pyarrow", "prefect", "mlflow")
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, under the machine."""
    print(describe_machine())
    for name, value in rows:
        print(f"{name:44} {value}")


def middle(values: Sequence[float]) -> str:
    """Write a median with its range and n."""
    return f"{median(values):.1f} (min {min(values):.1f}, max {max(values):.1f}, n = {len(values)})"
