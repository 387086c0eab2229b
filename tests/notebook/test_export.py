"""Exporting a run to a file and playing it again: the same run in the same DataFrames, marked as a replay."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb import cli
from agentnb.agents import model_file
from agentnb.notebook.render import to_html, to_text
from tests.notebook.polling import until

#: What a replay has of its own: identity, and where and when it was played.
OWN = {
    "id", "kind", "session", "session_id", "group_id", "created_at", "started_at", "finished_at", "queued_s", "total_s", "timeout_s",
    "trace_id", "replay_of", "run_id", "parent_id", "step_id", "run",
}  # fmt: skip


def again(session: nb.Session, run: nb.RunHandle, **options: Any) -> nb.RunHandle:
    """The run, exported and played without waiting."""
    file = run.export(f"recorded/{run.id}.jsonl", **options)
    replay = session.replay(file, speed=None)
    replay.wait(30)
    return replay


def frames(session: nb.Session, run: nb.RunHandle) -> list[pd.DataFrame]:
    """Its rows, without what is its own."""
    found = [nb.runs_df(store=session.store, run=run.id, full=True)]
    found += [nb.steps_df(store=session.store, run=run.id), nb.artifacts_df(store=session.store, run=run.id, full=True)]
    return [frame.drop(columns=[name for name in frame.columns if name in OWN]) for frame in found]


def tree(run: nb.RunHandle) -> list[tuple[Any, ...]]:
    """Its steps with the names of what they are part of."""
    steps = {step.id: step for step in run.steps}
    return [
        (
            s.kind,
            s.name,
            steps[s.parent_id].name if s.parent_id else None,
            s.status,
            s.attempt,
            s.input,
            s.output,
            s.error,
            s.tokens,
            s.cost_usd,
        )
        for s in steps.values()
    ]


def assert_same(session: nb.Session, run: nb.RunHandle, replay: nb.RunHandle) -> None:
    """The replay is the run, but for what is its own."""
    for one, other in zip(frames(session, run), frames(session, replay), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert tree(run) == tree(replay)
    assert (run.stdout, run.stderr, run.output, run.error, run.params, run.name) == (
        replay.stdout, replay.stderr, replay.output, replay.error, replay.params, replay.name,
    )  # fmt: skip
    left, right = run.result, replay.result
    assert left is not None
    assert right is not None
    same = (
        "status",
        "command_status",
        "reason",
        "retryable",
        "output_source",
        "exit_code",
        "signal",
        "duration",
        "usage",
        "attempts",
        "warnings",
        "validation",
    )
    assert {name: getattr(left, name) for name in same} == {name: getattr(right, name) for name in same}
    assert run.id != replay.id
    assert not {step.id for step in run.steps} & {step.id for step in replay.steps}
    assert nb.runs_df(store=session.store, run=replay.id)["replay_of"].tolist() == [run.id]


def worker(ctx: nb.RunContext, word: str) -> dict[str, Any]:
    """An agent that reports all that can be reported."""
    with ctx.step("turn", kind="turn", input={"word": word}):
        ctx.log(f"thinking of {word}")
        with ctx.step("tool", input=[1]):
            pass
    ctx.usage(input_tokens=11, output_tokens=7, cost_usd=0.25)
    ctx.artifact("note.txt", f"{word}\n")
    ctx.artifact("bytes.bin", bytes(range(256)))
    return {"word": word, "list": [1, None, 2.5]}


def failing(ctx: nb.RunContext) -> None:
    """An agent that fails inside a step."""
    with ctx.step("doomed"):
        raise ValueError("no way")


async def hosted(ctx: nb.RunContext) -> str:
    """An agent of the notebook's process."""
    ctx.log("hosted")
    await asyncio.sleep(0)
    return "done"


