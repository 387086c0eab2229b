"""Conditions of handlers: what they may say, and that they can do nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine.condition import MAX_LENGTH, NAMES, check, holds
from agentnb.errors import ConfigError

FAILED = {"status": "failed", "exit_code": 3, "error": "it exited with code 3", "attempts": 2}
TIMEOUT = {"status": "timeout", "exit_code": None, "error": "it was still running after 1 s", "attempts": 1}


@pytest.mark.parametrize(
    ("text", "for_failed", "for_timeout"),
    [
        ("status == 'timeout'", False, True),
        ("status != 'timeout'", True, False),
        ("status in ('timeout', 'cancelled')", False, True),
        ("status not in ['timeout']", True, False),
        ("exit_code == 3 and attempts > 1", True, False),
        ("exit_code in [1, 2, 3]", True, False),
        ("exit_code not in [1, 2]", True, True),
        ("1 <= exit_code < 5", True, False),
        ("exit_code > 100 or exit_code < 0", False, False),
        ("exit_code == None", False, True),
        ("exit_code >= -1", True, False),
        ("'exited' in error", True, False),
        ("'exited' not in error", False, True),
        ("exit_code not in 'abc' or exit_code", True, True),
        ("not (status == 'failed')", False, True),
        ("error", True, True),
        ("exit_code", True, False),
        ("  attempts==2 ", True, False),
        ("attempts == 2.0 and True", True, False),
    ],
)
def test_a_condition_compares_how_the_run_went(text: str, for_failed: bool, for_timeout: bool) -> None:
    check(text)
    if "'abc'" in text:  # a number is in no text: that is a fault of the condition, told when it is met
        with pytest.raises(TypeError):
            holds(text, FAILED)
    else:
        assert holds(text, FAILED) is for_failed
    assert holds(text, TIMEOUT) is for_timeout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("status =", "cannot be read"),
        ("status = 'failed'", "cannot be read"),
        ("{{ status }}", "cannot be"),
        ("status == 'a\0'", "NUL|cannot be read|no run ends"),
        ("stats == 'failed'", "did you mean 'status'"),
        ("status == failed", "no value 'failed'.*texts need quotes"),
        ("status == 'fail'", "no run ends with the status 'fail'.*completed"),
        ("'runing' == status", "no run ends"),
        ("status in ('failed', 'timed_out')", "timed_out"),
        ("'failed'", "looks at nothing"),
        ("True", "looks at nothing"),
        ("status is None", "write =="),
        ("exit_code in 3", "text or a list"),
        ("__import__('os').system('true')", "cannot be"),
        ("error.upper() == 'X'", "cannot be"),
        ("error.__class__", "attribute cannot be"),
        ("error[0] == 'i'", "subscript cannot be"),
        ("attempts + 1 > 2", "binop cannot be"),
        ("attempts ** 9", "cannot be"),
        ("[x for x in error]", "cannot be"),
        ("(lambda: 1)() == status", "cannot be"),
        ("(status := 'failed')", "cannot be"),
        ("f'{status}' == 'x'", "cannot be"),
        ("b'x' in error", "bytes cannot be"),
        ("attempts == 1j", "complex cannot be"),
        ("attempts if status == 'failed' else 1", "cannot be"),
        ("-error == 'x'", "cannot be"),
        ("~attempts == 1", "cannot be"),
        ("*error", "cannot be"),
        ("not " * 3000 + "error", "characters"),
        ("(" * 400 + "error" + ")" * 400, "cannot be read"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)condition: .*({says})"):
        check(text)


@given(
    st.lists(
        st.sampled_from([*NAMES, " ", "==", "'failed'", "(", ")", "not ", " and ", " in ", "[", "]", "3", "<", ".", "x", "\0", "\n", "\\"]),
        max_size=12,
    ).map("".join)
)
def test_whatever_passes_the_check_gives_a_verdict_or_a_type_error(text: str) -> None:
    try:
        check(text)
    except ConfigError:
        return
    assert len(text) <= MAX_LENGTH
    for values in (FAILED, TIMEOUT):
        try:
            assert holds(text, values) in {True, False}
        except TypeError:
            assert "in" in text or "<" in text
