"""Workspaces: made before a run, read after it, removed when nothing is lost by it; nobody else's files are touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentnb.agents.workspaces import plan_of
from agentnb.engine import changes, copying, listing
from agentnb.engine.copying import remove_folder
from agentnb.events import RunFinished
from agentnb.history.artifacts import Blobs
from agentnb.workspaces import AnyWorkspace, Shared, TempCopy, Worktree
from tests.engine.driver import Engine, Loop, Lost, Watched, lives, running, wait_until
from tests.repositories import WHO, git, repository, state


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo")


@pytest.fixture
def engine(store: Path, loop: Loop) -> Iterator[Engine]:
    with running(store, loop, max_parallel=8) as engine:
        yield engine


def launch(engine: Engine, space: AnyWorkspace, command: str | list[str], **work: Any) -> Watched:
    plan = plan_of(space)
    return engine.launch(command, **({"workspace": plan, "cwd": plan["source"], "env": WHO} | work))


def run(engine: Engine, space: AnyWorkspace, command: str | list[str], **work: Any) -> tuple[Watched, RunFinished]:
    watched = launch(engine, space, command, **work)
    return watched, watched.wait(90)


def row(engine: Engine, watched: Watched) -> dict[str, Any]:
    """What the history says of the run's workspace."""
    engine.settle()
    names = ("workspace", "files_changed", "insertions", "deletions")
    [values] = engine.rows(f"SELECT {', '.join(names)} FROM runs WHERE id = ?", watched.id)
    return dict(zip(names, (json.loads(values[0]) if values[0] else {}, *values[1:]), strict=True))


def counts(engine: Engine, watched: Watched) -> tuple[int | None, int | None, int | None]:
    found = row(engine, watched)
    return found["files_changed"], found["insertions"], found["deletions"]


def artifacts(engine: Engine, watched: Watched) -> dict[str, bytes]:
    engine.settle()
    rows = engine.rows("SELECT name, checksum FROM artifacts WHERE source_run = ? ORDER BY rowid", watched.id)
    assert len({name for name, _ in rows}) == len(rows)
    return {name: Blobs(engine.store / "blobs").read(checksum) for name, checksum in rows}


def warnings(end: RunFinished) -> str:
    return "\n".join(end.detail.get("warnings", []))


def folders(engine: Engine) -> list[str]:
    return sorted(os.listdir(engine.store / "workspaces"))


def short(watched: Watched) -> str:
    return watched.id.replace("-", "")[-12:]


# --- worktrees


def test_a_worktree_is_made_read_and_removed_and_the_checkout_is_left_alone(engine: Engine, repo: Path) -> None:
    before = state(repo)
    watched, end = run(engine, Worktree(repo), "echo x > new.txt; git rm -q old.txt; pwd; git branch --show-current")
    assert (end.status, warnings(end)) == ("completed", "")
    folder, branch = watched.stdout().decode().split()
    assert folder == str(engine.store / "workspaces" / watched.id)
    assert branch == f"agentnb/{short(watched)}"
    assert counts(engine, watched) == (2, 1, 2)
    kept = artifacts(engine, watched)
    assert list(kept) == ["changes.patch", "new.txt"]
    assert kept["new.txt"] == b"x\n"
    assert folders(engine) == []
    assert state(repo) == before
    assert git(repo, "worktree", "list").count("\n") == 0
    assert end.detail["metadata"]["git_commit"] == git(repo, "rev-parse", "HEAD")
    assert end.detail["metadata"]["working_directory"] == folder
    assert not (engine.store / "runs" / watched.id / "workspace").exists()


def test_a_run_that_changes_nothing_has_zeros_and_one_without_workspace_has_nothing(engine: Engine, repo: Path) -> None:
    watched, _ = run(engine, Worktree(repo), "touch old.txt")
    assert counts(engine, watched) == (0, 0, 0)
    assert artifacts(engine, watched) == {}
    plain = engine.launch("true")
    plain.wait()
    assert row(engine, plain) == {"workspace": {}, "files_changed": None, "insertions": None, "deletions": None}


