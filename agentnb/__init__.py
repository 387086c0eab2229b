"""Launch agents and commands from a notebook, watch them live, read their history as DataFrames.

    import agentnb as nb

    session = nb.Session("first-look")
    run = session.shell("echo hello")
    run.wait().stdout

Each name is imported when it is first used (PEP 562), so that ``import agentnb`` costs next to nothing.
"""

from __future__ import annotations

from sys import modules as _modules

from agentnb._version import __version__

TYPE_CHECKING = False  # type checkers read it as True; importing `typing` for it would cost more than all the rest here

__all__ = [
    "A2A",
    "Agent",
    "AgentnbError",
    "ApplyConflict",
    "Artifact",
    "ArtifactCorrupted",
    "BudgetExceeded",
    "Capture",
    "Claude",
    "Command",
    "CommandResult",
    "ConfigError",
    "ErrorKind",
    "Estimate",
    "ExecutionConfig",
    "Handler",
    "IllegalTransition",
    "InvalidLimits",
    "Issue",
    "JsonLines",
    "LimitExceeded",
    "Limits",
    "LocalModel",
    "OpenAICompatible",
    "Python",
    "Replay",
    "ResourceUsage",
    "Retry",
    "Run",
    "RunCancelled",
    "RunContext",
    "RunFailed",
    "RunGroup",
    "RunHandle",
    "RunStatus",
    "RunTimedOut",
    "RuntimeUnavailable",
    "Secret",
    "Session",
    "SessionStatus",
    "Shared",
    "Shell",
    "SpecError",
    "Step",
    "StepStatus",
    "StoreError",
    "StoreTooNew",
    "Swarm",
    "TempCopy",
    "TemplateError",
    "Test",
    "Validation",
    "Worktree",
    "__version__",
    "artifacts_df",
    "attach",
    "backup",
    "capabilities",
    "compare",
    "enable_nesting",
    "events_df",
    "export",
    "gc",
    "grid",
    "options",
    "plot_compare",
    "runs_df",
    "score",
    "sessions_df",
    "steps_df",
    "supports",
    "to_jsonl",
    "to_mlflow",
    "to_otlp",
    "to_parquet",
    "typed",
    "waterfall",
]

if TYPE_CHECKING:
    from agentnb.a2a import A2A
    from agentnb.agents.capabilities import capabilities, supports
    from agentnb.agents.context import RunContext
    from agentnb.commands import Command, Python, Shell, Test
    from agentnb.data import Secret
    from agentnb.declared import Agent
    from agentnb.errors import (
        AgentnbError,
        ApplyConflict,
        ArtifactCorrupted,
        BudgetExceeded,
        ConfigError,
        IllegalTransition,
        InvalidLimits,
        LimitExceeded,
        RunCancelled,
        RunFailed,
        RunTimedOut,
        RuntimeUnavailable,
        SpecError,
        StoreError,
        StoreTooNew,
        TemplateError,
    )
    from agentnb.execution import Capture, ExecutionConfig, Handler, Limits, Retry, Validation
    from agentnb.model import Artifact, Run, Step
    from agentnb.notebook.attach import attach
    from agentnb.notebook.display import options
    from agentnb.notebook.export import export
    from agentnb.notebook.exports import to_jsonl, to_mlflow, to_otlp, to_parquet
    from agentnb.notebook.grid import grid
    from agentnb.notebook.group import RunGroup
    from agentnb.notebook.handles import RunHandle
    from agentnb.notebook.nesting import enable_nesting
    from agentnb.notebook.scoring import score
    from agentnb.notebook.session import Session
    from agentnb.notebook.tables import artifacts_df, compare, events_df, plot_compare, runs_df, sessions_df, steps_df, typed, waterfall
    from agentnb.notebook.upkeep import backup, gc
    from agentnb.programs import Claude, JsonLines
    from agentnb.prompts import LocalModel, OpenAICompatible
    from agentnb.replay import Replay
    from agentnb.results import CommandResult, Estimate, Issue, ResourceUsage
    from agentnb.states import ErrorKind, RunStatus, SessionStatus, StepStatus
    from agentnb.swarms import Swarm
    from agentnb.workspaces import Shared, TempCopy, Worktree
else:
    _HOMES = {
        "a2a": "A2A",
        "agents.capabilities": "capabilities supports",
        "agents.context": "RunContext",
        "commands": "Command Python Shell Test",
        "data": "Secret",
        "declared": "Agent",
        "errors": "AgentnbError ApplyConflict ArtifactCorrupted BudgetExceeded ConfigError IllegalTransition InvalidLimits LimitExceeded"
        " RunCancelled RunFailed RunTimedOut RuntimeUnavailable SpecError StoreError StoreTooNew TemplateError",
        "execution": "Capture ExecutionConfig Handler Limits Retry Validation",
        "model": "Artifact Run Step",
        "notebook.attach": "attach",
        "notebook.display": "options",
        "notebook.export": "export",
        "notebook.exports": "to_jsonl to_mlflow to_otlp to_parquet",
        "notebook.grid": "grid",
        "notebook.group": "RunGroup",
        "notebook.handles": "RunHandle",
        "notebook.nesting": "enable_nesting",
        "notebook.scoring": "score",
        "notebook.session": "Session",
        "notebook.tables": "artifacts_df compare events_df plot_compare runs_df sessions_df steps_df typed waterfall",
        "notebook.upkeep": "backup gc",
        "programs": "Claude JsonLines",
        "prompts": "LocalModel OpenAICompatible",
        "replay": "Replay",
        "results": "CommandResult Estimate Issue ResourceUsage",
        "states": "ErrorKind RunStatus SessionStatus StepStatus",
        "swarms": "Swarm",
        "workspaces": "Shared TempCopy Worktree",
    }
    _HOME = {name: f"agentnb.{home}" for home, names in _HOMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for."""
        if name not in _HOME:
            from agentnb.absent import of_package

            raise AttributeError(of_package(name) or f"module 'agentnb' has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value

    def __dir__() -> list[str]:
        """Only the public names."""
        return list(__all__)


def load_ipython_extension(shell: object) -> None:
    """``%load_ext agentnb``: the magics ``%%agent``, ``%runs`` and ``%cancel``."""
    from agentnb.notebook.magics import load

    load(shell)  # type: ignore[arg-type]  # IPython's shell, whose class is not imported here


def unload_ipython_extension(shell: object) -> None:
    """``%unload_ext agentnb``: take the magics away; runs go on."""
    from agentnb.notebook.magics import unload

    unload(shell)  # type: ignore[arg-type]


if "nest_asyncio" in _modules:
    from agentnb.notebook.nesting import warn_about_old_nesting as _warn

    _warn(stacklevel=3)
