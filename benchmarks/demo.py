"""Time and memory of the demo: ``python -m benchmarks.demo [--runs N] [--json]``."""

import argparse
import json
import tempfile

from benchmarks.measure import describe_machine, middle, print_table, run_frostline


def main() -> None:
    """Run the demo as a whole process, several times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as home:
            runs.append(run_frostline("demo", "--home", home))
    steps = [[part["seconds"]["total"] for part in run.answer["runs"]] for run in runs]
    rows = {
        "demo, whole process, s": [run.seconds for run in runs],
        "peak memory, MB": [run.peak_mb for run in runs],
        **{f"run {number}, s": [step[number - 1] for step in steps] for number in (1, 2, 3)},
        **{
            f"run {number}, test accuracy %": [
                100 * run.answer["runs"][number - 1]["metrics"]["accuracy"] for run in runs
            ]
            for number in (1, 3)
        },
    }
    if options.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))
    else:
        print_table([(name, middle(values)) for name, values in rows.items()])


if __name__ == "__main__":
    main()
