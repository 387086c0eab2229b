"""Replies: a run that goes on where another one ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentnb.agents.adapters import Finished, adapter, adapter_of
from agentnb.commands import Spec, some_text
from agentnb.errors import ConfigError
from agentnb.execution import ExecutionConfig

if TYPE_CHECKING:
    from agentnb.notebook.handles import RunHandle
    from agentnb.notebook.session import Session

#: The tag that a reply carries: the id of the run it replies to.
TAG = "reply_to"


class Origin(NamedTuple):
    """How a run that can be replied to was launched. `spec`: filled; `config`: what the launch gave."""

    session: Session
    spec: Spec
    config: ExecutionConfig


def reply(run: RunHandle, origin: Origin | None, text: str, options: dict[str, Any]) -> RunHandle:
    """Launch the run that goes on with `text`. Raises ConfigError for a run that cannot be replied to."""
    some_text("reply", text, "write what comes next, such as run.reply('Shorter.')")
    if origin is None:
        kind = str(run.spec.get("type", ""))
        if not can_be_replied_to(kind):
            raise ConfigError(f"reply: a run of type {kind!r} has no conversation that could go on; launch another one")
        raise ConfigError("reply: this process did not launch that run; go on with session.claude(text, resume=run.agent_session)")
    if not run.done:
        raise ConfigError(f"reply: run {run.name!r} has not ended yet; wait for it first: run.wait()")
    talker: Any = adapter_of(origin.spec)  # `reply` is there with that feature only
    spec = talker.reply(origin.spec, text, Finished(run.output, run.agent_session))
    config = _same_place(origin.config, _folder_of(run), options)
    return origin.session._go_on(spec, config, run, options)  # noqa: SLF001 - the other half of the session


def can_be_replied_to(kind: str) -> bool:
    """Whether specs of this ``type`` have conversations; those that nobody here knows may have."""
    try:
        return adapter(kind).features.reply
    except ConfigError:
        return True


def _folder_of(run: RunHandle) -> str | None:
    folder = run.result.metadata.working_directory if run.result is not None else None
    return None if folder is None or "***" in folder else folder


def _same_place(config: ExecutionConfig, folder: str | None, options: dict[str, Any]) -> ExecutionConfig:
    """The config of the first run, in the folder where that was: there the conversation is kept."""
    if folder is None:
        return config
    wanted = options.pop("working_dir", None)
    if wanted is not None and Path(wanted).expanduser().resolve() != Path(folder).resolve():
        raise ConfigError(f"reply: a conversation goes on in the folder where it began, {folder!r}; leave working_dir out")
    if not Path(folder).is_dir():
        advice = "; keep a workspace with nb.Worktree(..., cleanup='keep')" if getattr(config, "workspace", None) is not None else ""
        raise ConfigError(f"reply: the folder that the run worked in, {folder!r}, is gone{advice}")
    changes: dict[str, Any] = {"working_dir": folder}
    if getattr(config, "workspace", None) is not None:
        changes["workspace"] = None
    return config.model_copy(update=changes)
