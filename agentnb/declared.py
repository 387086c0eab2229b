"""Agents that files describe: their targets, as validated data; the files are read by agents/declared_agent.py, at the launch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, StringConstraints, model_validator

from agentnb.commands import Spec
from agentnb.data import Secret
from agentnb.errors import ConfigError


def _path(value: object) -> object:
    if value is not None and (not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value)):
        raise ConfigError(f"{value!r} is no path of a spec file; write 'agents/reviewer.yaml', or give the spec as a mapping")
    return None if value is None else str(value)


def _data(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{value!r} is no mapping; write {{'path': 'src'}}")
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False, default=_refuse))
    except ConfigError:
        raise
    except (TypeError, ValueError, RecursionError) as bad:
        raise ConfigError(f"it is no JSON data: {bad}") from None


def _refuse(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and type(value).__module__ == "numpy":
        return value.item()
    if isinstance(value, Secret):
        raise ConfigError("a secret in it would be stored with the run; give it as env={'NAME': nb.Secret(...)}")
    raise TypeError(f"{type(value).__name__} in it cannot be written as JSON")


SpecPath = Annotated[str | None, BeforeValidator(_path)]
SpecData = Annotated[dict[str, Any] | None, BeforeValidator(_data)]
Input = Annotated[dict[str, Any], BeforeValidator(_data)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Bound:
    """A spec that was read, with an input: what is run. `config`: an ExecutionConfig; `output`: the schema of what it gives."""

    id: str
    command: Spec
    config: Any
    output: dict[str, Any] | None = None
    tags: dict[str, str] = field(default_factory=dict)


class Declared(Spec):
    """What targets have in common that files describe: `path` of a YAML file, or `spec`, the same as data; and `input`.

    `sha256`: what the spec's digest has to be; another content is refused. Runs are recorded with theirs.
    """

    path: SpecPath = None
    spec: SpecData = None
    input: Input = Field(default_factory=dict)
    sha256: Digest | None = None
    _id: str | None = PrivateAttr(default=None)

    def __init__(self, source: str | Path | Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Take the path, or the spec as a mapping, positionally."""
        given = {} if source is None else {"spec" if isinstance(source, Mapping) else "path": source}
        super().__init__(**(given | fields))

    @model_validator(mode="after")
    def _one_source(self) -> Declared:
        if (self.path is None) == (self.spec is None):
            what = "both" if self.path is not None else "neither"
            raise ConfigError(f"give the path of a spec file, or the spec as a mapping; {what} is given")
        return self

    @property
    def title(self) -> str:
        """Its id; before its file was read the file's name."""
        if self._id is not None:
            return self._id
        if self.path is not None:
            return PurePath(self.path).name.split(".")[0] or self.path
        return str((self.spec or {}).get("id", "agent"))

    def called(self, id_: str) -> Self:
        """The same, under the id that its spec gives it; returns itself."""
        self._id = id_
        return self

    @property
    def display(self) -> str:
        """Its id."""
        return self.title

    @property
    def asks(self) -> bool:
        """Yes: its file has to be read."""
        return True


class Agent(Declared):
    """An agent that a YAML file describes: ``nb.Agent("agents/reviewer.yaml", input={"path": "src"})``.

    The first argument is the path of the file, or the same as a mapping. `input` is checked against the spec's JSON Schema before
    anything starts, and templates in the spec read it as ``{{input.path}}``. When it is launched with parameters, texts in `input` are
    templates of these, and a parameter that the schema's properties name and `input` does not give is taken over, so that
    ``session.map(nb.Agent("reviewer.yaml"), [{"path": "src"}])`` works. Options of the launch win over what the spec says, that over the
    session's. `sha256`: what the spec's digest has to be; another content is refused. `goes_on`: set by ``run.reply``: the command that
    runs instead of the spec's.
    """

    type: Literal["agent"] = "agent"
    goes_on: SpecData = None
    _bound: Bound | None = PrivateAttr(default=None)

    @property
    def bound(self) -> Bound:
        """What it is, once its file was read. Raises ConfigError before that."""
        if self._bound is None:
            raise ConfigError(f"agent {self.title!r}: its spec was not read; launch it with session.agent(...) or session.launch(...)")
        return self._bound

    def bind(self, bound: Bound) -> Agent:
        """Say what it is; returns itself."""
        self._bound = bound
        return self.called(bound.id)

    @property
    def secrets(self) -> list[Secret]:
        """Those of what it runs."""
        return [] if self._bound is None else list(self._bound.command.secrets)
