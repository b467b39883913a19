"""The engine on a machine with little more than torch: a bare checkout, without Prefect, DuckDB or MLflow."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = ("prefect", "duckdb", "mlflow", "pydantic", "cyclopts", "rich", "timm", "simplejpeg", "safetensors", "sklearn")
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
runpy.run_module("benchmarks.embed", run_name="__main__", alter_sys=True)
"""
OPTIONS = ("--quick", "--json", "--generated", "--networks", "resnet50", "--images", "8", "--runs", "1")


def test_the_engines_benchmark_runs_with_little_more_than_torch_installed() -> None:
    command = [sys.executable, "-c", BARE, ",".join(ABSENT), *OPTIONS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ratios = json.loads(done.stdout)
    assert [ratio["name"].partition(": ")[2] for ratio in ratios] == [
        "files to Parquet / limit",
        "files to Parquet / tuned loop",
        "files to Parquet / usual loop",
    ]
    assert all(ratio["ours"] > 0 for ratio in ratios)