def test_commits_uncommitted_and_untracked_changes_count_and_ignored_ones_do_not(engine: Engine, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {".gitignore": "*.o\n", "a": "1\n", "b": "1\n", "c": "1\n"})
    command = "echo 2 >> a; git commit -qam mine; echo 2 >> b; git add b; echo 2 >> c; echo n > d; echo o > e.o"
    watched, _ = run(engine, Worktree(repo), command)
    assert counts(engine, watched) == (4, 4, 0)
    kept = artifacts(engine, watched)
    assert set(kept) == {"changes.patch", "commits.json", "d"}
    [commit] = json.loads(kept["commits.json"])
    assert (commit["subject"], commit["author"]) == ("mine", "author@example.invalid")
    branch = row(engine, watched)["workspace"]["branch"]
    assert git(repo, "rev-parse", branch) == commit["commit"]
    assert folders(engine) == []


@pytest.mark.slow
@pytest.mark.parametrize("commits", [False, True])
def test_twenty_runs_on_one_repository_never_see_each_others_files(store: Path, loop: Loop, repo: Path, *, commits: bool) -> None:
    before = state(repo)
    with running(store, loop, max_parallel=20) as engine:
        rest = "git add --all && git commit -qm $N;" if commits else ""
        meet = f"touch {store}/met-$N; while [ $(ls {store} | grep -c met-) -lt 20 ]; do sleep 0.1; done;"
        command = f"echo $N > mine-$N; echo $N >> old.txt; {meet} {rest} ls; cat old.txt"
        runs = [launch(engine, Worktree(repo), command, env=WHO | {"N": str(n)}) for n in range(20)]
        for number, watched in enumerate(runs):
            assert watched.wait(110).status == "completed", watched.stderr()
            assert watched.stdout().decode().split() == [f"mine-{number}", "old.txt", "one", "two", str(number)]
            assert counts(engine, watched) == (2, 2, 0)
        branches = {row(engine, watched)["workspace"]["branch"] for watched in runs}
        assert len(branches) == (20 if commits else 1)
        assert folders(engine) == []
    assert git(repo, "worktree", "list").count("\n") == 0
    assert len(git(repo, "branch", "--list", "agentnb/*").splitlines()) == (20 if commits else 0)
    assert (git(repo, "status", "--porcelain"), git(repo, "rev-parse", "HEAD")) == before[:2]


def test_what_is_not_committed_is_not_in_the_worktree_and_a_warning_says_so(engine: Engine, repo: Path) -> None:
    (repo / "old.txt").write_text("changed\n")
    (repo / "draft").write_text("x\n")
    watched, end = run(engine, Worktree(repo), "cat old.txt; ls")
    assert watched.stdout() == b"one\ntwo\nold.txt\n"
    assert "has uncommitted changes, which the worktree has not: draft, old.txt; commit them" in warnings(end)
    git(repo, "commit", "-am", "second")
    (repo / "draft").unlink()
    watched, end = run(engine, Worktree(repo, "HEAD~1"), "cat old.txt")
    assert (watched.stdout(), warnings(end)) == (b"one\ntwo\n", "")


@pytest.mark.parametrize(
    ("policy", "command", "kept"),
    [("keep", "true", True), ("on_success", "true", False), ("on_success", "exit 3", True), ("always", "exit 3", False)],
)
def test_the_folder_stays_as_the_clean_up_policy_says(engine: Engine, repo: Path, policy: Any, command: str, *, kept: bool) -> None:
    for space in (Worktree(repo, cleanup=policy), TempCopy(repo, cleanup=policy)):
        watched, _ = run(engine, space, f"echo x > y; {command}")
        found = row(engine, watched)["workspace"]
        assert (found["kept"], Path(found["path"]).is_dir()) == (kept, kept)
        assert "changes.patch" in artifacts(engine, watched)
        assert counts(engine, watched) == (1, 1, 0)


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_the_changes_of_a_run_that_was_ended_are_kept_too(engine: Engine, repo: Path, how: str) -> None:
    watched = launch(engine, Worktree(repo), "echo x > y; echo ready; exec sleep 1000", timeout_s=3.0 if how == "timeout" else None)
    watched.watch()
    wait_until(lambda: "ready" in watched.seen() or watched.done.done(), "the change")
    if how == "cancelled":
        watched.cancel()
    assert watched.wait().status == how
    assert artifacts(engine, watched)["y"] == b"x\n"
    assert row(engine, watched)["workspace"]["kept"]


