"""Workspaces from a cell: diffs, columns, and changes that are brought back, or refused and then nothing is changed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pandas as pd
import pytest

import agentnb as nb
from tests.notebook.polling import until
from tests.repositories import WHO, git, repository, state

COUNTS = ["files_changed", "insertions", "deletions"]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, in which the notebook is."""
    folder = repository(tmp_path / "repo", {"old.txt": "one\ntwo\n", "code.py": "".join(f"line {n}\n" for n in range(30))})
    monkeypatch.chdir(folder)
    return folder


def test_the_cell_of_the_manual(session: nb.Session, repo: Path) -> None:
    run = session.shell("echo x > new.txt; git rm -q old.txt", workspace=nb.Worktree("."))
    assert run.wait().status == "completed"
    assert "+++ b/new.txt\n@@ -0,0 +1 @@\n+x\n" in run.diff
    assert session.runs_df()[COUNTS].to_numpy().tolist() == [[2, 1, 2]]
    assert run.workspace is None
    assert run.apply() == ["new.txt", "old.txt"]
    assert sorted(os.listdir()) == [".git", "code.py", "new.txt"]
    assert git(repo, "diff", "--cached", "--name-only") == ""
    rows = pd.DataFrame({"word": ["a", "b c"]})
    group = session.map(nb.Command(["sh", "-c", 'echo "$1" > old.txt', "sh", "{{word}}"]), rows, workspace=nb.Worktree(repo, "HEAD"))
    group.wait()
    assert group.df()["files_changed"].tolist() == [1, 1]
    assert ["+b c" in run.diff for run in group] == [False, True]


def test_columns_are_na_without_a_workspace_and_tell_where_the_work_is(session: nb.Session, repo: Path) -> None:
    plain = session.shell("true")
    kept = session.shell("git commit --allow-empty -qm x; echo x > y", workspace=nb.Worktree(repo, cleanup="keep"), env=WHO)
    session.wait()
    df = session.runs_df().set_index("id")
    assert [str(df[name].dtype) for name in [*COUNTS, "workspace", "branch"]] == ["Int64"] * 3 + ["string"] * 2
    assert all(pd.isna(df.loc[plain.id, name]) for name in [*COUNTS, "workspace", "branch"])
    assert [df.loc[kept.id, name] for name in COUNTS] == [1, 1, 0]
    assert Path(str(df.loc[kept.id, "workspace"])) == kept.workspace
    assert str(df.loc[kept.id, "branch"]).startswith("agentnb/")
    assert kept.workspace is not None
    assert (kept.workspace / "y").exists()


def test_changes_are_merged_into_what_changed_meanwhile(session: nb.Session, repo: Path) -> None:
    run = session.shell("sed -i 's/line 3$/line three/' code.py; printf '\\0\\1' > bin; chmod +x old.txt", workspace=nb.Worktree(repo))
    run.wait()
    text = (repo / "code.py").read_text()
    (repo / "code.py").write_text("before\n" + text.replace("line 5\n", "line five\n"))
    before = state(repo)[1:]
    assert sorted(run.apply()) == ["bin", "code.py", "old.txt"]
    assert (repo / "code.py").read_text() == "before\n" + text.replace("line 5\n", "line five\n").replace("line 3\n", "line three\n")
    assert (repo / "bin").read_bytes() == b"\0\1"
    assert os.access(repo / "old.txt", os.X_OK)
    assert state(repo)[1:] == before
    with pytest.raises(nb.ConfigError, match="are in .* already; nothing was changed"):
        run.apply()


def test_a_conflict_names_the_files_and_changes_nothing(session: nb.Session, repo: Path) -> None:
    command = "sed -i 's/line 3$/mine/' code.py; echo mine > old.txt; echo mine > new.txt; echo fine > other.txt"
    run = session.shell(command, workspace=nb.Worktree(repo))
    run.wait()
    (repo / "code.py").write_text((repo / "code.py").read_text().replace("line 3\n", "yours\n"))
    (repo / "new.txt").write_text("yours\n")
    before = {path.name: path.read_bytes() for path in repo.iterdir() if path.is_file()}
    with pytest.raises(nb.ApplyConflict, match=r"changed otherwise meanwhile: .*code\.py.*; nothing was changed; commit or undo") as caught:
        run.apply()
    assert {"code.py", "new.txt"} <= set(caught.value.files)
    assert {path.name: path.read_bytes() for path in repo.iterdir() if path.is_file()} == before
    (repo / "old.txt").unlink()
    with pytest.raises(nb.ApplyConflict):
        run.apply()
    assert not (repo / "other.txt").exists()


def test_a_link_in_the_target_is_not_followed(session: nb.Session, repo: Path, tmp_path: Path) -> None:
    run = session.shell("mkdir sub; echo x > sub/f", workspace=nb.Worktree(repo))
    run.wait()
    outside = tmp_path / "outside"
    outside.mkdir()
    (repo / "sub").symlink_to(outside)
    with pytest.raises(nb.ApplyConflict, match="lies behind a symbolic link"):
        run.apply()
    assert list(outside.iterdir()) == []


