from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import units
from agentnb.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (90, 90.0),
        (0, 0.0),
        ("90", 90.0),
        ("0.5", 0.5),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        (" 1h 30m ", 5400.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
        ("2w", 1209600.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_durations_read_as_people_write_them(value: Any, expected: float) -> None:
    assert units.seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "5 minutes",
        "1h30",
        "-5",
        "-5m",
        "5M",
        "1e3",
        "inf",
        "nan",
        "٣s3",
        "m5",
        "1h,30m",
        -1,
        10**400,
        -(10**400),
        math.inf,
        math.nan,
        True,
        None,
        [],
        b"5s",
    ],
)
def test_what_is_no_duration_is_refused_with_its_name_and_value(value: Any) -> None:
    with pytest.raises(ConfigError, match="^timeout: ") as caught:
        units.seconds(value, what="timeout")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1024, 1024),
        (1.0, 1),
        ("1048576", 1048576),
        ("2GiB", 2 << 30),
        ("5MB", 5_000_000),
        ("5 M", 5_000_000),
        ("1.5KiB", 1536),
        ("10k", 10_000),
        ("10kB", 10_000),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes_read_as_people_write_them(value: Any, expected: int) -> None:
    result = units.bytes_(value)
    assert result == expected
    assert type(result) is int


@pytest.mark.parametrize(
    "value", ["", "big", "5 MX", "-1", -1, "1.5B", 0.5, "1e9", "inf", math.inf, math.nan, False, None, {}, "5mb", "5gib", 10**400, 2**63]
)
def test_what_is_no_size_is_refused_with_its_name_and_value(value: Any) -> None:
    with pytest.raises(ConfigError, match="^max_memory_bytes: ") as caught:
        units.bytes_(value, what="max_memory_bytes")
    assert repr(value) in str(caught.value)


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_duration_text_is_the_sum_of_its_parts(days: int, hours: int, minutes: int, secs: int) -> None:
    assert (
        units.seconds(f"{days}d{hours}h{minutes}m{secs}s")
        == timedelta(days=days, hours=hours, minutes=minutes, seconds=secs).total_seconds()
    )


@given(st.text(max_size=30))
def test_any_text_is_a_finite_value_or_a_config_error(text: str) -> None:
    for read in (units.seconds, units.bytes_):
        try:
            value = read(text)
        except ConfigError:
            continue
        assert math.isfinite(value)
        assert value >= 0


@given(st.integers(0, 2**53))
def test_whole_bytes_survive_as_numbers(size: int) -> None:
    assert units.bytes_(size) == size
