"""Canonical JSON: equal values have equal texts, so that a hash of the text is an identity."""

import hashlib
import json
import math

from storage.errors import NotCanonicalError


def canonical(value: object) -> str:
    """Return plain data as JSON with sorted keys and no spaces.

    Floats are in Python's shortest round-trip form; 1 and 1.0 are different values.

    Raises:
        NotCanonicalError: if a value is not None, bool, int, finite float, str, list, tuple or dict of str keys.
    """
    _check(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """Return the first 128 bits of the SHA-256 of the canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def _check(value: object, where: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotCanonicalError(f"{where} has the key {key!r}", "keys are strings", "Name it by a string")
            _check(item, f"{where}.{key}")
        return
    raise NotCanonicalError(
        f"{where} = {value!r} ({type(value).__name__})",
        "an identity is made of null, booleans, integers, finite numbers, strings, lists and objects alone",
        "Give it as one of these",
    )
