"""The verbs of a session: one for each kind of target, all with the same options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentnb.a2a import A2A
from agentnb.commands import Command, Python, Shell, Spec, Test
from agentnb.declared import Agent
from agentnb.notebook.handles import RunHandle
from agentnb.programs import Claude
from agentnb.prompts import LocalModel
from agentnb.replay import Replay
from agentnb.swarms import Swarm


class Verbs:
    """What a session launches, by name."""

    @abstractmethod
    def launch(self, target: Any, **options: Any) -> RunHandle:
        """Launch any target."""

    @abstractmethod
    def _launch_spec(self, cls: type[Spec], first: Any, options: dict[str, Any]) -> RunHandle:
        """Launch a target of this class: of `options`, what are its fields go to it, the rest to the launch."""

    def shell(self, command: str, **options: Any) -> RunHandle:
        """Run a line in a shell (`shell`: default sh). Options: see `launch`."""
        return self._launch_spec(Shell, command, options)

    def command(self, argv: Sequence[str | Path], **options: Any) -> RunHandle:
        """Run a program with arguments, without a shell. Options: see `launch`."""
        return self._launch_spec(Command, argv, options)

    def test(self, command: str, **options: Any) -> RunHandle:
        """Run a test command; it succeeds when it exits with `expected_exit_code` (default 0). Options: see `launch`."""
        return self._launch_spec(Test, command, options)

    def python(self, function: Callable[..., Any], *args: Any, **options: Any) -> RunHandle:
        """Call a Python function: ``def`` in a child process, ``async def`` on a loop thread of this process. Options: see `launch`.

        What it returns becomes the run's `output`; it must be JSON data, or something that clearly maps to it (dataclasses,
        pydantic models, numpy and pandas values ...). Pass keyword arguments with ``session.launch(nb.Python(f, key=value))``.
        """
        return self.launch(Python(function, *args), **options)

    def replay(self, path: str | Path, *, speed: float | None = 1.0, **options: Any) -> RunHandle:
        """Play a run again that ``run.export(path)`` wrote to a file: the same events and output, with no key, no network, no process.

        `speed`: how many times faster than it was recorded; None for no waiting. Options: `name`, `params`, `tags`, `timeout`, `detach`.
        Its status, steps, output, usage, tokens, cost and durations are those recorded; its id and stamps are its own. Raises
        ConfigError, with file and line, for a file that is no whole recording.
        """
        return self.launch(Replay(path, speed=speed), **options)

    def agent(self, spec: str | Path | Mapping[str, Any], **options: Any) -> RunHandle:
        """Run the agent that a YAML file describes, or the same as a mapping: ``session.agent("reviewer.yaml", input={"path": "src"})``.

        `input` is checked against the spec's JSON Schema before anything starts, the output against its own after the run. Options: see
        `launch`; they win over what the spec says, that over the session's. Raises SpecError with all that is wrong with the file,
        ConfigError that names what of the input does not fit, RuntimeUnavailable for a runtime that is not there.
        """
        return self._launch_spec(Agent, spec, options)

    def swarm(self, spec: str | Path | Mapping[str, Any], **options: Any) -> RunHandle:
        """Run the swarm that a YAML file describes, or the same as a mapping: ``session.swarm("review.yaml", input={"path": "src"})``.

        `input` is checked against the swarm's JSON Schema before anything starts. Each worker is a child run with a history of its own;
        `steps` has the tree of workers and flows, `output` what the file says, and tokens and cost are the sums of the workers'.
        Cancelling it, or its timeout, ends all of them. Options: see `launch`; they win over what the file says. Raises SpecError with
        all that is wrong with the file and those that it names, ConfigError that names what of the input does not fit.
        """
        return self._launch_spec(Swarm, spec, options)

    def claude(self, prompt: str, **options: Any) -> RunHandle:
        """Give the claude command line a prompt (see Claude for `model`, `tools`, `permission_mode` ...). Options: see `launch`.

        What it says comes to stdout as it is said, with a line for each tool call; `output` is the final answer, `steps` are its turns
        and tool calls, and ``run.reply("...")`` goes on. Raises RuntimeUnavailable, with what to install, when the program is missing.
        """
        return self._launch_spec(Claude, prompt, options)

    def a2a(self, url: str, message: str | None = None, **options: Any) -> RunHandle:
        """Give the A2A agent at `url` a task (see A2A for `data`, `api_key`, `headers`, `output_modes` ...). Options: see `launch`.

        What it says comes to stdout as it is said; its artifacts become the run's, and the last one, or its last message, is the `output`.
        Cancelling the run cancels the task. An agent that asks back ends the run, and ``run.reply("...")`` answers. Raises
        RuntimeUnavailable, with what to install, when the SDK is missing.
        """
        return self._launch_spec(A2A, url, {"message": message} | options)

    def local(self, prompt: str, **options: Any) -> RunHandle:
        """Ask the local model (see LocalModel for `system`, `messages`, `temperature`, `seed`, `json_schema` ...). Options: see `launch`.

        Its tokens stream to stdout; the answer is the run's `output`. Raises RuntimeUnavailable when the model is not installed.
        """
        return self._launch_spec(LocalModel, prompt, options)
