from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import agentnb
from agentnb import cli
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, queued, started_session, table, whole_run

ENV = dict(os.environ, PYTHONPATH=str(Path(agentnb.__file__).resolve().parents[1]))


@pytest.fixture
def history(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with Store.open(store) as opened:
        opened.apply([started_session()])
        for number in range(3):
            opened.apply(whole_run(f"r{number}", at=T0 + number * SECOND, params={"n": number, "text": "\x1b[2J\u202eevil"}))
    monkeypatch.setenv("AGENTNB_HOME", str(store))
    return store


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "agentnb.cli", *words], capture_output=True, text=True, env=os.environ | ENV, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_events_come_as_json_lines_to_the_terminal_or_a_file(history: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["events", "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["seq"] for line in lines] == [row["seq"] for row in table(history, "events")]
    assert lines[-1]["data"]["exit_code"] == 0
    for _ in range(2):  # the second replaces the first
        assert cli.main(["events", "--format", "jsonl", "--run", "r1", "-o", "out/x.jsonl"]) == 0
    assert Path("out/x.jsonl").read_bytes().count(b"\n") == 5
    assert cli.main(["runs", "--format", "jsonl", "--columns", "id,param.n", "--limit", "1"]) == 0
    assert capfdbinary.readouterr().out == b'{"id":"r2","param.n":2}\n'


def test_lines_on_a_terminal_cannot_steer_it(history: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "agentnb.cli", "runs", "--format", "jsonl", "--limit", "1"], stdout=theirs, env=os.environ | ENV
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert b"evil" in shown
    assert "\u202e".encode() not in shown
    assert b"\x1b" not in shown


def test_a_reader_that_has_seen_enough_ends_it_quietly(history: Path) -> None:
    with Store.open(history) as opened:
        opened.apply([queued(f"q{number}", input="x" * 1000) for number in range(2000)])
    done = subprocess.run(
        f"{sys.executable} -m agentnb.cli events --format jsonl | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ | ENV,
        check=True,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_spans_and_datasets_are_written_and_counted(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["to", "otlp", "spans.jsonl", "--run", "r0", "--run", "r2", "--service", "s"]) == 0
    assert cli.main(["to", "parquet", "data", "--until", "2026-01-01T00:00:01Z"]) == 0
    assert capsys.readouterr().out == "spans.jsonl: 2 runs\ndata: 1 sessions, 1 runs, 1 steps, 0 artifacts, 6 events\n"
    assert len(Path("spans.jsonl").read_text().splitlines()) == 2
    with duckdb.connect() as db:
        assert db.execute("SELECT id, params->>'n' FROM 'data/runs/**/*.parquet'").fetchall() == [("r0", "0")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to"], "the following arguments are required: TOOL"),
        (["to", "csv", "x"], "invalid choice: 'csv'"),
        (["to", "otlp"], "the following arguments are required: FILE"),
        (["to", "otlp", "."], "is a folder; give a file in it"),
        (["to", "otlp", "x", "--run", "nobody"], "there is no run 'nobody'"),
        (["to", "otlp", "x", "--limit", "-1"], "limit: -1 must be a whole number"),
        (["to", "otlp", "x", "--since", "soon"], "since: 'soon' is no time"),
        (["to", "parquet", "x", "--status", "good"], "status: 'good' is no status of runs"),
        (["to", "mlflow", "--experiment", ""], "experiment='' must be a text that is not empty"),
    ],
)
def test_misuse_is_told_in_a_line_and_writes_nothing(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = {*tmp_path.iterdir()}
    try:
        code = cli.main(words)
    except SystemExit as bad:
        code = int(bad.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert {*tmp_path.iterdir()} == before


def test_help_names_every_tool() -> None:
    shown = run("to", "--help")
    assert all(tool in shown for tool in ("otlp", "parquet", "mlflow"))
    assert "--tracking-uri" in run("to", "mlflow", "--help")


def test_lines_go_where_stdout_goes(history: Path) -> None:
    out = run("events", "--format", "jsonl", "--limit", "2")
    assert len(io.StringIO(out).readlines()) == 2
