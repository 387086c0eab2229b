"""nb.gc and nb.backup in a notebook: with live sessions, handles of what went, detached runs, and workspaces that hold work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb import cli
from agentnb.history.frames import frames
from tests.history.keeping.kept import check_whole, ids, write
from tests.history.making import table
from tests.repositories import WHO, git, repository, state

LONG = "seq 20000"  # more than what lives in the database


@pytest.fixture
def ended(store: Path) -> tuple[nb.RunHandle, nb.RunHandle]:
    """A long and a short run of a session that is over."""
    with nb.Session("over", store=store) as session:
        return session.shell(LONG, name="long"), session.shell("echo short; echo x > kept", name="short", artifacts=["kept"])


def test_handles_of_runs_that_went_say_so(store: Path, ended: tuple[nb.RunHandle, nb.RunHandle]) -> None:
    long, short = ended
    with nb.Session("grid", store=store) as session:
        group = session.map(nb.Shell("true"), [{"n": 1}])
    done = nb.gc(older_than=0, store=store)
    assert (done.runs, done.sessions) == (3, 2)
    assert nb.runs_df(store=store).empty
    gone = "is not in the history any more: `agentnb gc` removed runs, last at 20"
    for read in (lambda: long.stdout, long.tail, lambda: long.result.stdout, lambda: long.steps, lambda: short.artifacts):  # type: ignore[union-attr]
        with pytest.raises(nb.StoreError, match=gone):
            read()
    assert short.stdout == "short\n", "what the handle has in memory it still has"
    assert short.result is not None
    assert short.result.status == "completed"
    with pytest.raises(nb.ConfigError, match=f"of this group .*{gone}"):
        group.df()
    for read in (lambda: long.diff, lambda: short.export("x.jsonl")):
        with pytest.raises(nb.ConfigError, match=r"there is no run .*; `agentnb gc` removed runs, last at 20"):
            read()


def test_a_live_session_keeps_its_runs_and_others_go(store: Path, ended: tuple[nb.RunHandle, nb.RunHandle]) -> None:
    with nb.Session("live", store=store) as session:
        done, works = session.shell(LONG), session.shell("read x; echo $x", stdin=True)
        done.wait()
        collected = nb.gc(older_than=0, store=store)
        assert collected.runs == 2
        assert sum(collected.kept.values()) == 2
        works.send("go\n", eof=True)
        assert works.wait().stdout == "go\n"
        assert done.stdout.endswith("20000\n")
        assert nb.gc(session=session, store=store).runs == 0
    check_whole(store)
    assert nb.gc(session="live", store=store).runs == 2


def test_runs_that_work_while_gcs_go_on_lose_nothing(store: Path, ended: tuple[nb.RunHandle, nb.RunHandle]) -> None:
    with nb.Session("grid", store=store, max_parallel=4) as session:
        work = "mkdir {0}; cd {0}; echo {0} > own; echo same > same; seq 9000"
        runs = [session.shell(work.format(n), artifacts=[f"{n}/*"]) for n in range(12)]
        while not all(run.done for run in runs):
            nb.gc(older_than=0, store=store)
        nb.gc(older_than=0, store=store)
        found = session.artifacts_df(full=True)
        assert (len(found), set(found["content"])) == (24, {b"same\n", *(b"%d\n" % n for n in range(12))})
        assert all(run.stdout.endswith("9000\n") for run in runs)
    assert set(ids(store).split()) == {run.id for run in runs}


def test_a_detached_run_and_its_session_stay_when_the_session_is_over(store: Path) -> None:
    with nb.Session("detached", store=store) as session:
        short, far = session.shell("true"), session.shell("sleep 600", detach=True)
        short.wait()
    assert nb.gc(older_than=0, store=store).kept == {
        "it is live, or goes together with one that is": 1,
        "its session is live": 1,
    }
    far.cancel()
    far.wait()
    assert nb.gc(older_than=0, store=store).runs == 2


@pytest.mark.parametrize("age", ["1h", 3600, timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1), "2026-01-01"])
def test_an_age_is_a_span_or_a_moment(store: Path, ended: tuple[nb.RunHandle, nb.RunHandle], age: Any) -> None:
    assert nb.gc(older_than=age, store=store).runs == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"older_than": "a while"}, "older_than: 'a while' is no time"),
        ({"older_than": -1}, "older_than: -1 "),
        ({"older_than": True}, "older_than: True"),
        ({"max_size": "much"}, "max_size: 'much' is not a size"),
        ({"max_size": -5}, "max_size: -5"),
        ({"session": "ovr"}, "there is no session 'ovr' in .*did you mean 'over'"),
        ({"session": 3}, "session: 3 is no session"),
        ({"session": [None]}, "there is no session None"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_goes(
    store: Path, ended: tuple[nb.RunHandle, nb.RunHandle], given: Any, says: str
) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        nb.gc(**given, store=store)
    assert len(ids(store).split()) == 2


def test_a_store_that_is_not_there_is_not_made(store: Path) -> None:
    for call in (lambda: nb.gc(store=store), lambda: nb.backup("copy", store=store)):
        with pytest.raises(nb.StoreError, match="there is no history at"):
            call()
    assert not store.exists()
    assert not Path("copy").exists()


# --- workspaces


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = repository(tmp_path / "repo")
    monkeypatch.chdir(folder)
    return folder


def left(store: Path, command: str, **options: Any) -> nb.RunHandle:
    """A run that failed, whose workspace was left."""
    with nb.Session("work", store=store) as session:
        run = session.shell(f"{command}; exit 3", **({"workspace": nb.Worktree(".")} | options))
    assert run.workspace is not None
    return run


def test_a_workspace_that_was_left_keeps_its_run_until_it_is_asked_for(store: Path, repo: Path) -> None:
    before = state(repo)
    run = left(store, "echo unsaved > new.txt")
    folder = run.workspace
    assert folder is not None
    done = nb.gc(older_than=0, store=store)
    assert (done.runs, done.kept) == (0, {"the folder of its workspace is still there": 1})
    assert (folder / "new.txt").read_text() == "unsaved\n"
    assert nb.gc(older_than=0, workspaces=True, dry_run=True, store=store).runs == 1
    assert (folder / "new.txt").exists()
    done = nb.gc(older_than=0, workspaces=True, store=store)
    assert done.runs == 1
    assert not folder.exists()
    assert state(repo) == before
    assert str(folder) not in git(repo, "worktree", "list", "--porcelain")


def test_a_branch_with_commits_is_never_removed(store: Path, repo: Path) -> None:
    run = left(store, "git commit --allow-empty -qm work; git checkout -q --detach; git commit --allow-empty -qm loose", env=WHO)
    nb.gc(older_than=0, workspaces=True, store=store)
    assert ids(store) == ""
    said = git(repo, "log", "--branches=agentnb/*", "--format=%s")
    assert "work" in said.splitlines()
    assert "loose" in said.splitlines()
    assert run.id not in git(repo, "worktree", "list")


def test_a_copy_that_was_left_goes_too_and_its_source_stays(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("mine")
    run = left(store, "echo x > b; chmod -w .", workspace=nb.TempCopy(source))
    folder = run.workspace
    assert nb.gc(older_than=0, workspaces=True, store=store).runs == 1
    assert folder is not None
    assert not folder.exists()
    assert os.listdir(source) == ["a"]


@pytest.mark.parametrize("told", ["link", "dot git", "source", "record"])
def test_a_folder_that_leads_elsewhere_is_left_and_so_is_where_it_leads(store: Path, repo: Path, tmp_path: Path, told: str) -> None:
    run = left(store, "echo x > new.txt")
    folder, victim = run.workspace, repository(tmp_path / "victim")
    git(victim, "worktree", "add", "-q", str(tmp_path / "other"), "-b", "theirs")
    assert folder is not None
    if told == "link":
        folder.rename(tmp_path / "moved")
        folder.symlink_to(victim)
    elif told == "dot git":
        (folder / ".git").write_text((tmp_path / "other" / ".git").read_text())
    else:
        record = "{}" if told == "record" else json.dumps(nb_workspace(store) | {"source": str(victim)})
        write(store, "UPDATE runs SET workspace = ?", record)
    before, branches = state(victim), git(repo, "branch", "--list")
    done = nb.gc(older_than=0, workspaces=True, store=store)
    assert done.runs == (told == "record")  # then the run is one without a workspace
    assert any(run.id in note and "remove it by hand" in note for note in done.notes)
    assert (victim / "old.txt").exists()
    assert (tmp_path / "other" / "old.txt").exists()
    assert (state(victim), git(repo, "branch", "--list")) == (before, branches)
    assert os.path.lexists(folder)


def nb_workspace(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(table(store, "runs")[0]["workspace"])
    return found


# --- the command line


@pytest.fixture
def command(store: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def go(*words: str) -> tuple[int, str, str]:
        return cli.main([*words, "--store", str(store)]), *capsys.readouterr()

    return go


def test_the_command_line_says_what_goes(store: Path, ended: tuple[nb.RunHandle, nb.RunHandle], command: Any) -> None:
    code, out, err = command("gc", "--older-than", "0s", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("2 runs, 1 session, 1 artifact content, 0 leftover files would go: about ")
    code, out, _ = command("gc", "--session", "over", "--max-size", "10GiB", "--format", "json")
    assert (code, json.loads(out)["runs"]) == (0, 0)
    code, out, _ = command("gc", "--session", "over", "--format", "json")
    found = json.loads(out)
    assert (found["runs"], found["dry_run"], found["by_session"][0]["name"]) == (2, False, "over")
    assert command("runs", "--format", "json")[1] == "[]\n"
    assert "`agentnb gc` removed runs, last at" in command("show", ended[0].id)[2]


@pytest.mark.parametrize("words", [["--older-than", "x"], ["--max-size", "-1"], ["--session", "no such"]])
def test_bad_usage_is_exit_code_2(ended: tuple[nb.RunHandle, nb.RunHandle], command: Any, words: list[str]) -> None:
    code, out, err = command("gc", *words)
    assert (code, out) == (2, "")
    assert err.startswith("agentnb: ")


def test_a_backup_from_the_command_line_is_a_store(
    store: Path, tmp_path: Path, ended: tuple[nb.RunHandle, nb.RunHandle], command: Any
) -> None:
    code, out, _ = command("backup", str(tmp_path / "copy"))
    assert code == 0
    assert "2 runs, 1 artifact content" in out
    assert frames.runs_df(tmp_path / "copy", full=True).equals(frames.runs_df(store, full=True))
    assert (tmp_path / "copy" / "runs" / ended[0].id / "stdout.log").stat().st_size == ended[0].result.stdout_bytes  # type: ignore[union-attr]
    assert command("backup", str(tmp_path / "copy"))[0] == 2
