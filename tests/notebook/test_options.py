"""Options: sorted into record and config; unknown ones are named, with what was perhaps meant."""

from __future__ import annotations

import pytest

import agentnb as nb
from agentnb.notebook.options import clean_tags, parallel, session_defaults, split


def test_options_are_sorted_and_cleaned() -> None:
    given, config = split({"name": "n", "params": {1: (1, 2)}, "tags": {"a": 3}, "timeout": "1m", "cleanup": "rm x"})
    assert (given.name, given.params, given.tags) == ("n", {"1": [1, 2]}, {"a": "3"})
    assert (config.timeout, config.cleanup) == (60, nb.Shell("rm x"))
    assert split({}) == split({"name": None, "params": None, "tags": None})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timeuot", "did you mean 'timeout'?"),
        ("parms", "did you mean 'params'?"),
        ("expected_exit", "did you mean 'expected_exit_code'?"),
        ("zzz", "known: artifacts, budget_time"),
        ("runtime", "every run is a process of this machine"),
        ("budget_token", "did you mean 'budget_tokens'?"),
        ("on_interrupt", "belongs to wait()"),
    ],
)
def test_an_unknown_option_is_named_with_a_way_out(name, says) -> None:
    with pytest.raises(nb.ConfigError) as caught:
        split({name: 1}, {"expected_exit_code"})
    assert repr(name) in str(caught.value)
    assert says in str(caught.value)


def test_the_defaults_of_a_session_are_config_only() -> None:
    assert session_defaults({"timeout": 3}).timeout == 3
    with pytest.raises(nb.ConfigError, match="Session: there is no option 'params'"):
        session_defaults({"params": {}})


def test_tags_and_bounds() -> None:
    assert clean_tags(None) == {}
    assert (parallel("x", None), parallel("x", 3)) == (None, 3)
    for bad in (0, -1, 1.5, "2", True):
        with pytest.raises(nb.ConfigError, match="x="):
            parallel("x", bad)
