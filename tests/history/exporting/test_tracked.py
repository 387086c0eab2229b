from __future__ import annotations

import json
import math
import posixpath
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentnb.history.exporting.tracked import _METRICS, MAX_NAME, MAX_PARAM, MAX_TAG, Notes, Tracked

NAMES = [
    "id",
    "name",
    "session",
    "params",
    "tags",
    "output",
    "error",
    "detail",
    "target_kind",
    "command",
    "created_at",
    "started_at",
    "finished_at",
]
NOTHING = dict.fromkeys([*NAMES, *_METRICS])


def tracked(**row: Any) -> Tracked:
    return Tracked(
        NOTHING | {"id": "r", "name": "r"} | {name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()}
    )


@given(st.lists(st.text()))
def test_every_name_is_one_that_mlflow_takes_and_each_its_own(names: list[str]) -> None:
    notes = Notes()
    found = [notes.name("param", name) for name in names]
    for name in found:
        assert re.fullmatch(r"[/\w.\- :]{1,250}", name)  # MLflow's own rules
        assert posixpath.normpath(name) == name
        assert name != "."
        assert not name.startswith(("/", ".."))
    assert len(set(found)) == len(set(names))
    assert {name for name in names if notes.name("param", name) != name} == set(notes.renamed.values())


def test_usual_names_are_kept() -> None:
    notes = Notes()
    for name in ("lr", "learning rate", "model/size", "größe", "a.b-c_d:e"):
        assert notes.name("param", name) == name
    assert [notes.name("param", name) for name in ("a?", "a!", "../x", "/", "", "x" * 300)] == [
        "a_",
        "a__2",
        ".._x",
        "_",
        "__2",
        "x" * MAX_NAME,
    ]
    assert notes.renamed["param a_"] == "a?"


def test_parameters_are_texts_or_json_cut_where_they_are_too_long() -> None:
    run = tracked(params={"lr": 0.1, "word": "ü", "on": True, "no": None, "deep": {"x": [1]}, "long": "y" * 7000})
    found = dict(run.params())
    assert found | {"long": ""} == {"lr": "0.1", "word": "ü", "on": "true", "no": "null", "deep": '{"x": [1]}', "long": ""}
    assert len(found["long"]) == MAX_PARAM
    assert dict(run.notes.tags()) == {"agentnb.cut": '["param long (7000 characters)"]'}


def test_metrics_are_figures_durations_and_numbers_of_the_output() -> None:
    run = tracked(
        run_s=2.0, cost_usd=0.5, created_at=1_000_000, started_at=3_000_000, finished_at=9_000_000,
        output={"score": 0.5, "passed": True, "text": "x", "bad": math.inf, "huge": 10**400},
    )  # fmt: skip
    found = {name: (value, at, step) for name, value, at, step in run.metrics([])}
    assert {name: value for name, (value, _, _) in found.items()} == {
        "run_s": 2.0, "cost_usd": 0.5, "total_s": 8.0, "queued_s": 2.0, "output.score": 0.5, "output.passed": 1.0,
    }  # fmt: skip
    assert {(at, step) for _, at, step in found.values()} == {(9_000_000, 0)}
    assert len(json.loads(dict(run.notes.tags())["agentnb.left_out"])) == 2
    assert {name for name, *_ in tracked(output="7").metrics([])} == {"output"}
    assert not list(tracked(output="no json", detail={"discovered_at": 1}, created_at=1, finished_at=2).metrics([]))


def test_steps_are_a_history_of_their_kinds() -> None:
    step = dict.fromkeys(["run_s", "cpu_s", "peak_memory_bytes", "input_tokens", "output_tokens", "cost_usd"])
    steps = [
        step | {"kind": kind, "started_at": 0, "finished_at": n * 1_000_000, "output_tokens": n}
        for n, kind in enumerate(["turn", "tool", "turn"], 1)
    ]
    found = list(tracked().metrics(steps))
    assert ("turn.output_tokens", 1.0, 1_000_000, 0) in found
    assert ("turn.output_tokens", 3.0, 3_000_000, 1) in found
    assert ("tool.run_s", 2.0, 2_000_000, 0) in found


def test_tags_are_facts_and_its_own_but_none_that_would_make_it_another_run() -> None:
    run = tracked(
        tags={"topic": "x", "agentnb.run_id": "evil"}, error={"message": "e" * 6000}, command="ls", target_kind="shell", session="s"
    )
    found = dict(run.tags())
    assert (found["topic"], found["agentnb.command"], found["agentnb.kind"], found["agentnb.session"]) == ("x", "ls", "shell", "s")
    assert "agentnb.run_id" not in found
    assert len(found["agentnb.error"]) == MAX_TAG
    assert {*dict(run.notes.tags())} == {"agentnb.cut", "agentnb.left_out"}
