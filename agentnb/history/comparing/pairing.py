"""Which runs of different groups belong together: those with equal values of the key columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agentnb.history.comparing.resampling import Array

_PARAMETER = "param."


@dataclass(frozen=True, slots=True)
class Pairing:
    """The key columns, and for each row the number of its pair: equal for rows of different groups that belong together."""

    columns: list[Any]
    numbers: Array

    def match(self, places: Array, others: Array) -> tuple[Array, Array]:
        """Those of the rows `places`, and of `others` in the same order, that have a partner."""
        _, mine, theirs = np.intersect1d(self.numbers[places], self.numbers[others], assume_unique=True, return_indices=True)
        return places[mine], others[theirs]


def numbered(df: pd.DataFrame, columns: Sequence[Any]) -> Array:
    """For each row the number of its group of equal values in `columns`, from 0 in order of appearance; what is missing is equal."""
    frame = pd.DataFrame({place: df[column].array for place, column in enumerate(columns)}, index=pd.RangeIndex(len(df)))
    numbers = frame.groupby(list(frame.columns), sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    found: Array = order[inverse]
    return found


def pairing(df: pd.DataFrame, columns: Sequence[Any], groups: Array) -> Pairing:
    """Pair rows by `columns`; runs of one group with the same key go by their order: the first with the first."""
    key = numbered(df, columns)
    turn = pd.Series(key).groupby([groups, key]).cumcount().to_numpy()
    return Pairing(list(columns), key * (int(turn.max(initial=0)) + 1) + turn)


def grid_key(df: pd.DataFrame, by: Sequence[Any], groups: Array) -> list[Any]:
    """The parameters, other than `by`, that make the frame a grid: each of their combinations comes in every group.

    A parameter that has one value, or does not come with all of its values in every group (since it goes along with `by`, say, or
    is another one in every run), is none of them. An empty list: the groups cannot be told to have partners.
    """
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        return []
    named = [c for c in df.columns if isinstance(c, str) and c.startswith(_PARAMETER) and c not in by and isinstance(df[c], pd.Series)]
    found = [column for column in named if _hashable(df[column]) and _is_crossed(numbered(df, [column]), groups, count)]
    return found if found and _is_crossed(numbered(df, found), groups, count) else []


def _is_crossed(numbers: Array, groups: Array, count: int) -> bool:
    values = int(numbers.max(initial=-1)) + 1
    return 1 < values <= len(numbers) // count and len(np.unique(numbers * count + groups)) == values * count


def _hashable(values: pd.Series[Any]) -> bool:
    if values.dtype != object:
        return True
    try:
        set(values)
    except TypeError:
        return False
    return True
