"""Random lives of runs: launch, cancel, time out, fail, retry, kill the supervisor or the spawner; the history always adds up."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import agentnb as nb
from agentnb.notebook import loop
from agentnb.states import RunStatus, StepStatus, is_terminal, legal

ENDINGS = {
    "true": {"completed"},
    "false": {"failed"},
    "kill -9 $$": {"failed"},
    "sleep 600": {"cancelled", "timeout"},
    "trap '' TERM; sleep 600": {"cancelled", "timeout"},
    "(setsid sleep 600 &) ; exit 3": {"failed"},
    "no-such-program": {"failed"},
}


class Lives(RuleBasedStateMachine):
    """One session; what may become of each run depends on what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.session = nb.Session("lives", store=Path(self.folder.name) / "store", max_parallel=3, grace=0.1)
        self.runs: list[tuple[nb.RunHandle, set[str]]] = []
        self.killed = False

    @rule(line=st.sampled_from(sorted(ENDINGS)), timeout=st.sampled_from([None, 0.05, 0.5]), attempts=st.integers(1, 3))
    def launch(self, line: str, timeout: float | None, attempts: int) -> None:
        retry = nb.Retry(max_attempts=attempts, initial_delay=0.02, jitter=0) if attempts > 1 else None
        run = self.session.shell(line, timeout=timeout, retry=retry)
        endless = "sleep" in line and "exit" not in line
        if endless and timeout is None:
            run.cancel("it would never end")
        possible = set(ENDINGS[line])
        if timeout is not None:
            possible.add("timeout")
        self.runs.append((run, possible))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run, possible = data.draw(st.sampled_from(self.runs))
        run.cancel("at random")
        possible.add("cancelled")

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        run, possible = data.draw(st.sampled_from(self.runs))
        before = run.wait(30).status
        assert before.value in possible
        assert run.wait(1).status is before

    @precondition(lambda self: self.runs and not self.killed)
    @rule(who=st.sampled_from(["supervisor", "spawner"]))
    def kill(self, who: str) -> None:
        supervisors = [child for child in psutil.Process().children() if "engine" in " ".join(child.cmdline())]
        targets = supervisors if who == "supervisor" else [below for child in supervisors for below in child.children()]
        self.killed = True
        for target in targets[:1]:
            os.kill(target.pid, signal.SIGKILL)
        for _, possible in self.runs:
            possible.update(["failed"] if who == "spawner" else ["interrupted", "cancelled"])
        time.sleep(0.05)

    def teardown(self) -> None:
        try:
            self.session.wait(60)
            self.session.end()
            self.check()
        finally:
            loop.shutdown()
            self.folder.cleanup()

    def check(self) -> None:
        """Every run is over, in a way that was possible; its events are legal moves and add up to its row."""
        rows = self.session.runs_df().set_index("id")
        events = self.session.events_df(full=True)
        steps = self.session.steps_df()
        assert all(is_terminal(StepStatus(status)) for status in steps["status"])
        for run, possible in self.runs:
            assert run.status.value in possible
            if run.id not in rows.index:  # its supervisor was killed before it heard of it
                assert self.killed
                continue
            status = RunStatus.PENDING
            for kind, data in events[events["run_id"] == run.id][["type", "data"]].itertuples(index=False):
                move = RunStatus.RUNNING if kind == "run_started" else RunStatus(data["status"]) if kind == "run_finished" else None
                if move is not None:
                    assert legal(status, move)
                    status = move
            assert status.value == rows.loc[run.id, "status"] == run.status.value
            assert (rows.loc[run.id, "error_kind"] is None or rows["error_kind"].isna()[run.id]) == (status is RunStatus.COMPLETED)


Lives.TestCase.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestLives = pytest.mark.slow(pytest.mark.timeout(400)(Lives.TestCase))
