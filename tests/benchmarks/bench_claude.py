"""What reading claude's stream costs, and what a run through agentnb adds to the bare command line.

Prints one line of JSON: `parse_ratio` (reading, parsing and reporting a recorded stream, over json.loads of its lines; should be at most
1.5), `parse_us_per_line`, and, where the program is installed, `run_ratio` (wall time of a run through a session over that of the program
alone, against the same server on loopback; the median of pairs; should be at most 1.1), `bare_s`, `run_s`.
Usage: python tests/benchmarks/bench_claude.py [PAIRS]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import agentnb as nb
from agentnb.agents import claude_cli
from agentnb.agents.claude_stream import ClaudeStream
from agentnb.engine.event_lines import EventLines

STREAM = Path(__file__).parents[1] / "data" / "claude" / "2.1.197_partial.jsonl"
ROUNDS, REPEATS = 15, 40
PIECE = 64 * 1024


def _bare(lines: list[bytes]) -> float:
    start = time.perf_counter()
    for line in lines:
        json.loads(line)
    return time.perf_counter() - start


def _ours(data: bytes) -> float:
    start = time.perf_counter()
    lines, parser = EventLines(), ClaudeStream()
    for at in range(0, len(data), PIECE):
        for event in lines.feed(data[at : at + PIECE]):
            if not isinstance(event, str):
                for _ in parser.feed(event):
                    pass
    return time.perf_counter() - start


def parsing() -> dict[str, float]:
    """The cost of a recorded stream with pieces of text, many times over."""
    data = STREAM.read_bytes() * REPEATS
    lines = data.splitlines()
    pairs = [(_bare(lines), _ours(data)) for _ in range(ROUNDS)]
    ours = min(b for _, b in pairs)
    return {"parse_ratio": round(ours / min(a for a, _ in pairs), 3), "parse_us_per_line": round(ours / len(lines) * 1e6, 2)}


def running(pairs: int) -> dict[str, float]:
    """The wall time of a run over that of the bare program, in turns."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.agents.messages_server import Answer, serving, text

    with serving(lambda *_: Answer(text("Hello there. " * 20))) as server, tempfile.TemporaryDirectory() as folder:
        off = dict.fromkeys(
            ("DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"), "1"
        )
        env: dict[str, Any] = off | {
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CONFIG_DIR": f"{folder}/config",
        }
        argv = [claude_cli.find(), "-p", "--output-format", "stream-json", "--include-partial-messages", "--verbose"]
        bare, run = list[float](), list[float]()
        with nb.Session("bench", store=f"{folder}/store", env=env, working_dir=folder) as session:
            session.claude("warm up").wait()
            for _ in range(pairs):
                start = time.perf_counter()
                subprocess.run(argv, input=b"hello", env=os.environ | env, cwd=folder, capture_output=True, check=True)
                middle = time.perf_counter()
                session.claude("hello").wait().raise_for_status()
                bare.append(middle - start)
                run.append(time.perf_counter() - middle)
        ratio = statistics.median(b / a for a, b in zip(bare, run, strict=True))
        return {"run_ratio": round(ratio, 3), "bare_s": round(statistics.median(bare), 3), "run_s": round(statistics.median(run), 3)}


def main() -> None:
    """Measure and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    found = parsing()
    if nb.supports("claude"):
        found |= running(pairs)
    print(json.dumps({"benchmark": "claude", "pairs": pairs, **found}))


if __name__ == "__main__":
    main()
