"""Whatever the history holds of a finished run, its export is a recording that can be read, with all bytes of the output."""

from __future__ import annotations

import math
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.events import ArtifactSaved, Message, RunFinished, RunStarted, StepFinished, StepStarted, StepUsed, UsageReported
from agentnb.history.recordings import export, output_pieces, recording
from agentnb.history.recordings.export import export_run
from agentnb.history.recordings.recording import Recording
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, queued, whole_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
)
OUTPUT = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=40), st.integers(0, 4)), max_size=12)


def exported(store: Path, events: list[Message], **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries of the exported run R, and what was left out."""
    with Store.open(store) as opened:
        opened.apply(events)
    left_out = export_run(store, "R", Path("x.jsonl").absolute(), overwrite=True, **options)
    found = []
    with closing(Recording(Path("x.jsonl"))) as reading:
        while batch := reading.batch():
            found += batch
    return found, left_out


def of(entries: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The entries of one type."""
    return [entry for entry in entries if entry["type"] == kind]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=JSON, tokens=JSON, cost=JSON, params=st.dictionaries(st.text(), JSON, max_size=3))
def test_whatever_agents_say_makes_a_file_that_can_be_read(tmp_path_factory: Any, data: Any, tokens: Any, cost: Any, params: Any) -> None:
    events = [
        queued("R", params=params, input=data),
        RunStarted("R", at=T0),
        StepStarted("R", "a", "attempt", "attempt 1", at=T0),
        StepStarted("R", "b", "tool", str(data)[:50], 1, "a", data, at=T0),
        UsageReported("R", input_tokens=tokens, cost_usd=cost, at=T0),
        StepFinished(
            "R", "b", "failed", {"kind": "execution_failed", "message": str(data)}, tokens=tokens, cost_usd=cost, output=data, at=T0
        ),
        StepUsed("R", "b", tokens, cost, at=T0),
        StepUsed("R", "nobody", tokens, cost, at=T0),
        StepFinished("R", "a", "completed", at=T0 - SECOND),
        RunFinished("R", "completed", output=data, usage={"cpu_time": cost}, detail={"warnings": [str(data)]}, at=T0),
    ]
    entries, _ = exported(tmp_path_factory.mktemp("s") / "store", events)
    assert [entry["type"] for entry in entries][-1] == "run_finished"
    assert [entry["step"] for entry in of(entries, "step_finished")] == [2, 1]
    assert [entry["step"] for entry in of(entries, "step_used")] == [2]
    assert all(one["t"] <= other["t"] for one, other in pairwise(entries))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=OUTPUT, spilled=st.booleans(), terse=st.booleans(), known=st.booleans(), bound=st.integers(1, 9))
def test_all_bytes_come_in_the_order_that_is_known(
    tmp_path_factory: Any, pieces: list[tuple[str, bytes, int]], spilled: bool, terse: bool, known: bool, bound: int
) -> None:
    store = tmp_path_factory.mktemp("s") / "store"
    streams = {name: b"".join(data for stream, data, _ in pieces if stream == name) for name in ("stdout", "stderr")}
    records: dict[str, Any] = {}
    for name, data in streams.items():
        path = store / "runs" / "R" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kept = {"path": f"runs/R/{name}.log", "text": None} if spilled else {"path": None, "text": data.decode("utf-8", "replace")}
        records[name] = {"size": len(data)} | {key: value for key, value in kept.items() if value is not None or not terse}
    order = [[stream, len(data), T0 + n * SECOND] for n, (stream, data, _) in enumerate(pieces)]
    events = whole_run("R", run_s=20.0)
    events[-1] = RunFinished("R", "completed", detail={"order": order} if known else {}, at=T0 + 30 * SECOND, **records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_pieces, "PIECE_BYTES", bound)
        patch.setattr(export, "PIECE_BYTES", bound)
        found = of(exported(store, events)[0], "output")
    for name, data in streams.items():
        right = data if spilled else data.decode("utf-8", "replace").encode()
        assert b"".join(entry["data"] for entry in found if entry["stream"] == name) == right
    if known and spilled:
        shown = [stream for n, (stream, _, _) in enumerate(pieces) if n == 0 or pieces[n - 1][0] != stream]
        assert [entry["stream"] for n, entry in enumerate(found) if n == 0 or found[n - 1]["stream"] != entry["stream"]] == shown


def test_what_makes_no_sense_is_left_out_and_said(store: Path) -> None:
    events = whole_run("R")
    events.insert(-1, UsageReported("R", cost_usd=math.inf, input_tokens=5))
    entries, left_out = exported(store, events)
    assert of(entries, "usage_reported")[0]["input_tokens"] == 5
    assert left_out == ["usage_reported: `cost_usd` makes no sense: inf"]


def test_an_output_that_is_too_long_for_a_line_is_left_out_and_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (export, recording):
        monkeypatch.setattr(module, "MAX_LINE", 5000)
    events = whole_run("R")
    events[-1] = RunFinished("R", "completed", output="x" * 10_000)
    entries, left_out = exported(store, events)
    assert "output" not in entries[-1]
    assert "more than a line may have" in left_out[0]


def test_an_artifact_that_is_gone_or_lies_elsewhere_is_named_only(store: Path) -> None:
    checksum = f"sha256:{'0' * 64}"
    gone = {"id": "1", "name": "gone", "size": 3, "checksum": checksum, "location": {"type": "local", "path": "blobs/00/0"}}
    web = {"id": "2", "name": "web", "size": 3, "checksum": checksum, "location": {"type": "http", "url": "http://127.0.0.1/x"}}
    events = whole_run("R")
    events[4:4] = [ArtifactSaved("R", gone), ArtifactSaved("R", web)]
    entries, left_out = exported(store, events)
    first, second = of(entries, "artifact_saved")
    assert (first["inline"], second["inline"]) == (False, False)
    assert second["artifact"]["location"] == {"type": "http", "url": "http://127.0.0.1/x"}
    assert len(left_out) == 1
    assert "artifact 'gone'" in left_out[0]


def test_a_log_outside_of_the_store_is_not_exported(store: Path) -> None:
    Path("secret").write_text("x", encoding="utf-8")
    events = whole_run("R")
    events[-1] = RunFinished("R", "completed", stdout={"size": 1, "text": None, "path": "../secret"})
    with pytest.raises(OSError, match="lies outside of the store"):
        exported(store, events)
    assert not Path("x.jsonl").exists()
