"""Canonical JSON: equal values have equal texts; other values are refused, naming their path."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.canonical import canonical, digest
from storage.errors import NotCanonicalError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# Few different leaves, so that two values drawn are often equal, or equal to Python alone: 1 == 1.0 == True.
SIMILAR: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 0.0, 1.0, "", "1", "True"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)


def same(one: object, other: object) -> bool:
    """Equal in type too: 1, 1.0 and True are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_the_order_of_keys_does_not_matter() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == canonical({"a": {"c": 3, "d": 2}, "b": 1})


def test_the_text_has_sorted_keys_and_no_spaces() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == r'{"a":"\u00e9","b":[1,2.5,null]}'


def test_a_tuple_is_a_list() -> None:
    assert canonical((1, (2,))) == canonical([1, [2]])


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, b"bytes", {1}, frozenset(), object(), 1j, int, range(3)]
)
def test_a_value_without_a_canonical_form_is_refused_naming_its_path(value: object) -> None:
    with pytest.raises(NotCanonicalError) as refused:
        canonical({"transform": {"mean": [0.5, value]}})
    assert "value.transform.mean[1]" in str(refused.value)
    assert type(value).__name__ in str(refused.value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"key", ("a",)])
def test_a_key_that_is_not_a_string_is_refused_naming_its_path(key: object) -> None:
    with pytest.raises(NotCanonicalError, match=r"value\.parts\[0\] has the key"):
        digest({"parts": [{key: 1}]})


def test_true_one_and_one_point_zero_are_three_values() -> None:
    values: list[object] = [True, 1, 1.0, "1"]
    assert len({digest(value) for value in values}) == 4


def test_digests_are_those_of_the_first_release() -> None:
    value = {
        "architecture": "timm/tf_efficientnet_lite0",
        "crop": (224, 224),
        "mean": [0.5],
        "squash": False,
        "é": None,
    }
    assert digest(value) == "2e84420edc34b33f1bdd8b189f61a98e"


@given(VALUES)
def test_the_text_parses_to_the_value(value: object) -> None:
    assert same(json.loads(canonical(value)), value)


@given(SIMILAR, SIMILAR)
def test_equal_values_have_equal_texts_and_others_do_not(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) == same(one, other)


@given(st.lists(st.tuples(st.text(), VALUES), unique_by=lambda pair: pair[0], max_size=5))
def test_the_digest_does_not_depend_on_the_order_of_keys(pairs: list[tuple[str, object]]) -> None:
    assert digest(dict(pairs)) == digest(dict(reversed(pairs)))