def test_a_second_attempt_gets_a_fresh_workspace_and_the_first_ones_changes_are_kept(engine: Engine, repo: Path) -> None:
    retry = {"max_attempts": 3, "strategy": "constant", "initial_delay": 0.0, "max_delay": 0.0, "jitter": 0.0, "on_exit_codes": [7]}
    command = "ls; pwd; echo $AGENTNB_ATTEMPT > n; git add n; git commit -qm n; test $AGENTNB_ATTEMPT = 2 || exit 7"
    for space in (Worktree(repo), TempCopy(repo)):
        watched, end = run(engine, space, command, retry=retry)
        assert (end.status, end.attempts) == ("completed", 2), warnings(end)
        listed, folder = watched.stdout().decode().split()
        assert (listed, folder) == ("old.txt", str(engine.store / "workspaces" / f"{watched.id}.2"))
        kept = artifacts(engine, watched)
        assert kept["n"] == b"2\n"
        assert b"+1\n" in kept["changes.1.patch"]
        assert ("commits.1.json" in kept, "commits.1.bundle" in kept) == (True, space.type == "temp_copy")
        assert b"+2\n" in kept["changes.patch"]
        assert counts(engine, watched) == (1, 1, 0)
    assert folders(engine) == []
    names = git(repo, "branch", "--list", "agentnb/*", "--format=%(refname:short)").split()
    assert [git(repo, "show", f"{name}:n") for name in sorted(names)] == ["1", "2"]


def test_handlers_checks_and_artifacts_work_in_the_workspace(engine: Engine, repo: Path, tmp_path: Path) -> None:
    handlers = [{"when": "cleanup", "argv": ["sh", "-c", "pwd > where; rm big"], "display": "x", "cwd": str(repo), "env": {}}]
    handlers += [{"when": "on_success", "argv": ["sh", "-c", "pwd > else"], "display": "x", "cwd": str(tmp_path), "env": {}}]
    check = {"script": ["sh", "-c", "test -e big"], "streams": ["stdout"]}
    watched, end = run(engine, Worktree(repo), "echo b > big; echo r > report", handlers=handlers, check=check, artifacts=["rep*"])
    assert end.status == "completed"
    kept = artifacts(engine, watched)
    assert set(kept) == {"report", "changes.patch", "where"}
    assert kept["where"].decode().strip() == str(engine.store / "workspaces" / watched.id)
    assert (tmp_path / "else").read_text().strip() == str(tmp_path)


def test_git_does_not_look_above_a_workspace(tmp_path: Path, loop: Loop) -> None:
    repo = repository(tmp_path / "outer", {"data/a": "1\n"})
    with running(repo / ".agentnb", loop) as engine:
        _, end = run(engine, TempCopy(repo / "data"), "git rev-parse --show-toplevel")
        assert end.exit_code == 128
        watched, end = run(engine, Worktree(repo), "rm .git; echo $AGENTNB_WORKSPACE; git rev-parse --show-toplevel")
        assert end.exit_code == 128
        assert watched.stdout().decode().split() == [str(repo / ".agentnb" / "workspaces" / watched.id)]


# --- hostile repositories and agents


