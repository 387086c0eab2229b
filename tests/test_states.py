from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.errors import IllegalTransition
from agentnb.states import (
    RETRYABLE,
    ErrorKind,
    RunStatus,
    SessionStatus,
    StepStatus,
    check_transition,
    is_cancellation,
    is_config_error,
    is_retryable,
    is_terminal,
    legal,
)

ENDS = {"completed", "failed", "cancelled", "timeout", "interrupted"}

#: The whole state model, written out a second time: what may follow what.
MODEL: dict[Any, dict[str, set[str]]] = {
    SessionStatus: {"active": {"ended", "cancelled"}},
    RunStatus: {"pending": {"running", "cancelled", "failed"}, "running": ENDS},
    StepStatus: {"pending": {"running", "cancelled", "failed", "skipped"}, "running": ENDS | {"skipped"}},
}
MOVES = [(old, new) for kind in MODEL for old, new in itertools.product(kind, kind)]


@pytest.mark.parametrize(("old", "new"), MOVES, ids=lambda s: f"{type(s).__name__}.{s}")
def test_exactly_the_moves_of_the_model_are_legal(old: Any, new: Any) -> None:
    allowed = new.value in MODEL[type(old)].get(old.value, set())
    assert legal(old, new) is allowed
    if allowed:
        check_transition("it", old, new)
    else:
        with pytest.raises(IllegalTransition, match=f"it cannot go from '{old.value}' to '{new.value}'"):
            check_transition("it", old, new)


@pytest.mark.parametrize("status", [s for kind in MODEL for s in kind], ids=lambda s: f"{type(s).__name__}.{s}")
def test_terminal_means_that_nothing_follows(status: Any) -> None:
    assert is_terminal(status) == (not any(legal(status, other) for other in type(status)))
    assert is_terminal(status) == (status.value not in {"active", "pending", "running"})


@pytest.mark.parametrize("kind", [RunStatus, StepStatus])
@given(data=st.data())
def test_any_walk_ends_at_its_first_terminal_status(kind: Any, data: st.DataObject) -> None:
    status, ended = kind.PENDING, None
    for wanted in data.draw(st.lists(st.sampled_from(list(kind)), max_size=12)):
        if legal(status, wanted):
            assert ended is None
            status = wanted
            ended = status if is_terminal(status) else None
    assert ended in (None, status)


def test_equal_words_of_other_machines_do_not_lend_their_moves() -> None:
    assert not legal(StepStatus.COMPLETED, StepStatus.RUNNING)
    assert legal(StepStatus.PENDING, StepStatus.SKIPPED)
    assert legal(StepStatus.RUNNING, StepStatus.COMPLETED)


RETRYABLE_IN_THE_DOCS = """
startup_failed no · execution_failed no · cancelled no · interrupted yes · timeout yes · worker_timeout yes · invalid_config no ·
runtime_error yes · artifact_error no · not_found no · pattern_error no · validation_error no · resource_limit_exceeded yes ·
budget_exceeded no · rate_limited yes
"""


def test_the_table_of_retryable_kinds_is_the_documented_one() -> None:
    documented = dict(entry.split() for entry in RETRYABLE_IN_THE_DOCS.replace("\n", " ").split("·"))
    assert {kind.value: "yes" if is_retryable(kind) else "no" for kind in ErrorKind} == documented
    assert set(RETRYABLE) == set(ErrorKind)


def test_cancellation_and_config_errors_are_told_apart() -> None:
    assert [kind for kind in ErrorKind if is_cancellation(kind)] == [ErrorKind.CANCELLED]
    assert {kind for kind in ErrorKind if is_config_error(kind)} == {ErrorKind.INVALID_CONFIG, ErrorKind.NOT_FOUND}
