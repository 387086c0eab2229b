"""Grids and points: every combination, in order, as JSON data; what is none is refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.notebook.grid import points

AXES = st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=4)


@given(axes=AXES)
def test_a_grid_has_every_combination_and_the_last_axis_varies_fastest(axes) -> None:
    found = nb.grid(**axes)
    assert len(found) == math.prod(map(len, axes.values()))
    assert all(list(point) == list(axes) for point in found)
    sizes = [len(axis) for axis in axes.values()]
    for number, point in enumerate(found):
        places = np.unravel_index(number, sizes)
        assert list(point.values()) == [axis[place] for axis, place in zip(axes.values(), places, strict=True)]


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({}, "no axes"),
        ({"a": []}, "a has no values"),
        ({"a": "text"}, r"write a list, a=\['text'\]"),
        ({"a": 3}, "one value"),
        ({"a": {"b": 1}}, "one"),
    ],
)
def test_a_grid_that_is_none_is_refused(axes, says) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        nb.grid(**axes)


def test_generators_and_arrays_are_axes() -> None:
    assert points(nb.grid(a=range(2), b=np.array([1.5]))) == [{"a": 0, "b": 1.5}, {"a": 1, "b": 1.5}]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ("text", "str cannot be mapped over"),
        ({"a": 1}, "dict cannot be mapped over"),
        (3, "int cannot be mapped over"),
        ([1], "item 0 is a int, not a mapping"),
        ([{"a": 1}, ["b"]], "item 1 is a list"),
        ([{"a": object()}], "item 0, 'a' is a builtins.object"),
        ([{"a": 1, "1": 2}, {1: 2, "1": 3}], "item 1 has two parameters that read '1'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column 'a'"),
    ],
)
def test_what_cannot_be_mapped_over_is_refused_and_named(items, says) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        points(items)


def test_a_parameter_that_would_be_overwritten_by_the_repeats_is_refused() -> None:
    assert points([{"repeat": 1}]) == [{"repeat": 1}]
    with pytest.raises(nb.ConfigError, match="'repeat', which numbers the repeats"):
        points([{"repeat": 1}], reserved=("repeat",))


def test_column_names_become_text_and_levels_are_joined() -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    assert points(frame) == [{"a.1": 1, "a.2": 2}]
    assert points(pd.DataFrame({0: [1], 1: ["x"]})) == [{"0": 1, "1": "x"}]
    assert list(points(pd.DataFrame({0: [1], None: ["x"]}))[0].values()) == [1, "x"]
    assert points(pd.DataFrame({"a": []})) == []
