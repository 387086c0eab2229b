"""Secrets of a run are nowhere in its record, whatever else they were written into."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import agentnb as nb

SECRET = 'hunter2-é"x\\y'


def found_in(store: Path) -> list[str]:
    """What of the store holds the start of the secret: files, and rows of the database."""
    found = [str(path) for path in store.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    with closing(sqlite3.connect(store / "history.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found += [table for table in tables for row in db.execute(f"SELECT * FROM {table}") if "hunter2" in repr(row)]
    return found


def everywhere(session: nb.Session, **options: object) -> list[nb.RunHandle]:
    given = {"name": SECRET, "params": {"p": [SECRET, {SECRET: 1}]}, "tags": {SECRET: SECRET}} | options
    unnamed = {name: value for name, value in given.items() if name != "name"}
    group = session.map(nb.Shell("printf %s {{word}} " + "#" * 40 + SECRET), [{"word": SECRET}], **given | {"params": {}})
    runs = [
        session.command(["printf", "%s", SECRET], **given),
        session.shell("true # " + "x" * 45 + SECRET, **unnamed),
        session.test("true", validation_script=f": '{SECRET}'", **given),
        session.launch(nb.Python(str, SECRET), **given),
        session.launch(nb.Python(str, [SECRET * 3]), **unnamed),
        session.shell("true", **given, validation=nb.Validation(expected_pattern="never"), cleanup=f": '{SECRET}'"),
    ]
    assert "hunter2" not in repr(group)
    return [*group, *runs]


def test_a_secret_is_masked_in_all_that_is_recorded_of_a_run(new_session: Callable[..., nb.Session], store: Path) -> None:
    session = new_session(SECRET, env={"K": nb.Secret(SECRET)}, tags={"t": SECRET})
    runs = everywhere(session)
    for run in runs:
        run.wait(20)
        assert "hunter2" not in repr([run, run.name, run.params, run.spec, run.stdout, run.result, run.steps, run.snapshot()])
    assert [run.status.value for run in runs] == ["completed"] * 6 + ["failed"]
    session.end()
    assert found_in(store) == []


def test_the_secret_of_a_launch_or_a_handler_counts_as_well(session: nb.Session, store: Path) -> None:
    for options in ({"env": {"K": nb.Secret(SECRET)}}, {"on_success": nb.Handler(nb.Shell("true", env={"K": nb.Secret(SECRET)}))}):
        for run in everywhere(session, **options):
            run.wait(20)
    session.end()
    assert found_in(store) == []


def test_the_child_still_gets_the_real_command_and_parameters(session: nb.Session, tmp_path: Path) -> None:
    def agent(ctx: nb.RunContext, word: str) -> bool:
        return word == ctx.params["p"] and word.startswith("hunter2")

    async def hosted(ctx: nb.RunContext, word: str) -> bool:
        return word == ctx.params["p"] and word.startswith("hunter2")

    options = {"params": {"p": SECRET}}
    one = nb.Session("hidden", store=session.store, env={"K": nb.Secret(SECRET)})
    made = one.command(["touch", str(tmp_path / "hunter2-made")], **options)
    runs = [one.python(agent, SECRET, **options), one.python(hosted, SECRET, **options), made]
    assert [run.wait(20).status for run in runs] == ["completed"] * 3
    assert [run.output for run in runs[:2]] == [True, True]
    assert [run.params for run in runs] == [{"p": "***"}] * 3
    assert (tmp_path / "hunter2-made").exists()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_text_given_as_an_artifact_is_masked_and_a_file_is_not(
    new_session: Callable[..., nb.Session], tmp_path: Path, asynchronous: bool
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("the key is hunter2", encoding="utf-8")

    def agent(ctx: nb.RunContext) -> None:
        ctx.artifact("text", "the key is hunter2")
        ctx.artifact("data", {"hunter2": ["hunter2"]})
        ctx.artifact("bytes", b"\xffhunter2")
        ctx.artifact("file", path)

    async def hosted(ctx: nb.RunContext) -> None:
        agent(ctx)

    session = new_session(env={"K": nb.Secret("hunter2")})
    assert session.python(hosted if asynchronous else agent).wait(20).status == "completed"
    frame = session.artifacts_df(full=True).set_index("name")
    assert {name: b"hunter2" in bytes(frame.content[name]) for name in frame.index} == {
        "text": False, "data": False, "bytes": False, "file": True,
    }  # fmt: skip


def test_a_short_secret_spoils_no_names_of_fields(new_session: Callable[..., nb.Session]) -> None:
    session = new_session(env={"K": nb.Secret("e"), "L": nb.Secret("shell")})
    run = session.shell("echo fine", validation=nb.Validation(expected_pattern="never"), cleanup="true")
    assert run.wait(20).status == "failed"
    assert (run.spec["type"], run.spec["command"]) == ("shell", "***cho fin***")
    assert run.result is not None
    assert [issue.check for issue in run.result.validation] == ["expected_pattern"]
    assert session.runs_df().kind.tolist() == ["shell"]
