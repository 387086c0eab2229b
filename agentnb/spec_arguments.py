"""What ``agentnb validate``, ``schema``, ``inspect`` and ``run`` take; what they do, spec_commands.py, is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]

_RUNTIMES = ("local", "docker", "http", "cloud")
_FORMATS = ("table", "json")


def arguments(add: Add) -> None:
    """Add the commands; `add` makes the parser of one: (name, what it does, help)."""
    parser = add("validate", _validate, "tell all that is wrong with agent and swarm files")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a YAML file of kind Agent or Swarm")
    _format(parser)
    parser = add("schema", _schema, "the JSON Schema of agent or swarm files, for editors")
    parser.add_argument("kind", choices=("agent", "swarm"))
    parser = add("inspect", _inspect, "what an agent or swarm file comes to: workers, flow, data flow, warnings")
    parser.add_argument("file", metavar="FILE")
    _format(parser)
    _run_arguments(add("run", _run, "run an agent or swarm file and wait for its end; Ctrl-C cancels it"))


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=_FORMATS, default="table", help="how to write it (default: table)")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--input", action="append", default=[], metavar="K=V",
        help="a value of the input, as the file's schema has it; may be repeated; or all of it as a JSON object, or @FILE with one",
    )  # fmt: skip
    parser.add_argument("--name", dest="run_name", metavar="NAME", help="the run's name (default: the id in the file)")
    parser.add_argument("--timeout", metavar="TIME", help="seconds, or 90s, 5m, 1h30m; wins over what the file says")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="a variable of its environment; may be repeated")
    parser.add_argument("--tag", action="append", default=[], metavar="K=V", help="a tag of the run; may be repeated")
    parser.add_argument("--reuse", action="store_true", help="give the completed run of the same work, if the history has one")
    parser.add_argument("--runtime", choices=_RUNTIMES, help="where it runs; in this version: local")
    parser.add_argument("--session", default="command line", metavar="NAME", help="the session that it is of (default: %(default)s)")
    parser.add_argument("--store", metavar="PATH", help="the folder of the history (default: AGENTNB_HOME, else ./.agentnb)")
    _format(parser)


def _validate(args: argparse.Namespace) -> int:
    from agentnb.spec_commands import validate

    return validate(args)


def _schema(args: argparse.Namespace) -> int:
    from agentnb.spec_commands import schema

    return schema(args)


def _inspect(args: argparse.Namespace) -> int:
    from agentnb.spec_commands import inspect

    return inspect(args)


def _run(args: argparse.Namespace) -> int:
    from agentnb.spec_commands import run

    return run(args)
