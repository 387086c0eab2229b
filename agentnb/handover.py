"""``agentnb to otlp|parquet|mlflow``: the history for other tools, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Hand = Callable[[Path, argparse.Namespace, dict[str, Any]], str]

_FILTERS = ("session", "group", "status", "since", "until", "limit")


def arguments(parser: argparse.ArgumentParser, do: Callable[[argparse.Namespace], int]) -> None:
    """Give `parser` a command for each tool; `do` is called with what was parsed."""
    tools = parser.add_subparsers(metavar="TOOL", required=True, parser_class=type(parser))
    otlp = tools.add_parser("otlp", help="ended runs and their steps as OpenTelemetry spans: a file of OTLP/JSON lines")
    otlp.add_argument("file", type=Path, metavar="FILE", help="the file to write, such as spans.jsonl")
    otlp.add_argument("--content", action="store_true", help="also what went into runs, turns and tools, and what came out")
    otlp.add_argument("--service", default="agentnb", metavar="NAME", help="service.name (default: %(default)s)")
    otlp.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    otlp.set_defaults(hand=_otlp)
    parquet = tools.add_parser("parquet", help="a folder of Parquet files, which duckdb and polars read; again: only what changed")
    parquet.add_argument("folder", type=Path, metavar="FOLDER", help="the folder, new or of an earlier export")
    parquet.set_defaults(hand=_parquet)
    mlflow = tools.add_parser("mlflow", help="runs as runs of MLflow; again: brought up to date, not doubled")
    mlflow.add_argument("--experiment", metavar="NAME", help="the experiment (default: for each run the name of its session)")
    mlflow.add_argument("--tracking-uri", metavar="URI", help="such as sqlite:///mlflow.db (default: MLFLOW_TRACKING_URI, or MLflow's own)")
    mlflow.add_argument("--artifacts", action="store_true", help="also the bytes of artifacts, and the output")
    mlflow.set_defaults(hand=_mlflow)
    for tool in (otlp, parquet, mlflow):
        _add_filters(tool)
        tool.set_defaults(do=do)


def filters_of(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The filters of runs that were given. Raises ConfigError for a run that is not there."""
    from agentnb.history.reader import find_run

    found = {name: value for name in _FILTERS if (value := getattr(args, name)) is not None}
    return found | ({"run": [find_run(root, run) for run in args.run]} if args.run else {})


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="PATH", help="the folder of the history (default: AGENTNB_HOME, else ./.agentnb)")
    parser.add_argument("--session", help="only runs of this session (name or id)")
    parser.add_argument("--group", help="only runs of this group (id)")
    parser.add_argument("--run", action="append", metavar="RUN", help="only this run (id, start of it, or name); may be repeated")
    parser.add_argument("--status", action="append", help="only runs with this status; may be repeated")
    parser.add_argument("--since", metavar="WHEN", help="only runs since then: 2026-01-31, 2026-01-31T09:00Z, or 7d, 2h ago")
    parser.add_argument("--until", metavar="WHEN", help="only runs before then")
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest N runs")


def _otlp(root: Path, args: argparse.Namespace, filters: Any) -> str:
    from agentnb.history.exporting.otlp import write_otlp

    target = args.file.absolute()
    number = write_otlp(root, target, filters, content=args.content, service=args.service, overwrite=args.overwrite)
    return f"{args.file}: {number} run{'' if number == 1 else 's'}\n"


def _parquet(root: Path, args: argparse.Namespace, filters: Any) -> str:
    from agentnb.history.exporting.dataset import write_parquet

    counts = write_parquet(root, args.folder.absolute(), filters)
    return f"{args.folder}: {', '.join(f'{number} {table}' for table, number in counts.items())}\n"


def _mlflow(root: Path, args: argparse.Namespace, filters: Any) -> str:
    from agentnb.history.exporting.tracking import write_mlflow
    from agentnb.printing import table

    found = write_mlflow(root, filters, experiment=args.experiment, tracking_uri=args.tracking_uri, artifacts=args.artifacts)
    return table(found.items(), ["run", "mlflow_run"])
