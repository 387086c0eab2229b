"""The verbs of a session: one for each kind of target, all with the same options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentnb.commands import Command, Python, Shell, Spec, Test
from agentnb.notebook.handles import RunHandle
from agentnb.prompts import LocalModel


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

    def local(self, prompt: str, **options: Any) -> RunHandle:
        """Ask the local model (see LocalModel for `system`, `temperature`, `seed`, `max_tokens` ...). Options: see `launch`.

        Its tokens stream to stdout; the answer is the run's `output`. Raises RuntimeUnavailable when the model is not installed.
        """
        return self._launch_spec(LocalModel, prompt, options)
