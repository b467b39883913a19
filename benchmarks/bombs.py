"""The memory and time that one small file can cost: ``python -m benchmarks.bombs``.

Each file is decoded by a process of its own, in one thread, as readers and served models decode it. The first ones were
made to cost a lot; the others are the largest of each format that the budget allows, or just refuses.
"""

import argparse
import base64
import json
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import describe_machine, make_parser, run_python
from storage.recipe import Transform
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.picture import explain

TRANSFORM = Transform(256, (224, 224), squash=False, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
MOST_BYTES, MOST_SECONDS = 1e9, 20.0
MB = 1e6
SIDE = 13_300  # just below what Pillow takes


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Write an image."""
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def make_png(side: int, depth: int, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG of zeros, row by row."""
    row = bytes(1 + (side * depth * {0: 1, 2: 3, 3: 1, 6: 4}[kind] + 7) // 8)
    packer = zlib.compressobj(1)
    content = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_pack(name, part) for name, part in parts)


def _pack(name: bytes, part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))


def make_icon() -> bytes:
    """Write an icon of 16 x 16 by its directory, with a PNG of 13,000 x 13,000 inside."""
    inside = make_png(13_000, 8, 6)
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def make_scans() -> bytes:
    """Write a progressive JPEG with 6,000 scans more than it needs."""
    data = encode(Image.new("L", (9000, 9000)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * 6000 + data[-2:]


def make_cut_jpeg() -> bytes:
    """Write a JPEG of 9,400 x 9,400 with the data of a small one."""
    data = encode(Image.new("RGB", (16, 16)), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 9400, 9400) + data[at + 9 :]


def make_turned() -> bytes:
    """Write a large JPEG that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(Image.new("RGB", (9400, 9400), (200, 30, 90)), "JPEG", exif=exif)


def draw(side: int, mode: str = "RGB") -> Image.Image:
    """Draw a smooth square."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(ramp, (side, side))).convert(mode)


BOMBS: dict[str, Callable[[], bytes]] = {
    "WebP of 34 bytes": lambda: base64.b16decode(
        b"524946461A000000574542505650384C0E0000002FF3F3FC0C071011FD0F4444FF03"
    ),
    "JPEG of 9,400 x 9,400 in 700 bytes": make_cut_jpeg,
    "palette PNG with transparency": lambda: make_png(13_370, 1, 3, (b"PLTE", bytes(6)), (b"tRNS", b"\0\x76")),
    "GIF with a large screen": lambda: base64.b16decode(
        b"474946383761F433F4338000000000000000002C000000001000100040081D0001081C48B0A0C183"
        b"08132A5CC8B0A1C38710234A9C48B1A2C581"
        b"0101003B"
    ),
    "ICO with a large PNG inside": make_icon,
    "progressive JPEG of 6,000 scans": make_scans,
    "RGBA PNG": lambda: make_png(SIDE, 8, 6),
    "16-bit grey PNG with a clear level": lambda: make_png(SIDE, 16, 0, (b"tRNS", b"\0\0")),
    "16-bit RGB PNG with a clear color, 6,800": lambda: make_png(6_800, 16, 2, (b"tRNS", bytes(6))),
    "JPEG, turned": make_turned,
    "CMYK JPEG": lambda: encode(draw(9_400, "CMYK"), "JPEG"),
    "progressive JPEG, 4:4:4, 9,400": lambda: encode(draw(9_400), "JPEG", progressive=True, subsampling=0),
    "WebP, 6,000": lambda: encode(draw(6_000), "WEBP", lossless=True, method=0, quality=0),
    "AVIF, 5,500": lambda: encode(draw(5_500), "AVIF", speed=10),
    "JPEG 2000, 5,500": lambda: encode(draw(5_500), "JPEG2000"),
    "TIFF, turned, 9,400": lambda: encode(draw(9_400), "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
    "plain PGM, 3,000": lambda: b"P2\n3000 3000\n255\n" + b"7 " * 9_000_000,
    "10-bit PGM, 9,000": lambda: b"P5\n9000 9000\n1023\n" + bytes(2 * 9_000 * 9_000),
}


def main() -> None:
    """Decode each file by itself; with ``--one`` be one of the processes."""
    parser = make_parser(__doc__)
    parser.add_argument("--one", metavar="FILE", help="decode this file and end: what is measured")
    parser.add_argument("--only", metavar="TEXT", default="", help="only files whose name has this in it")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(Path(options.one))))
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    """Make the files in turn, and print a row for each."""
    if not options.json:
        print(describe_machine())
        print("| file | bytes | peak above baseline, MB | seconds | of the CPU | answer |\n|---|---|---|---|---|---|")
    rows = []
    for name, make in BOMBS.items():
        if options.only not in name:
            continue
        with tempfile.NamedTemporaryFile() as file:
            file.write(make())
            file.flush()
            row = run_python("-m", "benchmarks.bombs", "--one", file.name).answer
        rows.append({"name": name, **row, "holds": row["peak"] <= MOST_BYTES and row["seconds"] <= MOST_SECONDS})
        if not options.json:
            peak = f"{row['peak'] / MB:,.0f}"
            print(
                f"| {name} | {row['bytes']:,} | {peak} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['answer']} |",
                flush=True,
            )
    if options.json:
        print(json.dumps(rows))


def measure(path: Path) -> dict[str, object]:
    """Decode a file; the baseline is a process that has decoded a small image of each way."""
    data = path.read_bytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        decode(encode(draw(300), kind), TRANSFORM)
    baseline, began, cpu = read_memory("VmRSS"), time.perf_counter(), time.process_time()
    try:
        decode(data, TRANSFORM)
        answer = "decoded"
    except Exception as error:  # noqa: BLE001 - what is measured
        answer = f"refused: {explain(error)}"
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = max(read_memory("VmHWM") - baseline, 0)
    return {"bytes": len(data), "peak": peak, "seconds": seconds, "cpu": cpu, "answer": answer}


def read_memory(kind: str) -> int:
    """Read the memory that this process has now (VmRSS) or had at most (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


if __name__ == "__main__":
    main()
