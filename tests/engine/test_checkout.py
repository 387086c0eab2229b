"""git_dirty: asked beside the run, bounded, alone, and gone with everything else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agentnb.ids import new_id
from tests.engine.driver import Engine, Loop, children, lives, running, wait_until

GIT = ["git", "-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one committed file."""
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init")
    (folder / "kept").write_text("one\n")
    git(folder, "add", "kept")
    git(folder, "commit", "-m", "one")
    return folder


def dirty(engine: Engine, folder: Path, command: str = "sleep 0.05") -> bool | None:
    found: bool | None = engine.run(command, cwd=str(folder)).detail["metadata"].get("git_dirty")
    return found


def fresh(engine: Engine, folder: Path) -> bool | None:
    """As `dirty`, for a folder that was not asked about yet: an answer is good for a second."""
    inner = folder / new_id()
    inner.mkdir()
    return dirty(engine, inner)


def test_changes_to_tracked_files_are_told_and_others_are_not(engine: Engine, repository: Path) -> None:
    assert fresh(engine, repository) is False
    (repository / "untracked").write_text("x")
    os.utime(repository / "kept")  # looked at anew, but the same
    assert fresh(engine, repository) is False
    (repository / "kept").write_text("two\n")
    assert fresh(engine, repository) is True
    git(repository, "add", "kept")
    assert fresh(engine, repository) is True
    git(repository, "commit", "-m", "two")
    assert fresh(engine, repository) is False
    (repository / "kept").unlink()
    assert fresh(engine, repository) is True


def test_a_worktree_is_a_checkout_of_its_own(engine: Engine, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-b", "other", str(tmp_path / "tree"))
    (repository / "kept").write_text("two\n")
    assert fresh(engine, tmp_path / "tree") is False
    assert fresh(engine, repository) is True


def test_no_repository_no_commit_and_no_git_are_not_known(store: Path, loop: Loop, tmp_path: Path, repository: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("sh", "env", "sleep"):
        (bare / name).symlink_to(shutil.which(name) or name)
    with running(store, loop, env={"PATH": str(bare)}) as engine:
        assert dirty(engine, repository) is None
    new = tmp_path / "new"
    new.mkdir()
    git(new, "init")
    with running(store, loop) as engine:
        assert dirty(engine, new) is None
        assert dirty(engine, Path("/")) is None


def fake_git(folder: Path, line: str) -> dict[str, str]:
    """An environment whose git is a script."""
    folder.mkdir()
    script = folder / "git"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_git_that_never_ends_is_ended_with_all_it_started_and_not_asked_again(
    store: Path, loop: Loop, tmp_path: Path, repository: Path
) -> None:
    env = fake_git(tmp_path / "bin", f"echo $$ >> {tmp_path}/asked; trap '' TERM; setsid sleep 1000 & sleep 1000")
    with running(store, loop, env=env) as engine:
        start = time.monotonic()
        run = engine.launch("true", cwd=str(repository))
        assert run.wait(10).detail["metadata"].get("git_dirty") is None
        assert time.monotonic() - start < 4
        wait_until(lambda: not any(pid for pid in children(engine.spawner)), "the end of git")
        start = time.monotonic()
        assert [dirty(engine, repository) for _ in range(3)] == [None] * 3
        assert time.monotonic() - start < 1.5
        assert len((tmp_path / "asked").read_text().split()) == 1


def test_a_run_that_is_cancelled_does_not_wait_for_git(store: Path, loop: Loop, tmp_path: Path, repository: Path) -> None:
    with running(store, loop, env=fake_git(tmp_path / "bin", "sleep 1000")) as engine:
        run = engine.launch("true", cwd=str(repository))
        wait_until(lambda: run.of("run_started") and engine.spawner and len(children(engine.spawner)) == 1, "the end of true")
        start = time.monotonic()
        run.cancel()
        assert run.wait(5).status == "completed"
        assert time.monotonic() - start < 1


def test_the_death_of_the_spawner_keeps_nobody_waiting_for_git(store: Path, loop: Loop, tmp_path: Path, repository: Path) -> None:
    with running(store, loop, env=fake_git(tmp_path / "bin", f"echo x >> {tmp_path}/asked; sleep 1000")) as engine:
        run = engine.launch("sleep 1000", cwd=str(repository))
        wait_until((tmp_path / "asked").exists, "git")
        start = time.monotonic()
        os.kill(engine.spawner, signal.SIGKILL)
        assert run.wait(10).status == "failed"
        assert run.wait().detail["metadata"].get("git_dirty") is None
        assert time.monotonic() - start < 1.5


def test_a_kernel_that_dies_leaves_no_git_behind(store: Path, loop: Loop, tmp_path: Path, repository: Path) -> None:
    with running(store, loop, env=fake_git(tmp_path / "bin", f"echo $$ > {tmp_path}/asked; exec sleep 1000")) as engine:
        engine.launch("true", cwd=str(repository))
        wait_until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text().strip(), "git")
        git_pid = int((tmp_path / "asked").read_text())
        assert lives(git_pid)
    wait_until(lambda: not lives(git_pid), "the end of git", 1.0)


def test_many_runs_of_a_second_ask_once(store: Path, loop: Loop, tmp_path: Path, repository: Path) -> None:
    env = fake_git(tmp_path / "bin", f"echo x >> {tmp_path}/asked; echo M")
    with running(store, loop, env=env) as engine:
        start = time.monotonic()
        runs = [engine.launch("true", cwd=str(repository)) for _ in range(60)]
        assert {run.wait().detail["metadata"].get("git_dirty") for run in runs} == {True}
        asked = len((tmp_path / "asked").read_text().split())
        assert asked <= time.monotonic() - start + 1


def test_monitors_and_hooks_of_the_repository_are_not_run_and_its_index_is_left_alone(
    engine: Engine, repository: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    git(repository, "config", "diff.external", str(trap))
    (repository / ".git" / "hooks" / "post-index-change").symlink_to(trap)
    (tmp_path / "sprung").unlink(missing_ok=True)
    os.utime(repository / "kept", (1, 1))
    before = (repository / ".git" / "index").read_bytes()
    assert fresh(engine, repository) is False
    (repository / "kept").write_text("two\n")
    assert fresh(engine, repository) is True
    assert (repository / ".git" / "index").read_bytes() == before
    assert not (tmp_path / "sprung").exists()


def test_the_repository_is_that_of_the_folder_whatever_the_environment_says(
    store: Path, loop: Loop, repository: Path, tmp_path: Path
) -> None:
    env = {"PATH": os.environ["PATH"], "GIT_DIR": str(tmp_path / "nowhere"), "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/nowhere"}
    with running(store, loop, env=env) as engine:
        assert fresh(engine, repository) is False


def test_the_metadata_has_the_pid_of_the_command(engine: Engine) -> None:
    run = engine.launch("echo $$")
    end = run.wait()
    assert end.detail["metadata"]["pid"] == int(run.stdout())
    assert run.of("run_started")[0].handle == f"pid:{end.detail['metadata']['pid']}"
