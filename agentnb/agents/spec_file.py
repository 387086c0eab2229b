"""Reading agents and swarms from YAML files: everything that is wrong is told at once, each fault with file, line and column.

    load("reviewer.yaml")            AgentSpec or SwarmFile, as its `kind` says
    load({"apiVersion": "v1", ...})  the same from data
    load_text("kind: ...", "<cell>") the same from text

Files that workers name are read, too, relative to the file that names them; a file that comes back to itself is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentnb.agents.marked_nodes import Complaint, Mark, Node, plain_node
from agentnb.agents.marked_yaml import MAX_BYTES, parse
from agentnb.agents.spec import AgentSpec
from agentnb.agents.spec_checks import agent_faults, input_faults, swarm_faults, workers_of
from agentnb.agents.swarm_file import SwarmFile
from agentnb.errors import ConfigError, SpecError, SpecFault

Loaded = AgentSpec | SwarmFile
Kind = Literal["Agent", "Swarm"]
Path_ = tuple[str | int, ...]
Json = dict[str, Any]

_MODELS: dict[str, type[AgentSpec | SwarmFile]] = {"Agent": AgentSpec, "Swarm": SwarmFile}
_VERBS = {"Agent": "session.agent(...)", "Swarm": "session.swarm(...)"}
#: Keys below which numbers and the like are texts as they are written, and keys whose values are nobody's but the user's.
VERBATIM = frozenset({"argv", "env", "headers", "tags"})
OPAQUE = frozenset({"data", "extra", "input", "json_schema", "kwargs", "mcp_config", "output", "over"})
_BEGINS = "a spec begins with 'apiVersion: v1' and 'kind: Agent' or 'kind: Swarm'"
_MISSING = "it is missing"
#: Faults of what tells alternatives apart, and the key that does.
_TAGS = {"there is no type ": "type", "there is no kind ": "kind"}
#: Most files that one swarm may take together.
MAX_FILES = 200


class Opened(NamedTuple):
    """A spec, the data of its file, and where each part of these stands."""

    spec: Loaded
    data: Json
    root: Node
    name: str | None


class Source(NamedTuple):
    """Where a spec is from. `name`: as people know it; `path`: absolute, None for text and data."""

    name: str | None
    path: Path | None
    folder: Path | None


def load(source: str | Path | Mapping[str, Any], kind: Kind | None = None) -> Loaded:
    """The agent or swarm in a file, or in data. Raises SpecError with all that is wrong; also when it is not of this `kind`."""
    loading = _Loading()
    if isinstance(source, Mapping):
        return loading.finish(loading.data(source, Source(None, None, None), kind))
    if not isinstance(source, str | Path) or not str(source).strip() or "\0" in str(source):
        raise ConfigError(f"{source!r} is no path of a spec file; write 'agents/reviewer.yaml', or give the spec as a mapping")
    path = Path(source).expanduser()
    return loading.finish(loading.file(path.absolute(), str(source), kind))


def open_spec(path: str | Path) -> Opened:
    """The agent or swarm in a file, with its data and their places. Raises SpecError."""
    loading = _Loading()
    spec = loading.finish(loading.file(Path(path).expanduser().absolute(), str(path), None))
    root = loading.root
    return Opened(spec, root.data(VERBATIM, OPAQUE), root, str(path))


def load_text(text: str, name: str = "<text>", kind: Kind | None = None, folder: Path | None = None) -> Loaded:
    """The agent or swarm in a text. `name` stands for the file in messages; files that it names are relative to `folder`."""
    loading = _Loading()
    return loading.finish(loading.text(text, Source(name, None, folder), kind))


def text_data(text: str, name: str, kind: Kind | None = None) -> Json:
    """The data of a text that holds a spec, as `load` takes them; checked, with `name` for the file in messages. Raises SpecError."""
    loading = _Loading()
    loading.finish(loading.text(text, Source(name, None, None), kind))
    return dict(loading.root.data(VERBATIM, OPAQUE))


def load_agent(source: str | Path | Mapping[str, Any]) -> AgentSpec:
    """The agent in a file, or in data. Raises SpecError."""
    found = load(source, "Agent")
    assert isinstance(found, AgentSpec)  # noqa: S101 - `kind` was asked for
    return found


def load_swarm(source: str | Path | Mapping[str, Any]) -> SwarmFile:
    """The swarm in a file, or in data, with what its workers are. Raises SpecError."""
    found = load(source, "Swarm")
    assert isinstance(found, SwarmFile)  # noqa: S101
    return found


class _Loading:
    """One load: the faults of all its files, and the files that are open at the moment."""

    def __init__(self) -> None:
        self.faults: list[SpecFault] = []
        self._known: dict[Path, Loaded | None] = {}
        self._chain: list[tuple[Path, str]] = []
        #: The tree of the file that was asked for.
        self.root = Node({})
        self.name: str | None = None

    def finish(self, found: Loaded | None) -> Loaded:
        """What was found, or SpecError."""
        faults = list(dict.fromkeys(self.faults))
        if not faults and found is not None:
            return found
        order = {name: number for number, name in reversed(list(enumerate(fault.file for fault in faults)))}
        faults.sort(key=lambda fault: (fault.file != self.name, order[fault.file], fault.line or 0, fault.column or 0))
        first, *others = faults
        message = ": ".join(part for part in (first.path, first.message) if part)
        message = "\n".join([message, *map(str, others)])
        raise SpecError(message, file=first.file, line=first.line, column=first.column, faults=tuple(faults))

    # --- where it comes from

    def file(self, path: Path, name: str, kind: Kind | None) -> Loaded | None:
        """The spec in a file; None, and faults, when there is none."""
        real = path.resolve()
        if real in self._known:
            return self._known[real]
        source = Source(name, path, path.parent)
        self.name = self.name if self._chain else name
        raw = self._bytes(path, source)
        if raw is None:
            return None
        self._chain.append((real, name))
        found = self.text(raw, source, kind)
        self._chain.pop()
        self._known[real] = found
        return found

    def text(self, raw: bytes | str, source: Source, kind: Kind | None) -> Loaded | None:
        """The spec in a text."""
        root, complaints = parse(raw)
        for complaint in complaints:
            self._complain(source, complaint)
        if root is None:
            if not complaints:
                self._complain(source, Complaint(Mark(1, 1), f"it is empty; {_BEGINS}"))
            return None
        if len(self._chain) <= 1:
            self.root = root
        return self._model(root, source, kind)

    def data(self, given: Mapping[str, Any], source: Source, kind: Kind | None, at: Path_ = ()) -> Loaded | None:
        """The spec in data."""
        try:
            return self._model(plain_node(dict(given)), source, kind)
        except ValueError as bad:
            self.faults.append(SpecFault(source.name, None, None, shown(at), str(bad)))
            return None

    def _bytes(self, path: Path, source: Source) -> bytes | None:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise IsADirectoryError(f"{'it is a folder' if path.is_dir() else 'it is no file'}; give the path of a YAML file")
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            self.faults.append(SpecFault(source.name, None, None, "", f"there is no such file{_near(path)}"))
        except OSError as bad:
            self.faults.append(SpecFault(source.name, None, None, "", bad.strerror or str(bad)))
        return None

    def _complain(self, source: Source, complaint: Complaint) -> None:
        mark = complaint.mark
        self.faults.append(SpecFault(source.name, mark.line or None, mark.column or None, "", complaint.message))

    def _fault(self, source: Source, root: Node, place: Path_, message: str, *, key: bool = False) -> None:
        mark = root.at(place, key=key)
        self.faults.append(SpecFault(source.name, mark.line or None, mark.column or None, shown(place), message))

    # --- from nodes to models

    def _model(self, root: Node, source: Source, kind: Kind | None) -> Loaded | None:
        said = self._kind(root, source, kind)
        if said is None:
            return None
        data = root.data(VERBATIM, OPAQUE)
        for place, message in agent_faults(data) if said == "Agent" else swarm_faults(data):
            self._fault(source, root, place, message)
        agents = self._agents(root, source) if said == "Swarm" else {}
        model = self._made(_MODELS[said], data, root, source)
        if isinstance(model, SwarmFile):
            model._agents = agents | _written(model, source)  # noqa: SLF001 - told once, here
            for place, message in input_faults(model):
                self._fault(source, root, place, message)
        return model

    def _made(self, cls: type[AgentSpec | SwarmFile], data: Any, root: Node, source: Source) -> Loaded | None:
        try:
            model = cls(**data)
        except ConfigError as bad:
            for place, message in bad.parts or (((), str(bad)),):
                self._refused(source, root, place, message)
            return None
        model._file = source.path
        return model

    def _refused(self, source: Source, root: Node, place: Path_, message: str) -> None:
        """A fault that a model found. Its place has the names of alternatives in it, and what is not there may be given as empty."""
        known, last = root.known(place), place[-1] if place else ""
        if message == _MISSING or (message.startswith(("'' ", "() ")) and root.known(place[:-1]) == known):
            self._fault(source, root, (*known, last), _MISSING, key=True)
        elif (tag := message.partition("'")[0]) in _TAGS and root.known((*known, _TAGS[tag])) != known:
            self._fault(source, root, (*known, _TAGS[tag]), message)
        else:
            self._fault(source, root, known, message, key=message.startswith(f"there is no {last!r} here"))

    def _kind(self, root: Node, source: Source, kind: Kind | None) -> Kind | None:
        if not isinstance(root.value, dict):
            self._fault(source, root, (), f"it is no mapping; {_BEGINS}")
            return None
        said = root.value["kind"].value if "kind" in root.value else None
        if not isinstance(said, str) or said not in _MODELS:
            if "kind" not in root.value:
                self._fault(source, root, ("kind",), "it is missing; write 'kind: Agent' or 'kind: Swarm'")
            else:
                near = get_close_matches(str(said), [*_MODELS, *(name.lower() for name in _MODELS)], n=1)
                hint = f"; did you mean {near[0].capitalize()!r}?" if near else ""
                self._fault(source, root, ("kind",), f"there is no kind {said!r}; it is 'Agent' or 'Swarm'{hint}")
            return None
        if kind is not None and said != kind:
            self._fault(source, root, ("kind",), f"it is of kind {said}, not {kind}; {_VERBS[said]} runs it")
            return None
        return "Agent" if said == "Agent" else "Swarm"

    # --- what the workers are

    def _agents(self, root: Node, source: Source) -> dict[str, Loaded]:
        """The specs that workers name or hold, by the workers' names."""
        found: dict[str, Loaded] = {}
        for number, worker in workers_of(root.data()):
            place: Path_ = ("workers", number, "spec")
            given, spec = worker.get("spec"), None
            if isinstance(given, dict):
                spec = self._inline(root.value["workers"].value[number].value["spec"], place, source)
            elif isinstance(given, str):
                spec = self._named(given, place, root, source)
            if spec is not None and isinstance(worker.get("name"), str):
                found.setdefault(worker["name"], spec)
        return found

    def _inline(self, node: Node, place: Path_, source: Source) -> Loaded | None:
        """A spec that stands in the swarm's own file: its faults are told with their place in that."""
        before = len(self.faults)
        found = self._model(node, source, None)
        for number, fault in enumerate(self.faults[before:], start=before):
            if fault.file == source.name:
                self.faults[number] = fault._replace(path=shown(place) + ("." if fault.path and fault.path[0] != "[" else "") + fault.path)
        return found

    def _named(self, name: str, place: Path_, root: Node, source: Source) -> Loaded | None:
        """A spec in another file."""
        if not name.strip() or "{{" in name or "{%" in name or "\0" in name:
            what = "it is empty" if not name.strip() else "it cannot be a template, since it is read before anything runs"
            self._fault(source, root, place, f"{what}; give the path of a spec file, relative to this one")
            return None
        path = ((source.folder or Path.cwd()) / Path(name).expanduser()).absolute()
        real = path.resolve()
        open_files = [file for file, _ in self._chain]
        if real in open_files:
            round_ = [shown_name for _, shown_name in self._chain[open_files.index(real) :]]
            self._fault(source, root, place, f"it refers to itself: {' -> '.join([*round_, name])}; a swarm cannot be its own worker")
            return None
        if len(self._known) >= MAX_FILES:
            self._fault(source, root, place, f"the swarm takes more than {MAX_FILES} files")
            return None
        if not path.exists():
            self._fault(source, root, place, f"there is no file {str(path)!r}{_near(path)}; paths are relative to the file that names them")
            return None
        return self.file(path, str(Path(source.name).parent / name) if source.path is not None and source.name else name, None)


def _written(swarm: SwarmFile, source: Source) -> dict[str, Loaded]:
    """What those workers are that are written in the swarm itself."""
    found: dict[str, Loaded] = {}
    for worker in swarm.workers:
        if (spec := worker.written()) is not None:
            spec._file = source.path  # noqa: SLF001
            found.setdefault(worker.name, spec)
    return found


def shown(place: Path_) -> str:
    """A place in data as text: ``workers[0].command``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _near(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        names = []
    near = get_close_matches(path.name, names[:1000], n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near else ""
