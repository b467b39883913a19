"""Shares as people read them: percentages and intervals."""

FINE = 1000
"""Number of images from which a tenth of a percent is worth showing."""


def percent(share: float, images: int) -> str:
    """Format a share of so many images: "94 %", or "94.3 %" of 1,000 images or more.

    Only a share of exactly 0 or 1 is written as 0 % or 100 %.
    """
    digits = int(images >= FINE)
    while 0 < share < 1 and float(f"{100 * share:.{digits}f}") in {0, 100} and digits < 6:  # noqa: PLR2004
        digits += 1
    return f"{100 * share:.{digits}f} %"


def interval(low: float, high: float, images: int) -> str:
    """Format the ends of an interval: "88 to 97 %"."""
    return f"{percent(low, images).removesuffix(' %')} to {percent(high, images)}"