LAUNCHES: dict[str, Callable[[nb.Session], nb.RunHandle]] = {
    "shell": lambda s: s.shell("echo out; echo err >&2; echo more", params={"n": 3, "deep": [1, {"a": None}]}, tags={"topic": "x"}),
    "failed": lambda s: s.shell("echo oh >&2; exit 3", name="broken"),
    "signalled": lambda s: s.shell("kill -SEGV $$"),
    "no program": lambda s: s.command(["/nowhere/at-all"]),
    "bytes": lambda s: s.shell(r"printf 'a\377\376b\0c'"),
    "large": lambda s: s.shell("i=0; while [ $i -lt 3000 ]; do echo line $i; echo é$i >&2; i=$((i+1)); done"),
    "test": lambda s: s.test("exit 4", expected_exit_code=4, validation=nb.Validation(forbidden_patterns=["x"])),
    "invalid": lambda s: s.shell("echo bad", validation=nb.Validation(expected_pattern="good")),
    "retried": lambda s: s.shell(
        "echo try $AGENTNB_ATTEMPT; test $AGENTNB_ATTEMPT = 2", retry=nb.Retry(max_attempts=3, initial_delay=0.01, on_exit_codes=(1,))
    ),
    "timeout": lambda s: s.shell("echo begun; sleep 60", timeout=0.3),
    "handlers": lambda s: s.shell("exit 1", on_failure=nb.Shell("echo sorry"), cleanup=nb.Shell("true")),
    "nothing kept": lambda s: s.shell("echo x", capture="none"),
    "json": lambda s: s.shell("echo '{\"a\": 1}'", capture="structured"),
    "python": lambda s: s.python(worker, "tea"),
    "python fails": lambda s: s.python(failing),
    "coroutine": lambda s: s.python(hosted),
    "files": lambda s: s.shell("echo data > made.txt; : > empty.txt", artifacts=["*.txt"]),
}


@pytest.mark.parametrize("kind", LAUNCHES)
def test_a_replay_is_the_run_again(session: nb.Session, kind: str) -> None:
    run = LAUNCHES[kind](session)
    run.wait(60)
    assert_same(session, run, again(session, run))


@pytest.mark.parametrize("size", [3, 300_000])
def test_the_output_of_an_attempt_that_another_one_followed_is_in_the_file(session: nb.Session, size: int) -> None:
    program = f"head -c {size} /dev/zero | tr '\\0' x; echo no >&2; test $AGENTNB_ATTEMPT = 2"
    run = session.shell(program, retry=nb.Retry(max_attempts=2, initial_delay=0.01, on_exit_codes=(1,)))
    run.wait(60)
    file = run.export("retried.jsonl")
    said = [json.loads(line) for line in file.read_text().splitlines()]
    printed = "".join(entry.get("text", "") for entry in said if entry.get("type") == "output" and entry["stream"] == "stdout")
    assert len(printed) == 2 * size
    assert f"runs/{run.id}" not in file.read_text()
    replay = session.replay(file, speed=None)
    replay.wait(30)
    first = nb.steps_df(store=session.store, run=replay.id, full=True).query("kind == 'attempt'").iloc[0]["output"]
    assert run.id not in str(first)


@pytest.mark.skipif(bool(model_file.missing()), reason="the local model is not installed")
def test_a_local_model_replays_with_its_tokens(session: nb.Session) -> None:
    run = session.local("Say hello.", max_tokens=8, seed=1)
    run.wait(120)
    replay = again(session, run)
    assert_same(session, run, replay)
    assert replay.snapshot().output_tokens == run.snapshot().output_tokens


@pytest.mark.parametrize("artifacts", [True, False])
def test_a_run_of_claude_replays_without_it(session: nb.Session, fake_claude: Callable[..., None], artifacts: bool) -> None:
    run = session.claude("Say {{what}}", params={"what": "hi"}, model="sonnet")
    run.wait(60)
    if artifacts:
        assert_same(session, run, again(session, run))
    file = run.export("without.jsonl", artifacts=artifacts)
    replay = session.replay(file, speed=None)
    assert replay.wait(30).output == run.output == "You said: Say hi"
    assert (replay.snapshot().model, replay.snapshot().turns) == ("sonnet", 1)
    if not artifacts:
        assert str(Path.cwd()) not in file.read_text(encoding="utf-8")
    with pytest.raises(nb.ConfigError, match="reply"):
        replay.reply("more")


def test_a_cancelled_run_replays_as_cancelled_whether_it_had_started_or_not(new_session: Callable[..., nb.Session]) -> None:
    session = new_session(max_parallel=1)
    running, waiting = session.shell("echo begun; sleep 60"), session.shell("echo never")
    until(lambda: running.stdout == "begun\n", 30)
    for run in (waiting, running):
        run.cancel("enough")
        run.wait(20)
    for run in (waiting, running):
        assert_same(session, run, again(session, run))


