"""The image formats, by their Pillow names, with the suffixes of their files."""

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "ICO": (".ico",),
}
FORMATS = tuple(ENDINGS)
SUFFIXES = tuple(suffix for endings in ENDINGS.values() for suffix in endings)
