"""The README's recording of a run: real commands over real images, as an SVG.

``python -m benchmarks.record`` writes ``docs/run.svg``. The images are scikit-learn's scanned digits, so nothing is
downloaded but the packages.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from flows.demo import write_digits

TARGET = Path(__file__).parents[1] / "docs" / "run.svg"
COMMANDS = ("plan digits", "run digits", "run digits")
WIDTH = 120
WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich's template loads a font from another host; a reader's own monospaced font will do."""


def main() -> None:
    """Run the commands in a temporary folder and write what a terminal shows."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_digits(root / "all")
        _copy_share(root / "all", root / "digits")
        console = Console(record=True, width=WIDTH, file=io.StringIO())
        for command in COMMANDS:
            console.print(Text(f"$ frostline {command}", "bold"))
            console.print(Text.from_ansi(_run(root, command)))
    svg = console.export_svg(title="frostline", theme=MONOKAI, unique_id="frostline")
    TARGET.write_text(WEB_FONT.sub("", svg), encoding="utf-8")
    print(TARGET)


def _copy_share(everything: Path, folder: Path) -> None:
    """Copy every sixth image: enough to show, and quick to record."""
    for path in sorted(everything.rglob("*.png"))[::6]:
        target = folder / path.relative_to(everything)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _run(folder: Path, command: str) -> str:
    """Run a command; returns its answer. Progress goes to stderr, where a terminal shows a bar and clears it."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.start", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip()


if __name__ == "__main__":
    main()