def test_a_run_whose_supervisor_was_killed_replays_as_interrupted(session: nb.Session) -> None:
    run = session.shell("echo begun; exec sleep 60")
    until(lambda: run.stdout == "begun\n", 30)
    os.kill(int(session._engine.ready.result(10)), signal.SIGKILL)  # type: ignore[union-attr]
    assert run.wait(30).status == "interrupted"
    session.runs_df()  # the history learns of it
    file = nb.export(run.id, "run.jsonl", store=session.store)
    replay = session.replay(file, speed=None)
    assert replay.wait(30).status == "interrupted"
    rows = session.runs_df().set_index("id")
    assert pd.isna(rows.loc[replay.id, "run_s"]) == pd.isna(rows.loc[run.id, "run_s"])
    assert replay.stdout == "begun\n"


_PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(alphabet=st.characters(codec="utf-8"), max_size=30)), max_size=8
)
_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20), lambda x: st.lists(x, max_size=3), max_leaves=8
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=_PIECES, data=_DATA, blob=st.binary(max_size=300))
def test_whatever_an_agent_reports_comes_back(session: nb.Session, pieces: list[tuple[str, str]], data: Any, blob: bytes) -> None:
    async def agent(ctx: nb.RunContext) -> Any:
        for _, text in pieces:
            ctx.log(text)
        with ctx.step("s", input=data):
            ctx.artifact("b", blob)
        return data

    run = session.python(agent, params={"data": data})
    run.wait(30)
    assert_same(session, run, again(session, run))


# --- the file


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a recording."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_secret_is_not_in_the_file_in_whatever_way_it_was_printed(session: nb.Session) -> None:
    word = "hunter2-is-secret"
    coded = base64.b64encode(word.encode()).decode()
    line = f'printf %s hunter2-; sleep 0.2; echo is-secret; printf %s "$K" | base64; echo "$K" >&2; : {word}; exit 1'
    run = session.shell(line, env={"K": nb.Secret(word)}, name=f"for {word}", params={word: word}, tags={"k": word})
    run.wait(20)
    text = run.export("x.jsonl").read_text(encoding="utf-8")
    assert word not in text
    assert coded[:-4] not in text
    assert text.count("***") >= 5
    assert "is-secret" not in session.replay("x.jsonl", speed=None).wait(20).stdout


def test_the_file_does_not_name_the_machine(session: nb.Session) -> None:
    run = session.shell("echo hi", working_dir=Path.cwd())
    run.wait(20)
    text = run.export("x.jsonl").read_text(encoding="utf-8")
    for word in (socket.gethostname(), str(Path.cwd()), str(session.store), str(Path.home())):
        assert word not in text or len(word) < 4
    head = lines(Path("x.jsonl"))[0]
    assert set(head) == {"agentnb_export", "agentnb", "run", "circumstances"}
    assert set(head["circumstances"]) <= {"git_commit", "git_dirty", "python_version", "agentnb_version"}


def test_output_has_its_place_and_time(session: nb.Session) -> None:
    run = session.shell("echo a; sleep 0.4; echo b >&2; sleep 0.4; echo c")
    run.wait(20)
    found = [(one["t"], one["stream"], one["text"]) for one in lines(run.export("x.jsonl"))[1:] if one["type"] == "output"]
    assert [(stream, text) for _, stream, text in found] == [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]
    assert found[1][0] - found[0][0] >= 0.3
    assert found[2][0] - found[1][0] >= 0.3


def test_output_of_one_stream_has_its_pace(session: nb.Session) -> None:
    run = session.shell("for i in 1 2 3; do echo $i; sleep 0.3; done")
    run.wait(20)
    found = [one["t"] for one in lines(run.export("x.jsonl"))[1:] if one["type"] == "output"]
    assert len(found) == 3
    assert found[2] - found[0] >= 0.5


