"""The workspace of one run: made before each attempt, read after the last one, then removed or left as its clean-up policy says.

Everything that touches files or git is done by a process of its own (workspace_child.py), which the run's end, a cancel or a
time-out ends as any other: the supervisor's loop waits for no disk, and no git is left behind.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.engine.attempt import Plan
from agentnb.engine.capture import Output
from agentnb.engine.outcome import Outcome
from agentnb.events import Json, WorkspaceChanged

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution
    from agentnb.engine.work import WorkspacePlan

#: Making, reading or removing a workspace is ended after this long.
TIMEOUT_S = 600.0
_CHILD = Path(__file__).with_name("workspace_child.py")
_SHORT = 12
_COUNTS = ("files_changed", "insertions", "deletions")


class Place:
    """Where one run works."""

    def __init__(self, execution: Execution, plan: WorkspacePlan) -> None:
        """`plan`: what was asked for; nothing is made yet."""
        self._of = execution
        self._plan = plan
        self._folders = Path(execution.store.root, "workspaces")
        self._cwd = execution.work["cwd"]
        self._handlers = [handler["cwd"] for handler in execution.work.get("handlers", [])]
        self._job: Json | None = None
        self._made = False
        self._said: Json = {}

    @property
    def env(self) -> dict[str, str]:
        """What the run's processes find in their environment: where they are, and that git shall not look above it."""
        if self._job is None or self._plan["kind"] == "shared":
            return {}
        given = self._of.work["env"].get("GIT_CEILING_DIRECTORIES", "")
        return {"AGENTNB_WORKSPACE": self._job["folder"], "GIT_CEILING_DIRECTORIES": ":".join(filter(None, (str(self._folders), given)))}

    @property
    def circumstances(self) -> Json:
        """What to say of the run instead of what is found in a folder that may be gone."""
        commit = self._job.get("commit") if self._job is not None and self._plan["kind"] == "worktree" else None
        return {"git_commit": commit} if commit else {}

    # --- making it

    async def prepare(self, number: int) -> Outcome | None:
        """Make it for this attempt, a fresh one for each but of a shared folder; how that failed, if so."""
        if self._job is not None:
            if self._plan["kind"] == "shared":
                return None
            await self._leave(Outcome("failed"), last=False)
        self._job = self._new_job(number)
        self._made = False
        found, why = await self._child("make", self._job)
        if found is None:
            outcome = Outcome()
            outcome.fail("startup_failed", f"its workspace cannot be made: {why}", "startup")
            if (stop := self._of.stopping) is not None:
                outcome.stop(stop)
            return outcome
        self._made, self._job = True, found["job"]
        for warning in found["warnings"]:
            self._of.warn(warning)
        self._enter(found["job"])
        return None

    def _new_job(self, number: int) -> Json:
        plan, run = self._plan, self._of.run_id
        suffix = "" if number == 1 else f".{number}"
        state = os.path.realpath(f"{self._of.folder}/workspace{suffix}")
        folder = os.path.join(os.path.realpath(self._folders), run + suffix)  # noqa: PTH118
        job: Json = {"kind": plan["kind"], "source": plan["source"], "folder": folder, "state": state, "attempt": number}
        if plan["kind"] == "shared":
            job["folder"] = plan["source"]
        if plan["kind"] == "worktree":
            branch = f"agentnb/{run.replace('-', '')[-_SHORT:]}{suffix}"
            job |= {"common": plan["common"], "commit": plan["commit"], "branch": branch}
        return job | {"store": str(self._of.store.root)}

    def _enter(self, job: Json) -> None:
        """The attempt and the handlers work in there; so it is told, before anything may happen to this process."""
        folder = self._plan["source"] if self._plan["kind"] == "shared" else job["folder"]
        work = self._of.work
        work["cwd"] = self._moved(self._cwd, folder)
        for handler, cwd in zip(work.get("handlers", []), self._handlers, strict=True):
            handler["cwd"] = self._moved(cwd, folder)
        self._said = {"kind": job["kind"], "path": folder, "source": job["source"], "kept": True}
        self._said |= {name: job[name] for name in ("branch", "commit") if job.get(name)} | {"state": job["state"]}
        Path(job["state"], "job.json").write_text(json.dumps(job), encoding="ascii")
        self._of.emit(WorkspaceChanged(self._of.run_id, dict(self._said)))

    def _moved(self, path: str, folder: str) -> str:
        """A path below the source as one below the workspace; others stay."""
        source = self._plan["source"]
        return folder + path[len(source) :] if path == source or path.startswith(source.rstrip("/") + "/") else path

    # --- leaving it

    async def finish(self, outcome: Outcome) -> None:
        """The run is over: keep what changed, then clean up as asked. A run that was cut off leaves everything as it is."""
        if self._job is not None and not self._of.abandoned:
            await self._leave(outcome, last=True)

    async def _leave(self, outcome: Outcome, *, last: bool) -> None:
        assert self._job is not None  # noqa: S101 - it was prepared
        complete = not self._made or await self._keep(self._job, last=last)
        if self._plan["kind"] == "shared":
            return
        policy = self._plan["cleanup"]
        wanted = not self._made or policy == "always" or (policy == "on_success" and (outcome.ok or not last))
        if wanted and not complete:
            self._of.warn(f"the workspace {self._job['folder']} was kept, because not all of its changes are")
        elif wanted and self._of.written():
            await self._remove(self._job)

    async def _keep(self, job: Json, *, last: bool) -> bool:
        """Record what changed; whether all of it is kept now."""
        given = job | {"last": last, "skip": sorted(self._of.kept_files), "secrets": self._of.secrets}
        found, why = await self._child("collect", given)
        if found is None:
            self._of.warn(f"what changed in the workspace could not be recorded: {why}; it was kept: {job['folder']}")
            return False
        for warning in found["warnings"]:
            self._of.warn(warning)
        for artifact in found["artifacts"]:
            name = self._of.masked(artifact["name"])
            self._of.agent.saved(name, artifact["checksum"], artifact["size"], artifact["content_type"])
        self._said |= {"branch": found["branch"], "commits": found["commits"], "masked": found["masked"], "complete": found["complete"]}
        counts: dict[str, Any] = {name: found[name] for name in _COUNTS} if last else {}
        self._of.emit(WorkspaceChanged(self._of.run_id, dict(self._said), **counts))
        return bool(found["complete"])

    async def _remove(self, job: Json) -> None:
        found, why = await self._child("remove", job)
        for warning in [f"the workspace could not be removed: {why}"] if found is None else found["warnings"]:
            self._of.warn(warning)
        if found is not None and found["removed"] and self._said:
            self._said["kept"] = False
            self._of.emit(WorkspaceChanged(self._of.run_id, dict(self._said)))

    # --- the process that does it

    async def _child(self, do: str, job: Json) -> tuple[Json | None, str]:
        """What the child reports; None, and why, when it could not do it."""
        found: list[Json] = []
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_CHILD), *sys.path]
        plan = Plan(argv, str(self._of.store.root), self._of.work["env_id"], {}, capture="stderr", timeout_s=TIMEOUT_S, grace_s=1.0)
        plan.payload, plan.on_report = json.dumps(job | {"do": do}).encode(), found.append
        out = Output(f"{self._of.folder}/workspace.log", 1, secrets=self._of.secrets)
        ended = await self._of.process(plan, out, lambda _pid: None)
        if ended.stop is not None:
            return None, ended.stop.message
        if not found:
            said = out.streams["stderr"].content()[-500:].decode("utf-8", "replace").strip()
            return None, said or str(ended.failure or "the process that sees to it was killed")
        error = found[0].get("error")
        return (None, str(error)) if error is not None else (found[0], "")
