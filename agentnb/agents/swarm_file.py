"""SwarmFile: workers and how they work together, described by a YAML file, as validated data (spec_file.py reads it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, StrictBool, StringConstraints, Tag, model_validator

from agentnb.a2a import A2A, AgentUrl, JsonPart, Message, Modes
from agentnb.agents.spec import AgentCommand, AgentSpec, FunctionName, Id, PythonFunction, Tags, digest_of
from agentnb.data import Data, Env, JsonSchema, Seconds
from agentnb.errors import ConfigError
from agentnb.execution import ExecutionConfig, Retry
from agentnb.prompts import ApiKey, Headers

#: What a failure does to what is around it.
OnFailure = Literal["fail_fast", "continue", "ignore"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=100)]
#: A name that a template can read without brackets.
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
#: Ways to say what a worker is; it has exactly one of them.
SOURCES = ("spec", "a2a", "command", "python")


class Remote(Data):
    """An A2A agent: the fields of nb.A2A; without `message` and `data` it is given the worker's input."""

    url: AgentUrl
    message: Message = None
    data: JsonPart = None
    output_modes: Modes = ()
    api_key: ApiKey = None
    headers: Headers = Field(default_factory=dict)

    def spec(self) -> A2A:
        """The same as a target."""
        return A2A(**{name: getattr(self, name) for name in self.model_fields_set})


class Worker(Data):
    """One worker. Exactly one of `spec` (a file, relative to this one, or the agent itself), `a2a`, `command` and `python`.

    `input`: what it is given; texts are templates of ``input`` (the swarm's), ``steps``, ``loop`` and ``params``, and one that is only
    ``{{...}}`` keeps its type. Default: the swarm's input. `timeout`, `retry`, `env`, `working_dir`: win over what its spec says.
    """

    name: Name
    spec: str | dict[str, Any] | None = None
    a2a: Remote | None = None
    command: AgentCommand | None = None
    python: FunctionName | None = None
    input: dict[str, Any] | None = None
    timeout: Seconds | None = Field(default=None, gt=0)
    retry: Retry | None = None
    env: Env = Field(default_factory=dict)
    working_dir: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Worker:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"it has {' and '.join(given)}" if given else "it has none"
            raise ConfigError(f"a worker has exactly one of {', '.join(SOURCES)}; {what}")
        return self

    @property
    def source(self) -> str:
        """Which of `SOURCES` it has."""
        return next(name for name in SOURCES if getattr(self, name) is not None)

    def config(self) -> ExecutionConfig:
        """What it says of the options of a launch."""
        names = ("timeout", "retry", "env", "working_dir")
        return ExecutionConfig(**{name: getattr(self, name) for name in names if name in self.model_fields_set})

    def written(self) -> AgentSpec | None:
        """The agent that its `command`, `a2a` or `python` is; None for one with a `spec`."""
        command: Any = self.command
        if self.a2a is not None:
            command = self.a2a.spec()
        elif self.python is not None:
            command = PythonFunction(function=self.python)
        return None if command is None else AgentSpec(apiVersion="v1", kind="Agent", id=self.name, command=command)


class _Flow(Data):
    """Base of the flows: keys that Python has other uses for have aliases."""

    def parts(self) -> Iterator[tuple[tuple[str | int, ...], FlowItem]]:
        """Its items and where they stand in it: keys and numbers."""
        for name, field in type(self).model_fields.items():
            value, key = getattr(self, name), field.alias or name
            if name not in NO_ITEMS and value is not None:
                items = enumerate(value) if isinstance(value, tuple) else [(None, value)]
                yield from (((key,) if number is None else (key, number), item) for number, item in items)


class Sequence(_Flow):
    """One by one."""

    type: Literal["sequence"]
    steps: tuple[FlowItem, ...] = Field(min_length=1)
    on_failure: OnFailure | None = None


class Parallel(_Flow):
    """All at once, at most `max_concurrency` of them at a time."""

    type: Literal["parallel"]
    branches: tuple[FlowItem, ...] = Field(min_length=1)
    max_concurrency: int | None = Field(default=None, ge=1)
    on_failure: OnFailure | None = None


class Conditional(_Flow):
    """One of two. `condition`: a template that gives true or false."""

    type: Literal["conditional"]
    condition: StrictBool | str
    then: FlowItem
    otherwise: FlowItem | None = Field(default=None, alias="else")


class Loop(_Flow):
    """Again and again: for each item of `over`, or as long as `condition` (the key ``while``) is true; at most `max_iterations` times.

    In it ``{{loop.index}}`` counts from 0 and ``{{loop.item}}`` is the item, also under the name `item_name` (the key ``as``).
    """

    type: Literal["loop"]
    over: str | list[Any] | None = None
    item_name: Variable | None = Field(default=None, alias="as")
    condition: StrictBool | str | None = Field(default=None, alias="while")
    do: FlowItem
    max_iterations: int | None = Field(default=None, ge=1)
    on_failure: OnFailure | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Loop:
        if (self.over is None) == (self.condition is None):
            raise ConfigError(f"a loop has exactly one of 'over' and 'while'; it has {'none' if self.over is None else 'both'}")
        if self.item_name is not None and self.over is None:
            raise ConfigError("'as' names the items of 'over'; a loop with 'while' has none")
        if self.item_name in {"input", "steps", "loop", "params"}:
            raise ConfigError(f"as: {self.item_name!r} is the name of something else in templates; take another one")
        return self


