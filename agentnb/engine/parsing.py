"""Streams of JSON lines on stdout: kept whole, and turned by a parser into reports, readable output and a verdict.

A work names its parser as ``module:attribute``: something that is called with the work's `parser_options` and gives an EventParser.
Parsers of other packages run in the supervisor too, so none of their faults may cost more than their own run: exceptions are
caught, data that is no JSON is refused, and one that does not come back is interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentnb.engine.capture import Output, Stream
from agentnb.engine.event_lines import EventLines
from agentnb.engine.reports import too_deep
from agentnb.errors import ConfigError
from agentnb.events import Json

if TYPE_CHECKING:
    from agentnb.engine.attempt import Ended
    from agentnb.engine.executor import Execution
    from agentnb.engine.outcome import Outcome

#: A parser that takes longer than this for one piece of the stream is interrupted.
PATIENCE_S = 5.0
#: A parser that fails this often is given up, and its run fails.
MAX_FAULTS = 20
_STDERR_BYTES = 4096
_KEPT_FAULTS = 3


class EventParser(Protocol):
    """What makes reports (engine/reports.py) of the events of one attempt."""

    def feed(self, event: Json) -> Iterable[Json]:
        """What one JSON object of the stream means."""

    def end(self, exit_code: int | None, signal: int | None, stderr: str) -> Iterable[Json]:
        """What the end of the process means; `stderr`: the last of it. An ``error`` report fails a run that ended well."""


class ParserFault(ConfigError):
    """A parser cannot be had, or does not work; the message is for people."""


class _Overdue(BaseException):
    """Raised inside a parser that does not come back; no `except Exception` of it catches this."""


class Tap:
    """Where the bytes of stdout go: to the log of the raw stream, and to the parser. Takes a Drain's calls as a Stream does."""

    turn = 1  # parsing takes longer than writing

    def __init__(self, raw: Stream | None, take: Parsing) -> None:
        """`raw`: None when the output is not to be kept."""
        self._raw = raw
        self._take = take

    def add(self, data: bytes | memoryview) -> None:
        """Keep and parse the next bytes. Raises OSError when the disk refuses them; they are kept in memory and parsed all the same."""
        piece = bytes(data)
        try:
            if self._raw is not None:
                self._raw.add(piece)
        finally:
            self._take.feed(piece)

    def spill(self) -> None:
        """Put what is in memory on disk. Raises OSError."""
        if self._raw is not None:
            self._raw.spill()

    def end(self) -> None:
        """No more comes. Raises OSError."""
        self._take.feed(b"", last=True)
        if self._raw is not None:
            self._raw.end()

    def abandon(self) -> int:
        """Let go of the file; return how many bytes the disk refused."""
        return self._raw.abandon() if self._raw is not None else 0


