"""Swarms that files describe: their target, as validated data. What is in the file is read when it is launched (agents/swarm.py)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PrivateAttr

from agentnb.data import Secret
from agentnb.declared import Declared
from agentnb.errors import ConfigError


class Swarm(Declared):
    """A swarm that a YAML file describes: ``nb.Swarm("triage.swarm.yaml", input={"path": "src"})``.

    The first argument is the path of the file, or the same as a mapping. `input` is checked against the swarm's JSON Schema before
    anything starts, and templates read it as ``{{input.path}}``. When it is launched with parameters, texts in `input` are templates of
    these, and a parameter that the schema's properties name and `input` does not give is taken over, so that
    ``session.map(nb.Swarm("triage.swarm.yaml"), [{"path": "src"}])`` works. Each worker is a child run with a history of its own. What
    the launch says of `timeout`, `working_dir`, `env` and `workspace` holds for all of it; limits belong to the workers.
    `sha256`: what the digest of the file and all that it names has to be; another content is refused.
    """

    type: Literal["swarm"] = "swarm"
    _bound: Any = PrivateAttr(default=None)

    @property
    def bound(self) -> Any:
        """What it is, once its file was read (agents/swarm_plan.py). Raises ConfigError before that."""
        if self._bound is None:
            raise ConfigError(f"swarm {self.title!r}: its file was not read; launch it with session.swarm(...) or session.launch(...)")
        return self._bound

    def bind(self, bound: Any) -> Swarm:
        """Say what it is; returns itself."""
        self._bound = bound
        return self.called(bound.id)

    @property
    def secrets(self) -> list[Secret]:
        """Those of its workers."""
        return [] if self._bound is None else list(self._bound.secrets)
