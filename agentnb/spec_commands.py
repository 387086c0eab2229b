"""``agentnb validate``, ``schema``, ``inspect`` and ``run``: agents and swarms in YAML files, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError, RuntimeUnavailable, SpecError
from agentnb.formats import without_iri
from agentnb.printing import clean, json_text

if TYPE_CHECKING:
    from agentnb.notebook.handles import RunHandle
    from agentnb.notebook.session import Session

GOOD, FAILED, MISUSED = 0, 1, 2
without_iri()


# --- looking at files -----------------------------------------------------------------------------------------------


def validate(args: argparse.Namespace) -> int:
    """All that is wrong with the files; 2 when anything is."""
    found = [_checked(name) for name in args.files]
    if args.format == "json":
        sys.stdout.write(json_text(found))
    else:
        for one in found:
            lines = [fault["text"] for fault in one["faults"]] or [f"{one['file']}: good ({one['kind']} {one['id']!r})"]
            sys.stdout.write("".join(f"{clean(line)}\n" for line in lines))
    return GOOD if all(one["valid"] for one in found) else MISUSED


def _checked(name: str) -> dict[str, Any]:
    from agentnb.agents.spec_file import load

    try:
        spec = load(name)
    except SpecError as bad:
        faults = [fault._asdict() | {"text": str(fault)} for fault in bad.faults]
        return {"file": name, "valid": False, "kind": None, "id": None, "faults": faults}
    except ConfigError as bad:  # no path at all
        fault = {"file": name, "line": None, "column": None, "path": "", "message": str(bad), "text": str(bad)}
        return {"file": name, "valid": False, "kind": None, "id": None, "faults": [fault]}
    return {"file": name, "valid": True, "kind": spec.kind, "id": spec.id, "faults": []}


def schema(args: argparse.Namespace) -> int:
    """The JSON Schema of one kind of file."""
    from agentnb.agents.spec_schema import schema_of

    sys.stdout.write(json.dumps(schema_of(args.kind), indent=2) + "\n")
    return GOOD


def inspect(args: argparse.Namespace) -> int:
    """What a file comes to."""
    from agentnb.agents.spec_file import open_spec
    from agentnb.agents.spec_inspection import inspection
    from agentnb.spec_text import text_of

    found = inspection(open_spec(args.file))
    sys.stdout.write(json_text(found) if args.format == "json" else clean(text_of(found)))
    return GOOD


# --- running one ----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Run a file: what it prints comes as it is printed; 0 when it completed, 1 when it did not."""
    from agentnb.agents.spec_file import load
    from agentnb.notebook.session import Session
    from agentnb.states import RunStatus

    spec = load(args.file)
    if args.runtime not in {None, "local"}:
        raise RuntimeUnavailable(f"--runtime {args.runtime}: it is not in this version of agentnb; every run is a process of this machine")
    asked = {"name": args.run_name, "timeout": args.timeout, "env": _pairs("--env", args.env), "tags": _pairs("--tag", args.tag)}
    options: dict[str, Any] = {name: value for name, value in (asked | {"reuse": args.reuse}).items() if value}
    given = _input(args.input, spec.input)
    with Session(args.session, store=args.store) as session:
        launched = getattr(session, spec.kind.lower())(args.file, input=given, **options)
        _watch(session, launched, args, quiet=spec.kind == "Swarm")
        _tell(session, launched, args, spec.kind)
    return GOOD if launched.status is RunStatus.COMPLETED else FAILED


def _watch(session: Session, launched: RunHandle, args: argparse.Namespace, *, quiet: bool) -> None:
    """Show what the run prints until it has ended; an interrupt cancels it. `quiet`: what it prints is not its result."""
    from agentnb.logs import show_logs
    from agentnb.notebook.launching import settle
    from agentnb.printing import TerminalText

    outs: list[tuple[str, Any]] = []
    if args.format == "table":
        to = [("stdout", sys.stderr if quiet else sys.stdout), ("stderr", sys.stderr)]
        outs = [(name, TerminalText(file.buffer) if file.isatty() else file.buffer) for name, file in to]
    try:
        settle(session.store)
        show_logs(session.store, launched.id, outs, follow=True)
        launched.wait()
    except KeyboardInterrupt:
        launched.cancel("interrupted from the command line")
        launched.wait()
        sys.stderr.write(f"\nagentnb: {clean(launched.name)} ({launched.id}) was cancelled\n")
        raise
    finally:
        for _, out in outs:
            if isinstance(out, TerminalText):
                out.end()


def _tell(session: Session, launched: RunHandle, args: argparse.Namespace, kind: str) -> None:
    """How it ended: on stderr for people, on stdout as JSON."""
    from agentnb.record import record

    if args.format == "json":
        sys.stdout.write(json_text(record(session.store, launched.id)))
        return
    result = launched.wait()
    if kind == "Swarm" and result.output is not None:
        output = result.output
        sys.stdout.write(clean(output if isinstance(output, str) else json_text(output, ensure_ascii=False)).rstrip("\n") + "\n")
        sys.stdout.flush()
    why = f": {clean(launched.error.message)}" if launched.error is not None else ""
    reused = f"; it is run {launched.reused_from} again" if launched.reused_from else ""
    name, where = clean(launched.name), f"agentnb show {launched.id}{reused}"
    sys.stderr.write(f"agentnb: {name} {launched.status.value} in {result.duration:.1f} s{why} ({where})\n")


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {text!r}: write {option} NAME=VALUE")
        found[name] = value
    return found


def _input(given: list[str], schema: dict[str, Any] | None) -> dict[str, Any]:
    """The input that the command line gives: a text where the schema wants one, else JSON where it is some, else a text."""
    found: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{") or text.startswith("@"):
            found |= _object(text)
        else:
            for name, value in _pairs("--input", [text]).items():
                found[name] = _value(value, ((schema or {}).get("properties") or {}).get(name))
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (ValueError, RecursionError) as bad:
        raise ConfigError(f"--input {text[:60]!r}: it is no JSON: {bad}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"--input {text[:60]!r}: it is no JSON object")
    return data


def _value(text: str, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string" or (isinstance(kind, list) and "string" in kind):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> Any:
    raise ValueError(name)