class Parsing:
    """The parser of one attempt."""

    def __init__(self, execution: Execution, number: int) -> None:
        """Load and make the parser. Raises ParserFault when that fails."""
        work = execution.work
        self._of = execution
        self._name = work["parser"]
        self._own = self._name.startswith("agentnb.")
        self._keeps = work["capture"] in {"stdout", "both", "structured"}
        self._lines = EventLines()
        self._faults: list[str] = []
        self._said: list[str] = []
        self._ended = False
        with self._watched():
            self._parser: EventParser | None = make_parser(self._name, work.get("parser_options") or {}, work.get("parser_path"))
        suffix = "" if number == 1 else f".{number}"
        self.artifact = f"stream{suffix}.jsonl"
        self._raw = self._raw_stream(number, suffix) if self._keeps else None
        self.tap = Tap(self._raw, self)

    def _raw_stream(self, number: int, suffix: str) -> Stream:
        bound = (self._of.work.get("limits") or {}).get("max_output_bytes")
        home = Output(self._of.folder, number, secrets=self._of.secrets, max_bytes=bound, on_limit=self._of.too_much_output)
        home.streams = {"stream": Stream("stream", self._of.folder, f"stream{suffix}.jsonl", home)}
        self._home = home
        return home.streams["stream"]

    def spill(self) -> None:
        """Put the raw stream on disk as far as it is, and what comes from now on at once. Raises OSError."""
        if self._raw is not None:
            self._home.spill()

    # --- the stream

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Take the next bytes of the stream; never raises."""
        found = self._lines.feed(data, last=last)
        if not found:
            return
        if self._own:
            self._events(found)
            return
        try:
            with self._watched():
                self._events(found)
        except ParserFault as bad:
            self._fault(bad)

    def _events(self, found: list[Json | str]) -> None:
        try:
            for item in found:
                if isinstance(item, str):  # lines that are no objects are output as they are
                    self._said.append(item)
                elif self._parser is not None:
                    try:
                        for report in self._parser.feed(item):
                            self._report(report)
                    except Exception as bad:  # noqa: BLE001 - another package's fault, or a stream that nobody thought of
                        self._fault(bad)
        finally:
            self._print()

    def _report(self, report: Any) -> None:
        if not self._own:
            report = _plain(report)
        kind, text = report.get("t"), report.get("text")
        if kind == "output" and isinstance(text, str) and report.get("stream") != "stderr":
            self._said.append(text)
        elif kind == "log" and isinstance(text, str):
            self._said.append(text + "\n")
        elif kind == "done":
            self._of.overdue_soon()
        else:
            self._of.report(report)

    def _print(self) -> None:
        """Put out what was said in this piece of the stream, at once: a word at a time would be dear."""
        if self._said and self._keeps:
            self._of.add_output("stdout", "".join(self._said).encode("utf-8", "replace"))
        self._said.clear()

    def _fault(self, bad: Exception) -> None:
        self._faults.append(f"{type(bad).__name__}: {bad}" if not isinstance(bad, ParserFault) else str(bad))
        if len(self._faults) <= _KEPT_FAULTS:
            self._of.warn(f"the parser {self._name} failed on a part of the stream, which was left out ({self._faults[-1]})", 500)
        if len(self._faults) >= MAX_FAULTS or isinstance(bad, ParserFault):
            self._parser = None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Interrupt foreign code that does not come back; possible where signals are, on the supervisor's main thread."""
        if self._own or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)
        try:
            yield
        except _Overdue:
            raise ParserFault(f"it did not come back within {PATIENCE_S:g} s") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    # --- the end

    async def end(self, ended: Ended, outcome: Outcome) -> None:
        """The process is over: hear the parser's last words, and keep the raw stream as an artifact."""
        self._finish(ended)
        if self._lines.overlong:
            self._of.warn(
                f"{self._lines.overlong} lines of the stream were too long, or nested too deep, to be parsed; see {self.artifact}"
            )
        if self._parser is None and outcome.ok:
            why = self._of.masked(f"the parser {self._name} was given up: {self._faults[-1]}")[:1000]
            outcome.fail("runtime_error", why, "internal_error")
        for stream in self._of.out.streams.values() if self._of.out else ():
            try:
                stream.end()
            except OSError:
                if lost := stream.abandon():
                    self._of.warn(f"the last {lost} bytes of {stream.name} are lost: the disk would not take them")
        if self._raw is not None and self._raw.size:
            await self._of.agent.keep_stream(self.artifact, self._raw)

    def _finish(self, ended: Ended) -> None:
        if self._parser is None or ended.exit is None:
            return
        said = self._of.out.streams["stderr"].end_text(_STDERR_BYTES) if self._of.out else ""
        try:
            with self._watched():
                for report in self._parser.end(ended.exit.exit_code, ended.exit.signal, said):
                    self._report(report)
        except Exception as bad:  # noqa: BLE001 - as above
            self._fault(bad)
            self._parser = None
        self._print()


def make_parser(name: str, options: Json, folder: str | None = None) -> EventParser:
    """The parser of that name, made with `options`; `folder` is where its module may lie. Raises ParserFault."""
    home, _, attribute = name.partition(":")
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
    try:
        made: EventParser = getattr(import_module(home), attribute)(**options)
    except Exception as bad:
        raise ParserFault(f"the parser {name} cannot be loaded: {type(bad).__name__}: {bad}") from bad
    if not callable(getattr(made, "feed", None)) or not callable(getattr(made, "end", None)):
        raise ParserFault(f"the parser {name} has no methods feed and end")
    return made


def _interrupt(*_: Any) -> None:
    raise _Overdue


def _plain(report: Any) -> Json:
    """A foreign parser's report as JSON data of its own. Raises TypeError or ValueError for what is none."""
    if not isinstance(report, dict) or not isinstance(report.get("t"), str):
        raise TypeError(f"a report must be a mapping with a 't', not {type(report).__name__}")
    try:
        data: Json = json.loads(json.dumps(report))
    except (TypeError, RecursionError) as bad:
        raise ValueError(f"a report is no JSON data: {bad}") from None
    if too_deep(data):
        raise ValueError("a report is nested too deep")
    return data


def folder_of(module: str) -> str | None:
    """Where a parser's module lies on this process's path, for a supervisor that may have another; None for agentnb's own."""
    if module.split(".", 1)[0] == "agentnb":
        return None
    file = getattr(import_module(module), "__file__", None)
    if not file:
        return None
    at = Path(file).resolve()
    depth = module.count(".") + (1 if at.stem == "__init__" else 0)
    return str(at.parents[depth])