def test_large_artifacts_are_named_and_warned_of(session: nb.Session) -> None:
    run = session.shell("head -c 3000 /dev/urandom > big.bin; echo small > small.txt", artifacts=["*.bin", "*.txt"])
    run.wait(20)
    with pytest.warns(UserWarning, match=r"artifact 'big.bin': its 3000 bytes are more than max_artifact_bytes=1000"):
        run.export("x.jsonl", max_artifact_bytes="1kB")
    saved = [one for one in lines(Path("x.jsonl"))[1:] if one["type"] == "artifact_saved"]
    assert [(one["artifact"]["name"], one["inline"]) for one in saved] == [("big.bin", False), ("small.txt", True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.export("y.jsonl", artifacts=False)
    assert "artifact_data" not in Path("y.jsonl").read_text(encoding="utf-8")


def test_parameters_may_be_left_out(session: nb.Session) -> None:
    run = session.shell("true", params={"where": "/private"})
    run.wait(20)
    assert "/private" not in run.export("x.jsonl", params=False).read_text(encoding="utf-8")


def test_only_a_finished_run_is_exported_and_no_file_is_overwritten_unasked(session: nb.Session) -> None:
    run = session.shell("sleep 60")
    with pytest.raises(nb.ConfigError, match=r"has not ended, it reads (pending|running); wait for it first"):
        run.export("x.jsonl")
    run.cancel()
    run.wait(20)
    Path("x.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(nb.ConfigError, match=r"is there already; give another name, or overwrite=True"):
        run.export("x.jsonl")
    assert Path("x.jsonl").read_text(encoding="utf-8") == "mine"
    assert run.export("x.jsonl", overwrite=True) == Path("x.jsonl").absolute()
    assert lines(Path("x.jsonl"))[-1]["status"] == "cancelled"
    with pytest.raises(nb.ConfigError, match="is a folder"):
        run.export(".")
    for bad in ({"artefacts": True}, {"artifacts": 1}, {"max_artifact_bytes": "many"}):
        with pytest.raises(nb.ConfigError):
            run.export("z.jsonl", **bad)
    with pytest.raises(nb.ConfigError, match="is no path"):
        run.export(3)
    assert sorted(path.name for path in Path.cwd().iterdir() if path.suffix in {".jsonl", ".part"}) == ["x.jsonl"]


def test_an_export_that_fails_leaves_no_file(session: nb.Session) -> None:
    run = session.shell("head -c 100000 /dev/zero | tr '\\0' x")
    run.wait(20)
    (session.store / "runs" / run.id / "stdout.log").unlink()
    with pytest.raises(nb.StoreError, match="was the store's folder cleaned by hand"):
        run.export("folder/x.jsonl")
    assert not list(Path.cwd().rglob("*.part"))
    assert not Path("folder/x.jsonl").exists()


# --- replays


def test_a_replay_is_marked_and_costs_nothing(session: nb.Session) -> None:
    run = session.python(worker, "tea")
    run.wait(30)
    replay = again(session, run)
    assert session.runs_df()[["name", "status", "kind", "replay_of"]].to_numpy().tolist() == [
        [run.name, "completed", "python", pd.NA],
        [run.name, "completed", "replay", run.id],
    ]
    assert repr(replay) == f"<RunHandle {run.name!r} completed (replay)>"
    shown = replay.snapshot()
    assert (shown.kind, shown.replay_of, shown.command, shown.cost_usd) == ("replay", run.id, run.snapshot().command, 0.25)
    assert "(replay)" in to_text(shown)
    assert f"replay of {run.id}" in to_text(shown)
    assert "replay" in to_html(shown)
    assert session.sessions_df()["cost_usd"].tolist() == [0.25]


def test_durations_are_as_recorded_and_stamps_are_its_own(session: nb.Session) -> None:
    run = session.shell("sleep 0.5")
    run.wait(20)
    replay = again(session, run)
    runs, steps = session.runs_df().set_index("id"), session.steps_df().set_index("run_id")
    took, step_took = runs["run_s"].to_dict(), steps["run_s"].to_dict()
    assert took[run.id] == took[replay.id] >= 0.5
    assert step_took[run.id] == step_took[replay.id] >= 0.5
    assert runs["started_at"].to_dict()[replay.id] > runs["finished_at"].to_dict()[run.id]


def test_what_the_launch_says_wins_over_what_was_recorded(session: nb.Session) -> None:
    run = session.shell("echo {{x}}", params={"x": 1, "y": 2}, tags={"a": "1", "b": "2"}, name="first")
    run.wait(20)
    replay = session.replay(run.export("x.jsonl"), speed=None, name="second", params={"x": 5}, tags={"a": "9"})
    replay.wait(20)
    row = session.runs_df().iloc[-1]
    assert (replay.name, replay.params, row["tag.a"], row["tag.b"]) == ("second", {"x": 5, "y": 2}, "9", "2")


def test_a_group_is_exported_to_a_folder_and_mapped_again(session: nb.Session) -> None:
    group = session.map(nb.Shell("echo {{word}}"), [{"word": word} for word in ("a", "b", "c/d")]).wait(30)
    files = group.export("recorded")
    assert [file.parent.name for file in files] == ["recorded"] * 3
    again = session.map(nb.Replay("{{file}}", speed=None), [{"file": str(file)} for file in files]).wait(30)
    assert [run.stdout for run in again] == ["a\n", "b\n", "c/d\n"]
    assert again.df()["param.word"].tolist() == ["a", "b", "c/d"]
    assert [run.name for run in again] == [run.name for run in group]
    with pytest.raises(nb.ConfigError, match="is there already"):
        group.export("recorded")
    assert group.export("recorded", overwrite=True) == files


def test_a_replay_of_a_replay_is_of_the_run_that_really_ran(session: nb.Session) -> None:
    run = session.python(worker, "tea")
    run.wait(30)
    second = again(session, again(session, run))
    assert session.runs_df()["replay_of"].tolist() == [pd.NA, run.id, run.id]
    assert frames(session, run)[1].equals(frames(session, second)[1])


def test_a_store_elsewhere_plays_what_this_one_recorded(session: nb.Session, tmp_path: Path) -> None:
    run = session.python(worker, "tea")
    run.wait(30)
    file = run.export("x.jsonl")
    other = nb.Session("class", store=tmp_path / "elsewhere")
    replay = other.replay(file, speed=None)
    replay.wait(30)
    assert {artifact.name for artifact in replay.artifacts} == {"note.txt", "bytes.bin"}
    kept = nb.artifacts_df(store=other.store, full=True).set_index("name")["content"]
    assert kept.to_dict() == {"note.txt": b"tea\n", "bytes.bin": bytes(range(256))}
    assert replay.output == run.output
    other.end()


def test_a_replay_outlives_its_session_when_detached(session: nb.Session) -> None:
    run = session.shell("echo hi")
    run.wait(20)
    replay = session.replay(run.export("x.jsonl"), speed=None, detach=True)
    assert replay.wait(30).stdout == "hi\n"
    assert nb.attach(replay.id, session.store).status == "completed"


def test_what_a_run_changed_in_its_workspace_comes_back_without_its_folder(session: nb.Session) -> None:
    for line in ("init -q repo", "-C repo config user.email a@b.c", "-C repo config user.name n"):
        subprocess.run(["git", *line.split()], check=True)
    Path("repo/a.txt").write_text("one\n", encoding="utf-8")
    for line in ("add .", "commit -q -m first"):
        subprocess.run(["git", "-C", "repo", *line.split()], check=True)
    run = session.shell("echo two >> a.txt", workspace=nb.Worktree("repo"))
    run.wait(60)
    replay = again(session, run)
    rows = session.runs_df()[["files_changed", "insertions", "deletions"]].to_numpy().tolist()
    assert rows[0] == rows[1] == [1, 1, 0]
    assert replay.diff == run.diff
    assert str(Path.cwd()) not in Path(f"recorded/{run.id}.jsonl").read_text(encoding="utf-8")
    with pytest.raises(nb.ConfigError, match=r"a replay does not say which folder"):
        replay.apply()
    assert replay.apply("repo") == ["a.txt"]
    assert Path("repo/a.txt").read_text(encoding="utf-8") == "one\ntwo\n"


# --- the command


def test_the_command_exports_shows_and_prints(session: nb.Session, capfd: pytest.CaptureFixture[str]) -> None:
    run = session.shell("echo hi", name="greet")
    run.wait(20)
    session.end()
    store = ["--store", str(session.store)]
    assert cli.main(["export", "greet", "out/greet.jsonl", *store]) == 0
    assert capfd.readouterr().out == "out/greet.jsonl\n"
    assert cli.main(["export", "greet", "out/greet.jsonl", *store]) == 2
    assert "is there already" in capfd.readouterr().err
    assert cli.main(["export", "nobody", "x.jsonl", *store]) == 2
    capfd.readouterr()
    with nb.Session("class", store=session.store) as other:
        replay = other.replay("out/greet.jsonl", name="again")
        replay.wait(20)
    assert cli.main(["logs", "again", *store]) == 0
    assert capfd.readouterr().out == "hi\n"
    assert cli.main(["show", "again", *store]) == 0
    assert re.search(rf"^replay_of +{run.id}$", capfd.readouterr().out, re.MULTILINE)


def test_a_run_of_the_history_is_exported_by_its_name(session: nb.Session) -> None:
    session.shell("echo hi", name="greet").wait(20)
    assert lines(nb.export("greet", "x.jsonl", store=session.store))[-1]["type"] == "run_finished"
    with pytest.raises(nb.ConfigError, match="there is no run 'nobody'"):
        nb.export("nobody", "y.jsonl", store=session.store)
    with pytest.raises(nb.ConfigError, match="is no run's id or name"):
        nb.export(7, "y.jsonl", store=session.store)
