"""Workspaces as data: what they take, what they refuse, and the plans that are made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.agents.compile import compile_work
from agentnb.agents.workspaces import Known, plan_of
from agentnb.execution import ExecutionConfig
from agentnb.workspaces import AnyWorkspace
from tests.repositories import git, repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo", {"old.txt": "1\n", "sub/deep/f": "1\n"})


def work(config: dict[str, Any], spec: Any = None, **more: Any) -> dict[str, Any]:
    found = compile_work(spec or nb.Shell("true"), ExecutionConfig(**config), env_id=0, params={}, run_id="r", **more)
    return dict(found)


def test_the_first_things_are_given_by_place_and_the_rest_by_name() -> None:
    assert nb.Worktree() == nb.Worktree(".", "HEAD", cleanup="on_success")
    assert (nb.Worktree("a", "main").repo, nb.Worktree("a", "main").ref) == ("a", "main")
    assert nb.TempCopy(Path("b"), cleanup="keep").cleanup == "keep"
    assert nb.Shared("c").folder == "c"
    for space in (nb.Worktree("a", "v1", cleanup="always"), nb.TempCopy("b"), nb.Shared("c")):
        assert type(space).model_validate_json(space.model_dump_json()) == space
    assert ExecutionConfig().workspace is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nb.Worktree(3), "3 is no folder"),
        (lambda: nb.Worktree(""), "'' is no folder"),
        (lambda: nb.Worktree(".", " "), "the ref ' ' is empty"),
        (lambda: nb.Worktree(".", cleanup="never"), "'keep', 'on_success' or 'always'"),
        (lambda: nb.Worktree(".", branch="x"), "there is no option 'branch'"),
        (nb.TempCopy, "None is no folder"),
        (lambda: nb.Shared("a\0"), "NUL"),
        (lambda: nb.Shared(".", cleanup="keep"), "there is no option 'cleanup'"),
        (lambda: ExecutionConfig(workspace="there"), r"'there' is no workspace; write nb.Worktree\('there'\)"),
        (lambda: ExecutionConfig(workspace=nb.Worktree), r"Worktree is a class; write nb.Worktree\('.'\)"),
        (lambda: ExecutionConfig(workspace={"repo": "."}), "is no workspace"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(make: Any, says: str) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        make()


def test_a_worktree_of_any_folder_of_a_checkout_is_of_its_top(repo: Path) -> None:
    head = git(repo, "rev-parse", "HEAD")
    git(repo, "tag", "-a", "v1", "-m", "v1")
    expected = {"kind": "worktree", "source": str(repo), "cleanup": "on_success", "common": str(repo / ".git"), "commit": head}
    for space in (nb.Worktree(repo), nb.Worktree(repo / "sub" / "deep"), nb.Worktree(repo, "v1"), nb.Worktree(repo, head[:10])):
        assert plan_of(space) == expected
    git(repo, "worktree", "add", "-q", "-b", "other", str(repo.parent / "linked"))
    git(repo.parent / "linked", "commit", "--allow-empty", "-qm", "second")
    plan = plan_of(nb.Worktree(repo.parent / "linked"))
    assert (plan["source"], plan["common"]) == (str(repo.parent / "linked"), str(repo / ".git"))
    assert plan["commit"] == git(repo, "rev-parse", "other")


def test_folders_that_cannot_be_used_are_refused_before_anything_starts(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--bare", "bare")
    git(tmp_path, "init", "empty")
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    git(repo, "worktree", "add", "-q", str(tmp_path / "linked"))
    (tmp_path / "history" / "blobs").mkdir(parents=True)
    (tmp_path / "history" / "history.db").touch()
    bad: list[tuple[AnyWorkspace, str]] = [
        (nb.Worktree("gone"), "'gone' does not exist"),
        (nb.Worktree("file"), "'file' is no directory"),
        (nb.Worktree("plain"), "plain is in no git repository; run `git init`"),
        (nb.Worktree("bare"), "is a bare repository"),
        (nb.Worktree("empty"), "has no commit yet"),
        (nb.Worktree("empty", "main"), "'main' names no commit"),
        (nb.Worktree(repo, "no-such"), "'no-such' names no commit in"),
        (nb.Worktree(repo, "--all"), "'--all' names no commit in"),
        (nb.Worktree(repo, "HEAD:old.txt"), "names no commit in"),
        (nb.Worktree(repo / ".git"), "is inside of a git directory"),
        (nb.TempCopy("gone"), "'gone' does not exist"),
        (nb.TempCopy("linked"), "linked worktree or a submodule"),
        (nb.TempCopy("history"), "holds a history of runs"),
        (nb.Shared("history"), "holds a history of runs"),
    ]
    for space, says in bad:
        with pytest.raises(nb.ConfigError, match=f"^workspace: {type(space).__name__}: .*{says}"):
            plan_of(space)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(nb.RuntimeUnavailable, match="needs git: git is not on the PATH; install it"):
        plan_of(nb.Worktree(repo))
    assert plan_of(nb.TempCopy(repo))["kind"] == "temp_copy"


def test_variables_of_git_lead_to_no_other_repository(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert plan_of(nb.Worktree(repo))["source"] == str(repo)


def test_all_runs_of_a_launch_start_from_the_same_commit(repo: Path) -> None:
    known: Known = {}
    first = plan_of(nb.Worktree(repo), known)
    git(repo, "commit", "--allow-empty", "-qm", "second")
    assert plan_of(nb.Worktree(repo), known) == first
    assert plan_of(nb.Worktree(repo), {})["commit"] != first["commit"]


def test_a_working_dir_is_relative_to_the_workspace_and_stays_in_it(repo: Path, tmp_path: Path) -> None:
    for space in (nb.Worktree(repo), nb.TempCopy(repo), nb.Shared(repo)):
        assert work({"workspace": space})["cwd"] == str(repo)
        for given in ("sub/deep", "./sub/deep/", repo / "sub" / "deep", "sub/../sub/deep"):
            assert work({"workspace": space, "working_dir": given})["cwd"] == str(repo / "sub" / "deep")
        for given in ("..", "/", tmp_path, "sub/../.."):
            with pytest.raises(nb.ConfigError, match="is not in the workspace of"):
                work({"workspace": space, "working_dir": given})
        for given in ("gone", "old.txt"):
            with pytest.raises(nb.ConfigError, match=f"has no folder '{given}'"):
                work({"workspace": space, "working_dir": given})
        made = work({"workspace": space, "cleanup": nb.Shell("x", working_dir="sub"), "on_success": "y"})
        assert [handler["cwd"] for handler in made["handlers"]] == [str(repo), str(repo / "sub")]
    (repo / "new").mkdir()
    with pytest.raises(nb.ConfigError, match="create and commit it"):
        work({"workspace": nb.Worktree(repo), "working_dir": "new"})


def test_an_async_agent_has_no_workspace_but_may_be_in_a_session_with_one(repo: Path) -> None:
    async def agent() -> None: ...

    with pytest.raises(nb.ConfigError, match="workspace: an `async def` agent .* write it as `def`"):
        work({"workspace": nb.Worktree(repo)}, nb.Python(agent))
    assert "workspace" not in work({}, nb.Python(agent), defaults=ExecutionConfig(workspace=nb.Worktree(repo)))
    assert work({}, nb.Python(print), defaults=ExecutionConfig(workspace=nb.Worktree(repo)))["workspace"]["source"] == str(repo)


def test_what_this_machine_can_do_tells_of_workspaces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = nb.capabilities()["workspaces"]
    assert found["worktree"] == {"available": True, "diff": True, "why_not": ""}
    monkeypatch.setenv("PATH", os.devnull)
    found = nb.capabilities()["workspaces"]
    assert not found["worktree"]["available"]
    assert "install it" in found["worktree"]["why_not"]
    assert found["temp_copy"] == {"available": True, "diff": False, "why_not": ""}
