"""Ratios, measured in turns and printed beside the machine; and whole processes, timed."""

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

LIBRARIES = ("torch", "torchvision", "timm", "simplejpeg", "duckdb", "pyarrow", "prefect", "mlflow", "daft", "ray")
RUNS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """Two sides, measured in turns, as pairs (ours, theirs); their ratio is the median of the pairs' ratios.

    It must reach the target, or, with ``at_most``, must not pass it.
    """

    name: str
    pairs: tuple[tuple[float, float], ...]
    target: float
    unit: str
    at_most: bool = False

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return median(ours / theirs for ours, theirs in self.pairs)

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def to_json(self) -> dict[str, Any]:
        """Give the ratio as plain data, both sides as medians."""
        ours, theirs = (median(side) for side in zip(*self.pairs, strict=True))
        sides = {"ours": ours, "theirs": theirs, "unit": self.unit, "n": len(self.pairs)}
        return {"name": self.name, "ratio": self.ratio, "target": self.target, "holds": self.holds, **sides}


@dataclass(frozen=True)
class Run:
    """One process: what it printed, how long it took, and how much memory its largest moment held."""

    answer: Any
    seconds: float
    peak_mb: float


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the command line that every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: ends within 45 seconds, for a first look")
    parser.add_argument("--json", action="store_true", help="a list of ratios on stdout, and nothing else")
    parser.add_argument("--runs", type=int, default=RUNS, help="how often the sides take turns")
    return parser


def run_benchmark(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Sequence[Ratio]]) -> None:
    """Measure as the command line says; print a table, or JSON. What is printed meanwhile goes to stderr."""
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        ratios = measure(options)
    if options.json:
        print(json.dumps([ratio.to_json() for ratio in ratios]))
    else:
        print_ratios(ratios)


def run_figures(
    doc: str | None,
    measure: Callable[[argparse.Namespace], dict[str, T]],
    describe: Callable[[dict[str, T]], Iterable[str]],
) -> None:
    """Measure figures that are no ratios, by name; print the lines that describe them, or JSON."""
    options = make_parser(doc).parse_args()
    figures = measure(options)
    if options.json:
        print(json.dumps(figures))
    else:
        print(describe_machine(), *describe(figures), sep="\n")


def interleave(runs: int, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
    """Measure the sides in turns, A B A B, so that what disturbs the machine disturbs all; a row a turn."""
    return [tuple(side() for side in sides) for _ in range(runs)]


def compare(runs: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[tuple[float, float], ...]:
    """Measure two sides in turns."""
    return tuple((mine, other) for mine, other in interleave(runs, ours, theirs))


def time_rate(count: float, work: Callable[[], object]) -> float:
    """Do some work; give how many a second it did."""
    return count / time_seconds(work)


def time_seconds(work: Callable[[], object]) -> float:
    """Do some work; give how long it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run_frostline(*arguments: str) -> Run:
    """Run ``frostline ARGUMENTS --json`` as a process of its own."""
    return run_python("-m", "flows.start", *arguments, "--json")


def obey_frostline(*arguments: str) -> Run:
    """Do what ``frostline ARGUMENTS --json`` does in this process, where imports are paid once."""
    from flows.command.app import run_command

    printed, began = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(printed):
        run_command([*arguments, "--json"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Run(json.loads(printed.getvalue()), time.perf_counter() - began, peak)


def run_python(*arguments: str) -> Run:
    """Run Python as a process of its own, which prints JSON."""
    command = [sys.executable, *arguments]
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
    """Name processor, cores, GPU, and the versions of what is installed."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    torch = sys.modules.get("torch")
    gpu = [torch.cuda.get_device_name()] if torch and torch.cuda.is_available() else ["no GPU"]
    versions = [f"{name} {found}" for name in LIBRARIES if (found := _find_version(name))]
    return ", ".join([model, f"{os.cpu_count()} cores", *gpu, f"Python {platform.python_version()}", *versions])


def _find_version(name: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return None


def print_ratios(ratios: Sequence[Ratio]) -> None:
    """Print a row a ratio, under the machine."""
    print(describe_machine())
    print(f"{'':56} {'ratio':>8} {'target':>9} {'holds':>6} {'ours':>10} {'theirs':>10}  unit, n")
    for ratio in ratios:
        row = ratio.to_json()
        target = f"{'<=' if ratio.at_most else '>='} {ratio.target:g}"
        sides = f"{row['ours']:>10.4g} {row['theirs']:>10.4g}  {ratio.unit}, {row['n']}"
        print(f"{ratio.name:56} {ratio.ratio:>8.4f} {target:>9} {'yes' if ratio.holds else 'NO':>6} {sides}")


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, under the machine."""
    print(describe_machine())
    for name, value in rows:
        print(f"{name:44} {value}")


def middle(values: Sequence[float]) -> str:
    """Write a median with its range and n."""
    return f"{median(values):.1f} (min {min(values):.1f}, max {max(values):.1f}, n = {len(values)})"