class Delegate(_Flow):
    """A router: the output of `worker` is the name of the one of `to` that works."""

    type: Literal["delegate"]
    worker: Name
    to: tuple[Name, ...] = Field(min_length=1)


class Supervisor(_Flow):
    """Workers at once, restarted after failures that can be retried.

    `max_restarts`: of all of them together. `backoff`: before the first restart, doubled for each further one, at most 60 s. `strategy`:
    restart the one that failed, or all.
    """

    type: Literal["supervisor"]
    workers: tuple[FlowItem, ...] = Field(min_length=1)
    max_restarts: int = Field(default=3, ge=0)
    backoff: Seconds = 1.0
    strategy: Literal["one_for_one", "one_for_all"] = "one_for_one"


class Compete(_Flow):
    """All at once; the first success wins."""

    type: Literal["compete"]
    workers: tuple[FlowItem, ...] = Field(min_length=1)


class Escalation(_Flow):
    """One, and after its failure the next."""

    type: Literal["escalation"]
    primary: FlowItem
    chain: tuple[FlowItem, ...] = Field(min_length=1)


class Alongside(_Flow):
    """Sides run beside the main; when that succeeds they have `grace` to end."""

    type: Literal["alongside"]
    main: FlowItem
    sides: tuple[FlowItem, ...] = Field(min_length=1)
    grace: Seconds = 5.0


AnyFlow = Sequence | Parallel | Conditional | Loop | Delegate | Supervisor | Compete | Escalation | Alongside
Flow = Annotated[AnyFlow, Field(discriminator="type")]


def _which(value: Any) -> str | None:
    if isinstance(value, str):
        return "name"
    return "flow" if isinstance(value, dict | _Flow) else None


#: A worker's name, or another flow.
FlowItem = Annotated[
    Annotated[Name, Tag("name")] | Annotated[Flow, Tag("flow")],
    Discriminator(
        _which,
        custom_error_type="flow_item",
        custom_error_message="it must be a worker's name or a flow, which is a mapping with a type",
    ),
]
FLOWS: tuple[type[_Flow], ...] = (Sequence, Parallel, Conditional, Loop, Delegate, Supervisor, Compete, Escalation, Alongside)
#: Fields of flows that hold no flow items.
NO_ITEMS = frozenset(
    {"type", "on_failure", "max_concurrency", "condition", "over", "item_name", "max_iterations"}
    | {"max_restarts", "backoff", "strategy", "grace"}
)
for _cls in FLOWS:
    _cls.model_rebuild()


class SwarmFile(Data):
    """Workers and how they work together.

    `flow`: a worker's name or a flow; default the workers in sequence. `on_failure`: for every sequence, parallel and loop in the flow
    that says nothing itself. `input`: a JSON Schema of what the swarm is given. `output`: a template, or data with templates in it, of
    ``input``, ``steps`` and ``params``; default: the output of the flow. `timeout`: for all of it.
    """

    api_version: Literal["v1"] = Field(alias="apiVersion")
    kind: Literal["Swarm"]
    id: Id
    description: str | None = None
    tags: Tags = Field(default_factory=dict)
    input: JsonSchema | None = None
    output: Any = None
    workers: tuple[Worker, ...] = Field(min_length=1)
    flow: FlowItem | None = None
    on_failure: OnFailure = "fail_fast"
    timeout: Seconds | None = Field(default=None, gt=0)
    _file: Path | None = PrivateAttr(default=None)
    #: What the workers are, by name, once the files that they name were read.
    _agents: dict[str, AgentSpec | SwarmFile] = PrivateAttr(default_factory=dict)

    @property
    def file(self) -> Path | None:
        """The file that it was read from, absolute; None when it is of no file."""
        return self._file

    @property
    def folder(self) -> Path | None:
        """What paths in it are relative to; None for the current directory."""
        return None if self._file is None else self._file.parent

    @property
    def order(self) -> FlowItem:
        """The flow; without one, all workers in sequence."""
        return Sequence(type="sequence", steps=tuple(worker.name for worker in self.workers)) if self.flow is None else self.flow

    def flow_data(self) -> str | dict[str, Any]:
        """The flow (see `order`) as JSON data, keys as in the file, without those that are not given and have no default."""
        return self.order if isinstance(self.order, str) else self.order.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def agents(self) -> dict[str, AgentSpec | SwarmFile]:
        """What each worker is, by its name: the agent, or the swarm, that it runs."""
        return dict(self._agents)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it and its workers' specs say, as 64 hex digits."""
        return digest_of(self, *(f"{name} {self._agents[name].digest}" for name in sorted(self._agents)))

    def worker(self, name: str) -> Worker:
        """The worker with this name. Raises ConfigError when there is none."""
        for worker in self.workers:
            if worker.name == name:
                return worker
        raise ConfigError(f"swarm {self.id!r} has no worker {name!r}; it has {', '.join(worker.name for worker in self.workers)}")
