"""Make the lake of the first release that ``test_migrate.py`` opens.

Run it once, in a checkout of commit 86ee100: ``python make_first_lake.py first_lake.zip``. It runs that release's own
command line over the counting backbone: 32 files, of which one is no image and one cannot be decoded; then one more is
there, and one less.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

KEPT = ("photos", "home/catalog.sqlite", "home/data", "home/heads")  # not the backbone and MLflow's store


def main() -> None:
    """Run the pipeline twice in a folder of its own, and pack what it left."""
    with tempfile.TemporaryDirectory(prefix="frostline-first-") as folder:
        root = Path(folder)
        fill(root)
        pack(root, Path(sys.argv[1]))


def fill(root: Path) -> None:
    """Leave photos and a home with two models."""
    from tests.pictures import write_folder, write_image

    photos = write_folder(root / "photos", per_class=10)
    broken = photos / "red" / "broken.png"
    broken.write_bytes(b"no image")
    whole = write_image(photos / "red" / "cut.png", "red", 7).read_bytes()
    (photos / "red" / "cut.png").write_bytes(whole[:60])
    run(root)
    write_image(photos / "red" / "later.png", "red", 800)
    (photos / "blue" / "009.png").unlink()
    run(root)


def run(root: Path) -> None:
    """Run the release's command line, as a process of its own."""
    command = [sys.executable, "-m", "tests.counting", "run", "photos", "--home", "home"]
    checkout = os.getcwd()  # noqa: PTH109 - it goes into a variable
    variables = {"PYTHONPATH": checkout, "COUNTING_LOG": str(root / "calls"), "PREFECT_HOME": str(root / "prefect")}
    subprocess.run(command, cwd=root, env={**os.environ, **variables}, check=True)


def pack(root: Path, archive: Path) -> None:
    """Write the kept files, with their times, as a zip."""
    files = [file for name in KEPT for file in sorted((root / name).rglob("*")) or [root / name] if file.is_file()]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in files:
            packed.write(file, file.relative_to(root))


if __name__ == "__main__":
    main()
