"""The `agentnb` command. Exit codes: 0 good, 1 a run failed, 2 bad usage or input."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agentnb._version import __version__
from agentnb.absent import of_command
from agentnb.errors import AgentnbError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
FORMATS = ("table", "json", "jsonl", "csv", "parquet")

#: What a table shows when --columns does not say: what fits a terminal.
COLUMNS = {
    "runs": ["id", "name", "status", "kind", "command", "session", "created_at", "run_s", "exit_code"],
    "steps": ["run", "name", "kind", "status", "attempt", "started_at", "run_s", "exit_code", "error"],
    "artifacts": ["run", "name", "content_type", "size", "created_at", "location"],
    "events": ["seq", "at", "type", "run_id", "step_id"],
    "sessions": ["id", "name", "status", "created_at", "ended_at", "n_runs", "live", "failed"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and (message := of_command(words[0])):
        return _complain(message)
    args = _parser().parse_args(words)
    command: Callable[[argparse.Namespace], int] = args.do
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows another
    try:
        code = command(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except KeyboardInterrupt:
        return INTERRUPTED
    except (AgentnbError, OSError) as bad:
        return _complain(str(bad))
    return code


def _complain(message: str) -> int:
    sys.stderr.write(f"agentnb: {message}\n")
    return MISUSED


# --- the arguments --------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it as every other error is said."""
        self.exit(_complain(f"{message} (see: {self.prog} --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="agentnb", description="Launch agents and commands from a notebook; look at what they did.")
    parser.add_argument("--version", action="version", version=f"agentnb {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in COLUMNS:
        _add_frame(commands, name)
    _add_show(commands)
    _add_logs(commands)
    _add_export(commands)
    _add_to(commands)
    _add_cancel(commands)
    _add_gc(commands)
    _add_machine(commands)
    _add_notebooks(commands)
    _add_specs(commands)
    return parser


def _add(commands: Any, name: str, do: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(do=do, name=name)
    return parser


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="PATH", help="the folder of the history (default: AGENTNB_HOME, else ./.agentnb)")


def _format(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    parser.add_argument("--format", choices=formats, default="table", help="how to write it (default: table)")


def _add_frame(commands: Any, name: str) -> None:
    parser = _add(commands, name, _frame, f"the {name} of the history, oldest first")
    _store(parser)
    parser.add_argument("--session", help="only those of this session (name or id)")
    if name != "sessions":
        parser.add_argument("--group", help="only those of this group (id)")
    if name in {"steps", "artifacts", "events"}:
        parser.add_argument("--run", metavar="RUN", help="only those of this run: its id, the start of it, or its name")
    if name in {"runs", "events"}:
        parser.add_argument(
            "--full", action="store_true", help="also what is large: " + ("stdout and stderr" if name == "runs" else "data")
        )
    if name in {"runs", "steps", "sessions"}:
        parser.add_argument("--status", action="append", help="only those with this status; may be repeated")
    parser.add_argument("--since", metavar="WHEN", help="only those since then: 2026-01-31, 2026-01-31T09:00Z, or 7d, 2h ago")
    parser.add_argument("--until", metavar="WHEN", help="only those before then")
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest N")
    parser.add_argument("--columns", metavar="A,B,...", help="these columns, in this order")
    _format(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to FILE instead of the terminal")


def _add_show(commands: Any) -> None:
    parser = _add(commands, "show", _show, "one run: its record, steps and artifacts")
    parser.add_argument("run", metavar="RUN", help="the run's id, the start of it, or its name")
    _store(parser)
    _format(parser, ("table", "json"))


def _add_logs(commands: Any) -> None:
    parser = _add(commands, "logs", _logs, "what a run printed")
    parser.add_argument("run", metavar="RUN", help="the run's id, the start of it, or its name")
    _store(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    parser.add_argument("--stream", choices=("stdout", "stderr", "both"), default="both", help="which output (default: both)")
    parser.add_argument("--raw", action="store_true", help="to a terminal too, the bytes as they are: they can steer it")


def _add_export(commands: Any) -> None:
    parser = _add(commands, "export", _export, "write a finished run to one file, which session.replay plays without key or network")
    parser.add_argument("run", metavar="RUN", help="the run's id, the start of it, or its name")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write, such as recorded/run.jsonl")
    _store(parser)
    parser.add_argument("--no-artifacts", action="store_true", help="only the names and checksums of its artifacts, not their bytes")
    parser.add_argument("--max-artifact-bytes", default="10MiB", metavar="SIZE", help="of larger ones only the checksum (%(default)s)")
    parser.add_argument("--no-params", action="store_true", help="without its parameters")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def _add_to(commands: Any) -> None:
    from agentnb.handover import arguments

    parser = _add(commands, "to", _to, "hand the history to other tools: OpenTelemetry, Parquet datasets, MLflow")
    arguments(parser, _to)


def _add_cancel(commands: Any) -> None:
    parser = _add(commands, "cancel", _cancel, "end a live run, whichever process launched it, and wait for its end")
    parser.add_argument("run", metavar="RUN", help="the run's id, the start of it, or its name")
    _store(parser)
    parser.add_argument("--reason", default="cancelled from the command line", help="why; it is kept with the run")


def _add_gc(commands: Any) -> None:
    parser = _add(commands, "gc", _gc, "remove old runs from the history, and files that nothing refers to")
    parser.add_argument("--older-than", metavar="AGE", help="runs that ended longer ago (30d, 12h), or before a day (2026-01-31)")
    parser.add_argument("--max-size", metavar="SIZE", help="the oldest runs, until the history takes at most SIZE (10GiB)")
    parser.add_argument("--session", action="append", help="runs of this session (name or id); may be repeated")
    parser.add_argument("--workspaces", action="store_true", help="also runs whose workspace folder was left, with that folder")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, say what would go")
    _store(parser)
    _format(parser, ("table", "json"))
    parser = _add(commands, "backup", _backup, "copy the history, also while it is written, to a folder that AGENTNB_HOME may point at")
    parser.add_argument("dest", metavar="DEST", help="the folder to make")
    _store(parser)
    _format(parser, ("table", "json"))


def _add_machine(commands: Any) -> None:
    parser = _add(commands, "doctor", _doctor, "what this machine can do, and why not; whether the history is whole")
    parser.add_argument("--deep", action="store_true", help="check all of a large history, too, however long that takes")
    _store(parser)
    _format(parser, ("table", "json"))
    model = _add(commands, "model", _model, "the small language model that needs no key and no network")
    model.add_argument("action", choices=("install", "path", "verify"), help="get it with pip, say where it is, or check its checksum")


def _add_notebooks(commands: Any) -> None:
    parser = _add(commands, "demo", _demo, "run the quickstart notebook without a browser and print its tables")
    parser.add_argument("--notebook", type=Path, metavar="PATH", help="run this notebook instead")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the executed notebook")
    parser = _add(commands, "lab", _lab, "open the notebooks in JupyterLab")
    parser.add_argument("--folder", type=Path, default=Path("agentnb-notebooks"), help="where they are put (default: ./%(default)s)")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="options of JupyterLab, after --: agentnb lab -- --no-browser")


def _add_specs(commands: Any) -> None:
    from agentnb.spec_arguments import arguments

    arguments(lambda name, do, text: _add(commands, name, do, text))


# --- the commands ---------------------------------------------------------------------------------------------------


def _root(args: argparse.Namespace) -> Path:
    """The store's folder, after runs whose supervisor died have been marked as interrupted."""
    from agentnb.history.store import Store
    from agentnb.logs import recover

    root = Store.locate(args.store)
    recover(root)
    return root


def _frame(args: argparse.Namespace) -> int:
    from agentnb.history import reader
    from agentnb.history.frames import frames
    from agentnb.printing import write_frame

    if args.limit is not None and args.limit < 0:
        raise ConfigError(f"--limit {args.limit} must be zero or more")
    if args.format == "parquet" and args.output is None:
        raise ConfigError("--format parquet writes a file; name it with -o FILE")
    root = _root(args)
    names = ("session", "group", "status", "since", "until", "limit", "full")
    filters = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if getattr(args, "run", None):
        filters["run"] = reader.find_run(root, args.run)
    columns = [name.strip() for name in args.columns.split(",")] if args.columns else None
    if args.format == "jsonl":
        return _lines(root, args, filters | ({"columns": columns} if columns else {}))
    if columns is None and args.format == "table" and not getattr(args, "full", False):
        columns = COLUMNS[args.name]
    frame = getattr(frames, f"{args.name}_df")(root, columns=columns, **filters)
    write_frame(frame, args.format, sys.stdout, args.output)
    return GOOD


def _lines(root: Path, args: argparse.Namespace, filters: Any) -> int:
    from agentnb.history.exporting.jsonl import stream_jsonl, write_jsonl
    from agentnb.printing import TerminalText

    if args.output is not None:
        write_jsonl(root, args.output.absolute(), args.name, filters, overwrite=True)
        return GOOD
    out: Any = TerminalText(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer
    stream_jsonl(root, out.write, args.name, filters)
    return GOOD


def _show(args: argparse.Namespace) -> int:
    from agentnb.printing import json_text
    from agentnb.record import record, show_text

    found = record(_root(args), args.run)
    sys.stdout.write(json_text(found) if args.format == "json" else show_text(found))
    return GOOD


def _logs(args: argparse.Namespace) -> int:
    from agentnb.history.reader import find_run
    from agentnb.logs import show_logs
    from agentnb.printing import TerminalText

    root = _root(args)
    to = [("stdout", sys.stdout), ("stderr", sys.stderr)] if args.stream == "both" else [(args.stream, sys.stdout)]
    outs = [(name, TerminalText(file.buffer) if file.isatty() and not args.raw else file.buffer) for name, file in to]
    try:
        show_logs(root, find_run(root, args.run), outs, follow=args.follow)
    finally:
        for _, out in outs:
            if isinstance(out, TerminalText):
                out.end()
    return GOOD


def _export(args: argparse.Namespace) -> int:
    from agentnb.history.reader import find_run
    from agentnb.history.recordings.export import export_run
    from agentnb.printing import clean
    from agentnb.units import bytes_

    root = _root(args)
    bound = bytes_(args.max_artifact_bytes, what="--max-artifact-bytes")
    chosen = {"artifacts": not args.no_artifacts, "params": not args.no_params, "overwrite": args.overwrite}
    for left_out in export_run(root, find_run(root, args.run), args.file, max_artifact_bytes=bound, **chosen):
        _note(f"agentnb: left out: {clean(left_out)}")
    sys.stdout.write(f"{args.file}\n")
    return GOOD


def _to(args: argparse.Namespace) -> int:
    from agentnb.handover import filters_of
    from agentnb.printing import clean

    root = _root(args)
    sys.stdout.write(clean(args.hand(root, args, filters_of(root, args))))
    return GOOD


def _cancel(args: argparse.Namespace) -> int:
    from agentnb.notebook.attach import attach
    from agentnb.printing import clean

    run = attach(args.run, args.store)
    name = clean(run.name)
    if run.done:
        raise ConfigError(f"run {name!r} ({run.id}) has ended already: {run.status.value}")
    run.cancel(args.reason)
    result = run.wait(on_interrupt="detach")
    sys.stdout.write(f"{run.id}  {name}  {result.status.value}\n")
    return GOOD


def _gc(args: argparse.Namespace) -> int:
    from agentnb.notebook.upkeep import gc
    from agentnb.printing import clean, json_text

    chosen = {"older_than": args.older_than, "max_size": args.max_size, "session": args.session}
    done = gc(**chosen, workspaces=args.workspaces, dry_run=args.dry_run, store=args.store)
    sys.stdout.write(json_text(done.to_dict()) if args.format == "json" else f"{clean(str(done))}\n")
    return GOOD


def _backup(args: argparse.Namespace) -> int:
    from agentnb.notebook.upkeep import backup
    from agentnb.printing import clean, json_text

    done = backup(args.dest, store=args.store)
    sys.stdout.write(json_text(done.to_dict()) if args.format == "json" else f"{clean(str(done))}\n")
    return FAILED if done.missing else GOOD


def _doctor(args: argparse.Namespace) -> int:
    from agentnb.doctor import examine, report
    from agentnb.history.store import Store
    from agentnb.printing import json_text

    findings = examine(Store.locate(args.store), deep=args.deep)
    sys.stdout.write(json_text([finding._asdict() for finding in findings]) if args.format == "json" else report(findings))
    return FAILED if any(finding.state == "broken" for finding in findings) else GOOD


def _model(args: argparse.Namespace) -> int:
    from agentnb.agents import model_file

    if args.action == "install":
        path = model_file.install(_note)
    else:
        path = model_file.verify() if args.action == "verify" else model_file.model_file()
    sys.stdout.write(f"{path}\n")
    return GOOD


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _demo(args: argparse.Namespace) -> int:
    from agentnb.demo import demo

    return demo(args.notebook, args.output, sys.stdout, sys.stderr)


def _lab(args: argparse.Namespace) -> int:
    from agentnb.demo import lab

    lab(args.folder, *args.options)
    return GOOD


if __name__ == "__main__":
    sys.exit(main())