def test_no_hook_monitor_or_external_diff_of_the_repository_runs(engine: Engine, repo: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for name in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        (repo / ".git" / "hooks" / name).unlink(missing_ok=True)
        (repo / ".git" / "hooks" / name).symlink_to(trap)
    for name in ("core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command", "core.pager", "core.editor", "gpg.program"):
        git(repo, "config", name, str(trap))
    git(repo, "config", "log.showSignature", "true")
    git(repo, "config", "diff.noprefix", "true")
    (tmp_path / "sprung").unlink(missing_ok=True)
    for space in (Worktree(repo), TempCopy(repo), Shared(repo)):
        watched, _ = run(engine, space, f"echo '* diff=x' > .gitattributes; echo {space.type} > f")
        assert counts(engine, watched)[0] == 2
        assert b"\n+++ b/f\n" in artifacts(engine, watched)["changes.patch"]
    assert not (tmp_path / "sprung").exists()


def test_names_of_any_bytes_and_links_and_modes_are_told(engine: Engine, repo: Path, tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.write_text("not yours")
    code = (
        "import os\n"
        "for name in (b'a\\nb', b'q\"uote', b'\\xff\\xfe', b' space ', b'tab\\t', b'-dash', b':(glob)x'):\n"
        "    open(name, 'wb').write(b'x\\n')\n"
        f"os.symlink({str(secret)!r}, 'link'); os.symlink('/etc', 'folder'); os.chmod('old.txt', 0o755); open('empty', 'w')\n"
    )
    watched, _ = run(engine, Worktree(repo), ["python3", "-c", code])
    kept = artifacts(engine, watched)
    assert set(kept) == {"changes.patch", "a\nb", 'q"uote', "\\xff\\xfe", " space ", "tab\t", "-dash", ":(glob)x", "empty"}
    assert b"not yours" not in b"".join(kept.values())
    assert counts(engine, watched)[0] == 11
    assert folders(engine) == []


def test_a_repository_that_an_agent_makes_inside_counts_by_its_files_and_keeps_the_folder(engine: Engine, repo: Path) -> None:
    command = "git init -q in; echo x > in/f; git init -q empty; git init -q c; echo y > c/g; cd c; git add g; git commit -qm c"
    watched, end = run(engine, Worktree(repo), command)
    assert end.status == "completed"
    assert {"in/f", "c/g"} <= set(artifacts(engine, watched))
    assert counts(engine, watched) == (2, 2, 0)
    assert "repositories were made inside of it" in warnings(end)
    assert "was kept, because not all of its changes are" in warnings(end)
    assert row(engine, watched)["workspace"]["kept"]


@pytest.mark.parametrize(
    ("command", "branch"),
    [
        ("git checkout -q --detach; {commit}", "agentnb/{id}"),
        ("{commit}; git checkout -q --detach HEAD~1; {commit}", "agentnb/{id}-head"),
        ("git switch -qc other; {commit}", "other"),
        ("{commit}; rm .git", "agentnb/{id}"),
    ],
)
def test_commits_are_never_lost_wherever_the_agent_makes_them(engine: Engine, repo: Path, command: str, branch: str) -> None:
    commit = "echo $(date +%N) >> f; git add f; git commit -qm mine"
    watched, end = run(engine, Worktree(repo), command.format(commit=commit))
    assert end.status == "completed", watched.stderr()
    found = json.loads(artifacts(engine, watched)["commits.json"])
    assert {item["commit"] for item in found} <= set(git(repo, "rev-list", "--all").split())
    assert {item["subject"] for item in found} == {"mine"}
    assert row(engine, watched)["workspace"]["branch"] == branch.format(id=short(watched))
    assert folders(engine) == []
    assert git(repo, "worktree", "list").count("\n") == 0


def test_an_agent_that_deletes_its_workspace_loses_only_that(engine: Engine, repo: Path) -> None:
    for space in (Worktree(repo), TempCopy(repo)):
        watched, end = run(engine, space, 'rm -rf "$AGENTNB_WORKSPACE"')
        assert end.status == "completed"
        assert "the workspace is gone" in warnings(end)
        assert counts(engine, watched) == (None, None, None)
    assert folders(engine) == []
    assert git(repo, "worktree", "list").count("\n") == 0
    assert "agentnb/" not in git(repo, "branch", "--list", "--all")


def test_write_protected_files_and_folders_are_removed_and_read(engine: Engine, repo: Path) -> None:
    command = "mkdir -p d/e; echo x > d/e/f; chmod 400 d/e/f; chmod 500 d/e d"
    for space in (Worktree(repo), TempCopy(repo)):
        watched, _ = run(engine, space, command)
        assert counts(engine, watched) == (1, 1, 0)
    assert folders(engine) == []


@pytest.mark.slow
def test_large_files_are_in_the_patch_but_not_kept_one_by_one(engine: Engine, repo: Path) -> None:
    watched, end = run(engine, Worktree(repo), "head -c 200000000 /dev/zero > zeros; for i in $(seq 150); do echo $i > f$i; done")
    assert end.status == "completed"
    kept = artifacts(engine, watched)
    assert "zeros" not in kept
    assert len(kept) == 1 + changes.MAX_NEW_FILES
    assert b"zeros" in kept["changes.patch"]
    assert "51 new files are in changes.patch only" in warnings(end)
    assert counts(engine, watched) == (151, 150, 0)
    assert folders(engine) == []


@pytest.mark.slow
def test_changes_that_are_too_large_for_a_patch_keep_the_folder(engine: Engine, repo: Path) -> None:
    watched, end = run(engine, Worktree(repo, cleanup="always"), f"truncate -s {changes.MAX_PATCH_SOURCE + 1} huge; echo x > y")
    assert "no patch was made" in warnings(end)
    assert counts(engine, watched) == (2, None, None)
    assert row(engine, watched)["workspace"]["kept"]
    shutil.rmtree(engine.store / "workspaces")


def test_a_broken_configuration_keeps_the_folder_and_the_run_its_status(engine: Engine, repo: Path) -> None:
    watched, end = run(engine, Worktree(repo, cleanup="always"), "echo x > y; echo '[' >> $(git rev-parse --git-common-dir)/config")
    assert end.status == "completed"
    assert "could not be recorded" in warnings(end)
    assert (Path(row(engine, watched)["workspace"]["path"]) / "y").exists()


def test_a_secret_in_the_changes_is_masked_and_the_folder_kept(engine: Engine, repo: Path) -> None:
    watched, end = run(engine, Worktree(repo), "echo hush-hush-42 > y", secrets=["hush-hush-42"])
    kept = artifacts(engine, watched)
    assert (kept["y"], b"hush-hush-42" in kept["changes.patch"]) == (b"***\n", False)
    assert "hold a secret of the run" in warnings(end)
    assert row(engine, watched)["workspace"]["masked"]
    assert row(engine, watched)["workspace"]["kept"]


def test_submodules_stay_as_they_are(engine: Engine, tmp_path: Path) -> None:
    inner = repository(tmp_path / "inner")
    outer = repository(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", str(inner), "sub")
    git(outer, "commit", "-m", "sub")
    absent = "submodules are not checked out in the worktree: sub; begin with `git submodule update --init`"
    watched, end = run(engine, Worktree(outer), "ls sub; echo x > y")
    assert (counts(engine, watched), warnings(end)) == ((1, 1, 0), absent)
    for command in ("git -c protocol.file.allow=always submodule --quiet update --init; echo z > sub/z", "echo z > sub/z"):
        watched, end = run(engine, Worktree(outer), command)
        assert "changes inside of submodules" in warnings(end)
        kept = row(engine, watched)["workspace"]
        assert (kept["kept"], Path(kept["path"], "sub", "z").read_text()) == (True, "z\n")  # nowhere else is that file


# --- copies and shared folders


def test_a_copy_is_of_everything_but_the_history_and_shares_no_file(tmp_path: Path, loop: Loop) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    for name in ("a", ".hidden", "deep/er/b", "tool"):
        (source / name).write_text("1\n")
    os.link(source / "a", source / "hard")
    (source / "in").symlink_to("a")
    (source / "out").symlink_to("/etc/hostname")
    os.mkfifo(source / "pipe")
    (source / "tool").chmod(0o755)
    with closing(socket.socket(socket.AF_UNIX)) as sock, running(source / ".agentnb", loop) as engine:
        sock.bind("source/sock")
        watched, end = run(engine, TempCopy(source), "ls -A; test -x tool; echo 9 > a; echo 9 > hard; echo 9 > deep/er/b")
        assert end.status == "completed"
        assert watched.stdout().decode().split() == sorted([".hidden", "a", "deep", "hard", "in", "out", "tool"])
        assert counts(engine, watched) == (3, 3, 3)
        assert [(source / name).read_text() for name in ("a", "hard", "deep/er/b")] == ["1\n", "1\n", "1\n"]
        assert "links that lead out of the copy: what is written through them is not written to it: out" in warnings(end)
        assert "pipes, sockets and devices were not copied: pipe, sock" in warnings(end)


def test_commits_in_a_copy_are_kept_as_a_bundle(engine: Engine, repo: Path, tmp_path: Path) -> None:
    before = state(repo)
    watched, _ = run(engine, TempCopy(repo), "echo x > y; git add y; git commit -qm mine")
    assert state(repo) == before
    kept = artifacts(engine, watched)
    assert set(kept) == {"changes.patch", "commits.json", "commits.bundle", "y"}
    (tmp_path / "b").write_bytes(kept["commits.bundle"])
    git(repo, "fetch", "-q", str(tmp_path / "b"), "HEAD")
    assert git(repo, "log", "-1", "--format=%s", "FETCH_HEAD") == "mine"


def test_a_copy_of_a_repository_with_changes_counts_from_the_copys_state(engine: Engine, repo: Path) -> None:
    (repo / "old.txt").write_text("changed\n")
    (repo / "draft").write_text("d\n")
    watched, _ = run(engine, TempCopy(repo), "cat old.txt draft; echo more >> draft")
    assert watched.stdout() == b"changed\nd\n"
    assert counts(engine, watched) == (1, 1, 0)


def test_without_git_a_copy_tells_the_files_and_stays(store: Path, loop: Loop, repo: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("sh", "touch", "env"):
        (bare / name).symlink_to(shutil.which(name) or name)
    with running(store, loop, env={"PATH": str(bare)}) as engine:
        for space in (TempCopy(repo), Shared(tmp_path / "bin")):
            watched, end = run(engine, space, "touch y", env={})
            assert end.status == "completed", end.error
            assert counts(engine, watched) == (1, None, None)
            assert json.loads(artifacts(engine, watched)["changes.json"]) == {"y": "added"}
            assert row(engine, watched)["workspace"]["kept"]
            assert "without a diff: git is not on the PATH" in warnings(end)
        watched, end = run(engine, TempCopy(repo), "true", env={})
        assert counts(engine, watched) == (0, None, None)
        assert not row(engine, watched)["workspace"]["kept"]


def test_a_shared_checkout_is_recorded_as_a_diff_and_its_index_is_left_alone(engine: Engine, repo: Path) -> None:
    (repo / "before").write_text("x\n")
    (repo / "sub").mkdir()
    index = (repo / ".git" / "index").read_bytes()
    watched, _ = run(engine, Shared(repo), "pwd; echo 3 >> old.txt; rm before")
    assert watched.stdout().decode().strip() == str(repo)
    assert counts(engine, watched) == (2, 1, 1)
    assert (repo / ".git" / "index").read_bytes() == index
    watched, _ = run(engine, Shared(repo / "sub"), "pwd; echo 4 >> ../old.txt; echo x > y")
    assert watched.stdout().decode().strip() == str(repo / "sub")
    assert counts(engine, watched) == (1, 1, 0)
    assert (repo / "sub" / "y").exists()


def test_a_shared_folder_that_is_no_checkout_is_recorded_by_its_files(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    watched, end = run(engine, Shared(folder), "touch a; echo x >> b; rm c; mkdir d; echo y > d/e")
    assert counts(engine, watched) == (3, None, None)
    assert json.loads(artifacts(engine, watched)["changes.json"]) == {"b": "modified", "c": "deleted", "d/e": "added"}
    assert warnings(end) == ""


# --- what ends in the middle


def test_a_workspace_that_cannot_be_made_fails_the_run_and_leaves_nothing(engine: Engine, repo: Path, tmp_path: Path) -> None:
    git(repo, "branch", "agentnb")  # a branch of this name keeps git from making any below it
    watched, end = run(engine, Worktree(repo), f"touch {tmp_path}/ran")
    assert end.status == "failed"
    assert end.error is not None
    assert end.error["kind"] == "startup_failed"
    assert "its workspace cannot be made: " in end.error["message"]
    assert not (tmp_path / "ran").exists()
    assert folders(engine) == []
    assert git(repo, "worktree", "list").count("\n") == 0
    assert row(engine, watched)["files_changed"] is None
    plan = plan_of(TempCopy(repo)) | {"source": str(engine.store)}
    end = engine.launch("true", workspace=plan, cwd=str(engine.store)).wait()
    assert end.error is not None
    assert "is part of the history" in end.error["message"]


def test_a_cancel_while_the_workspace_is_made_ends_that_and_leaves_nothing(store: Path, loop: Loop, repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "git"
    real = shutil.which("git")
    script.write_text(f'#!/bin/sh\ncase "$*" in *"worktree add"*) echo $$ > {tmp_path}/pid; exec sleep 1000;; esac\nexec {real} "$@"\n')
    script.chmod(0o755)
    with running(store, loop, env={"PATH": f"{folder}:{os.environ['PATH']}"}) as engine:
        watched = launch(engine, Worktree(repo), "true")
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "git")
        pid = int((tmp_path / "pid").read_text())
        watched.cancel()
        end = watched.wait()
        assert (end.status, end.error and end.error["kind"]) == ("cancelled", "cancelled")
        assert not lives(pid)
        assert folders(engine) == []


def test_a_killed_supervisor_loses_no_work(store: Path, loop: Loop, repo: Path) -> None:
    with running(store, loop) as engine:
        command = "echo precious > y; git add y; git commit -qm mine; echo up; exec sleep 1000"
        watched = launch(engine, Worktree(repo, cleanup="always"), command)
        watched.watch()
        wait_until(lambda: "up" in watched.seen(), "the work")
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(Lost):
            watched.wait()
    with running(store, loop) as engine:
        found = row(engine, watched)
        assert engine.status(watched.id) == "interrupted"
        assert (Path(found["workspace"]["path"]) / "y").read_text() == "precious\n"
        assert found["workspace"]["kept"]
        assert git(repo, "log", "-1", "--format=%s", found["workspace"]["branch"]) == "mine"
        other, _ = run(engine, Worktree(repo), "true")  # which removes its own worktree and no other
        assert folders(engine) == [watched.id]
        assert not row(engine, other)["workspace"]["kept"]


def test_a_kernel_that_dies_leaves_the_folder(store: Path, loop: Loop, repo: Path) -> None:
    with running(store, loop) as engine:
        watched = launch(engine, Worktree(repo, cleanup="always"), "echo x > y; echo up; exec sleep 1000")
        watched.watch()
        wait_until(lambda: "up" in watched.seen(), "the work")
    with running(store, loop) as engine:
        assert engine.status(watched.id) == "interrupted"
        assert (Path(row(engine, watched)["workspace"]["path"]) / "y").exists()


def test_a_history_that_cannot_be_written_keeps_the_folder(engine: Engine, repo: Path) -> None:
    watched = launch(engine, Worktree(repo, cleanup="always"), "echo x > y; echo up; while [ ! -e go ]; do sleep 0.05; done")
    watched.watch()
    wait_until(lambda: "up" in watched.seen(), "the change")
    folder = engine.store / "workspaces" / watched.id
    (engine.store / "history.db").rename(engine.store / "elsewhere.db")
    (folder / "go").touch()
    watched.wait()
    assert (folder / "y").exists()


# --- the parts


def test_removing_follows_no_link_and_takes_what_is_protected(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "a" / "b" / "c").touch()
    (folder / "a" / "b").chmod(0o000)
    (folder / "a").chmod(0o500)
    assert remove_folder(str(folder)) is None
    assert not folder.exists()
    assert (outside / "kept").exists()
    folder.symlink_to(outside)
    assert "is no folder any more" in str(remove_folder(str(folder)))
    assert (outside / "kept").exists()
    assert remove_folder(str(tmp_path / "never")) is None


def test_listings_tell_content_from_time_and_bound_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    before = listing.listing(str(folder), "")
    os.utime(folder / "a", (1, 1))
    (folder / "b").write_text("B")
    os.utime(folder / "b", ns=(before["b"][2], before["b"][2]))
    (folder / "c").unlink()
    (folder / "c").symlink_to("a")
    assert listing.changes(before, listing.listing(str(folder), "")) == {"b": "modified", "c": "modified"}
    monkeypatch.setattr(listing, "MAX_FILES", 2)
    with pytest.raises(listing.TooMany):
        listing.listing(str(folder), "")


def test_a_deep_folder_is_copied(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    inner = folder.joinpath(*["d"] * 300)
    inner.mkdir(parents=True)
    (inner / "f").write_text("x")
    assert copying.copy_folder(str(folder), str(tmp_path / "copy"), "").size == 1
    assert (tmp_path / "copy").joinpath(*["d"] * 300, "f").read_text() == "x"
