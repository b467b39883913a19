"""Counts in messages: 1 image, 1,200 images."""


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Return the count, with commas at thousands, and the noun in singular or plural, which by default ends in s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
