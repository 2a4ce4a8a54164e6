"""Arguments come back equal, whatever they are."""

from __future__ import annotations

import unittest
from typing import Any

import asyncq
from asyncq import _json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from place import Place

text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types: 1 is not True, and not 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


class Properties(Place):
    def test_arguments_come_back_equal(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef echo(*args, **kwargs): return [list(args), kwargs]\n")
        calls: list[tuple[Any, Any, asyncq.Job[Any]]] = []

        @settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(values, max_size=4), st.dictionaries(st.from_regex("[a-z]+", fullmatch=True), values, max_size=3))
        def enqueue(args: list[Any], kwargs: dict[str, Any]) -> None:
            calls.append((args, kwargs, shop.echo.enqueue(*args, **kwargs)))

        enqueue()
        self.drain()
        for args, kwargs, job in calls:
            self.assertTrue(same(job.wait(20), [args, kwargs]), (args, kwargs, job.result))

    @settings(max_examples=500, deadline=None, database=None)
    @given(values)
    def test_what_is_refused_here_is_what_the_store_refuses(self, value: Any) -> None:
        self.assertTrue(same(_json.decode(_json.encode(value)), value))


if __name__ == "__main__":
    unittest.main()