def test_changes_go_into_another_checkout_and_into_a_copied_folder(session: nb.Session, repo: Path, tmp_path: Path) -> None:
    git(repo, "clone", "-q", str(repo), str(tmp_path / "clone"))
    (tmp_path / "clone" / "inner").mkdir()
    run = session.shell("echo 3 >> old.txt", workspace=nb.Worktree(repo))
    run.wait()
    assert run.apply(tmp_path / "clone" / "inner") == ["old.txt"]
    assert (tmp_path / "clone" / "old.txt").read_text() == "one\ntwo\n3\n"
    assert (repo / "old.txt").read_text() == "one\ntwo\n"
    plain = tmp_path / "plain"
    (plain / "sub").mkdir(parents=True)
    (plain / "sub" / "a").write_text("1\n")
    copied = session.shell("pwd; echo 2 >> a; echo n > 'new file'", workspace=nb.TempCopy(plain), working_dir="sub")
    copied.wait()
    assert copied.stdout.strip().endswith("/sub")
    assert sorted(copied.apply()) == ["sub/a", "sub/new file"]
    assert (plain / "sub" / "a").read_text() == "1\n2\n"
    for target, says in ((tmp_path / "gone", "is not there"), (plain, "is no checkout of a git repository")):
        with pytest.raises(nb.ConfigError, match=says):
            run.apply(target)


def test_what_cannot_be_applied_says_why(session: nb.Session, repo: Path) -> None:
    plain = session.shell("true")
    shared = session.shell("echo x > y", workspace=nb.Shared(repo))
    session.wait()
    live = session.shell("echo up; sleep 1000", workspace=nb.Worktree(repo), env={"TOKEN": nb.Secret("hush-hush-42")})
    until(lambda: live.status is nb.RunStatus.RUNNING)
    for run, says in ((plain, "it had no workspace; launch it with"), (live, "is still running")):
        with pytest.raises(nb.ConfigError, match=f"apply: .*{says}"):
            run.apply()
        with pytest.raises(nb.ConfigError, match=f"diff: .*{says}"):
            run.diff  # noqa: B018
    assert live.workspace is not None
    live.cancel()
    assert live.wait().status == "cancelled"
    assert (live.diff, live.apply()) == ("", [])
    with pytest.raises(nb.ConfigError, match="itself: its changes are there already"):
        shared.apply()
    assert "+x" in shared.diff
    masked = session.shell("echo $TOKEN > y", workspace=nb.Worktree(repo), env={"TOKEN": nb.Secret("hush-hush-42")})
    masked.wait()
    assert "hush" not in masked.diff
    with pytest.raises(nb.ConfigError, match="held a secret, which is masked in it"):
        masked.apply()


def test_a_run_of_the_history_is_applied_in_another_process(run_script: Callable[[str], str], session: nb.Session, repo: Path) -> None:
    session.shell("echo 3 >> old.txt", workspace=nb.Worktree(repo), name="made").wait()
    said = run_script("again = nb.attach('made')\nprint(again.apply(), again.workspace, '+3' in again.diff)")
    assert said == "['old.txt'] None True\n"
    assert (repo / "old.txt").read_text() == "one\ntwo\n3\n"


def test_the_work_of_a_killed_notebook_is_found_read_and_applied(
    start_script: Callable[[str], Popen[str]], repo: Path, store: Path
) -> None:
    script = start_script(
        f"space = nb.Worktree({str(repo)!r}, cleanup='always')\n"
        "run = session.shell('echo precious > y; echo up; sleep 1000', workspace=space, name='cut')\n"
        "import time\n"
        "while 'up' not in run.stdout: time.sleep(0.05)\n"
        "print('there', flush=True)\ntime.sleep(1000)\n"
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "there\n"
    script.send_signal(signal.SIGKILL)
    script.wait()
    until(lambda: nb.runs_df(store=store)["status"].tolist() == ["interrupted"])
    again = nb.attach("cut", store=store)
    folder = nb.runs_df(store=store)["workspace"][0]
    assert again.workspace == Path(folder)
    assert (Path(folder) / "y").read_text() == "precious\n"
    assert "+precious" in again.diff
    assert again.apply() == ["y"]
    assert (repo / "y").read_text() == "precious\n"


def test_a_python_agent_works_in_its_workspace(session: nb.Session, repo: Path) -> None:
    def agent(ctx: nb.RunContext, word: str) -> str:
        Path("made").write_text(word)
        ctx.artifact("copy", Path("made"))
        return os.getcwd()

    run = session.python(agent, "x", workspace=nb.Worktree(repo, cleanup="keep"))
    run.wait()
    assert (run.output, Path(run.output)) == (str(run.workspace), run.workspace)
    assert {artifact.name for artifact in run.artifacts} == {"copy", "changes.patch", "made"}
    assert not (repo / "made").exists()


def test_a_session_gives_its_workspace_to_all_its_runs(new_session: Callable[..., nb.Session], repo: Path) -> None:
    with new_session(workspace=nb.TempCopy(repo), max_parallel=2) as session:
        runs = [session.shell(f"echo {n} > f; ls | wc -l") for n in range(3)]
        other = session.shell("pwd", workspace=nb.Shared(repo))
    assert [run.stdout.strip() for run in runs] == ["3"] * 3
    assert other.stdout.strip() == str(repo)


def test_what_is_wrong_with_a_workspace_is_told_by_validate_and_launch_alike(session: nb.Session, repo: Path) -> None:
    assert session.validate(nb.Shell("ls"), workspace=nb.Worktree(repo), working_dir=".") == []
    for options in ({"workspace": nb.Worktree(repo, "gone")}, {"workspace": "here"}, {"workspace": nb.TempCopy("no-such")}):
        [issue] = session.validate(nb.Shell("ls"), **options)
        with pytest.raises(nb.ConfigError) as caught:
            session.shell("ls", **options)
        assert str(caught.value) == issue.message
    assert session.runs == []


def test_the_record_of_a_workspace_is_json_in_the_history(session: nb.Session, repo: Path) -> None:
    run = session.shell("true", workspace=nb.Worktree(repo))
    run.wait()
    events = session.events_df(run=run, full=True, where="type = 'workspace_changed'")["data"].tolist()
    assert [event["workspace"]["kept"] for event in events] == [True, True, False]
    assert json.dumps(events)
