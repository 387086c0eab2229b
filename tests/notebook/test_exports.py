"""What sessions, groups and the package hand to other tools, with real runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import agentnb as nb
from agentnb.notebook import exports


def asked(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        return db.execute(sql).fetchall()


def spans_in(path: Path) -> dict[str, dict[str, Any]]:
    """Spans by their names."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            span["told"] = {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
            found[span["name"]] = span
    return found


def test_a_run_with_steps_and_a_child_is_one_trace_and_processes_hang_below_it(session: nb.Session, tmp_path: Path) -> None:
    def agent(ctx: nb.RunContext) -> Any:
        with ctx.step("ask", kind="turn") as step:
            step.usage(input_tokens=3, output_tokens=4)
            with ctx.step("search"):
                pass
        return ctx.run(nb.Shell("true"), name="child").name

    run = session.python(agent, name="thinker")
    shell = session.shell("echo $TRACEPARENT", name="shell")
    assert (run.wait().ok, shell.wait().ok) == (True, True)
    path = session.to_otlp("spans.jsonl")
    assert path == tmp_path / "spans.jsonl"
    spans = spans_in(path)
    thinker, ask, search, child = (
        spans[name] for name in ("invoke_agent thinker", "chat ask", "execute_tool search", "execute_tool child")
    )
    assert (search["parentSpanId"], child["parentSpanId"]) == (ask["spanId"], thinker["spanId"])
    assert {span["traceId"] for span in (thinker, ask, search, child)} == {run.trace_id}
    assert (ask["told"]["gen_ai.usage.input_tokens"], thinker["told"]["gen_ai.usage.output_tokens"]) == ("3", "4")
    assert shell.stdout.strip() == f"00-{shell.trace_id}-{spans['execute_tool shell']['spanId']}-01"


def test_a_group_exports_its_own_runs_and_a_session_all_of_its(session: nb.Session, new_session: Callable[..., nb.Session]) -> None:
    other = new_session("other")
    group = session.map(nb.Shell("echo {{word}}"), nb.grid(word=["a", "b"]), name="echo").wait()
    session.shell("true").wait()
    other.shell("true").wait()
    counts = []
    for name, source in (("group", group), ("session", session), ("all", nb)):
        store: dict[str, Any] = {"store": session.store} if source is nb else {}
        with source.to_jsonl(f"{name}.jsonl", "runs", **store).open(encoding="utf-8") as file:
            counts.append(len(file.readlines()))
        folder = source.to_parquet(f"{name}.data", **store)
        counts.append(asked(f"SELECT count(*) FROM '{folder}/runs/**/*.parquet'")[0][0])
    assert counts == [2, 2, 3, 3, 4, 4]
    lines = [json.loads(line) for line in group.to_jsonl("events.jsonl").read_text().splitlines()]
    assert {line["run_id"] for line in lines} == {run.id for run in group}
    assert [line["data"]["run"]["params"] for line in lines if line["type"] == "run_queued"] == [{"word": "a"}, {"word": "b"}]


def test_what_runs_now_is_in_events_and_datasets_and_no_span_yet(session: nb.Session) -> None:
    run = session.shell("echo begun; sleep 1000")
    while "begun" not in run.tail():
        pass
    assert "run_started" in session.to_jsonl("x.jsonl").read_text()
    assert session.to_otlp("x.otlp.jsonl").read_bytes() == b""
    folder = session.to_parquet("data")
    assert asked(f"SELECT status FROM '{folder}/runs/**/*.parquet'") == [("running",)]
    run.cancel()
    run.wait()
    session.to_parquet("data")
    assert asked(f"SELECT status FROM '{folder}/runs/**/*.parquet'") == [("cancelled",)]
    assert len(session.to_otlp("x.otlp.jsonl", overwrite=True).read_text().splitlines()) == 1


def test_secrets_are_masked_in_every_export(session: nb.Session, tmp_path: Path) -> None:
    secret = "hunter2-very-secret"
    run = session.shell(
        f"echo $TOKEN; echo {secret} >&2; exit 1", env={"TOKEN": nb.Secret(secret)}, params={"key": secret}, tags={"k": secret}
    )
    run.wait()
    session.to_jsonl("events.jsonl")
    session.to_jsonl("runs.jsonl", "runs", full=True)
    session.to_otlp("spans.jsonl", content=True)
    for path in tmp_path.glob("*.jsonl"):
        assert secret not in path.read_text(encoding="utf-8"), path
    for path in session.to_parquet("data").rglob("*.parquet"):
        assert secret not in str(pl.read_parquet(path).rows()), path


def test_other_stores_are_named_and_options_that_make_no_sense_refused(session: nb.Session, tmp_path: Path) -> None:
    session.shell("true").wait()
    with pytest.raises(nb.StoreError, match="there is no history"):
        nb.to_jsonl("x.jsonl")
    assert nb.to_otlp("x.otlp.jsonl", store=session.store, service="mine").exists()
    for bad in ("", "a\0b", 5):
        with pytest.raises(nb.ConfigError, match=re.escape("is no path; write such as")):
            nb.to_jsonl(bad, store=session.store)
    with pytest.raises(nb.ConfigError, match="service='' must be a text"):
        session.to_otlp("y.jsonl", service="")
    with pytest.raises(nb.ConfigError, match="is there already; give another name, or overwrite=True"):
        session.to_otlp("x.otlp.jsonl")
    with pytest.raises(nb.ConfigError, match="there is no table 'spans'"):
        session.to_jsonl("y.jsonl", "spans")
    with pytest.raises(nb.ConfigError, match="did you mean 'session'"):
        nb.to_parquet("data", store=session.store, sesion="x")
    assert not {"y.jsonl", "data"} & {path.name for path in tmp_path.iterdir()}


def test_each_export_says_in_its_docstring_what_it_raises_and_filters_by() -> None:
    for name in ("to_jsonl", "to_otlp", "to_parquet", "to_mlflow"):
        assert "filters" in str(getattr(exports, name).__doc__)
        assert getattr(nb.Session, name).__doc__.rstrip().endswith(f"see agentnb.{name}.")
