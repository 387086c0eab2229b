"""Results as JSON data."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import subprocess
import sys
from collections import OrderedDict, namedtuple

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents.jsonable import MAX_BYTES, jsonable
from agentnb.errors import ConfigError


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    where: pathlib.Path


class Model(pydantic.BaseModel):
    at: dt.date
    score: float = math.inf


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - that is what people use

STAMP = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Colour.RED, "red"),
        (Point(1, pathlib.Path("a/b")), {"x": 1, "where": "a/b"}),
        (Model(at=dt.date(2026, 1, 2)), {"at": "2026-01-02", "score": None}),
        (Pair(1, (2, 3)), {"left": 1, "right": [2, 3]}),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset(["a"]), ["a"]),
        (STAMP, "2026-01-02T00:00:00+00:00"),
        (dt.timedelta(minutes=1), 60.0),
        (decimal.Decimal("1.10"), "1.10"),
        (OrderedDict(a=1), {"a": 1}),
        ({2: "a", None: "b", Colour.RED: "d"}, {"2": "a", "null": "b", "red": "d"}),
        ([math.nan, math.inf, -math.inf], [None, None, None]),
        ("a\udc80b", "a?b"),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["2026-01-02", "NaT"], dtype="M8[ns]"), ["2026-01-02T00:00:00", None]),
        (np.timedelta64(1500, "ms"), 1.5),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        (pd.Series([1.5, None]), [1.5, None]),
        (pd.Series([1, 2], index=["a", "b"]), {"a": 1, "b": 2}),
        (pd.Timestamp(STAMP), "2026-01-02T00:00:00+00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timedelta("1s"), 1.0),
    ],
)
def test_common_values_become_the_json_one_expects(value: object, data: object) -> None:
    found = jsonable(value, "the result")
    assert found == data
    assert json.loads(json.dumps(found, allow_nan=False)) == data


TEXT = st.text(st.characters(codec="utf-8"))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_json_data_stays_what_it_is(value: object) -> None:
    assert jsonable(value, "it") == value


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"x", "decode"),
        (object(), "builtins.object"),
        ({(1, 2): 3}, "keys must be text"),
        ({1: 2, "1": 3}, "two keys"),
        (print, "parentheses"),
        (iter([1]), "return a list"),
        (1j, "complex"),
        ("x" * (MAX_BYTES + 1), "ctx.artifact"),
        ({"a": [0, {"b": open}]}, "the result['a'][1]['b']"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_the_place_and_advice(value: object, part: str) -> None:
    with pytest.raises(ConfigError, match="the result") as caught:
        jsonable(value, "the result")
    assert part in str(caught.value)
    assert "ctx.artifact" in str(caught.value)


def test_a_list_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="contains itself"):
        jsonable(loop, "the result")


def test_the_child_modules_import_nothing_heavy() -> None:
    code = "import sys, agentnb.agents.python_child, agentnb.agents.local_child; print(*sys.modules)"
    home = pathlib.Path(__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "numpy", "pydantic", "inspect", "dataclasses", "asyncio", "typing_extensions", "xllamacpp", "cloudpickle"} & set(
        loaded
    )
