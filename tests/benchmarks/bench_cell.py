"""A cell's latency beside twenty processes that print 5,000 lines a second each, with the live view of their session shown.

A real kernel, and a client that does what a page does: it records what comes, asks once for the rows in sight, and times cells that do
next to nothing. These cases take turns in one run: the kernel idle; the same twenty processes outside of agentnb, their output to
/dev/null ("outside": what the machine itself loses to them); under one session with its view shown ("view"); and at twice the rate
("double"). `ratio` is the latency of "view" against the idle kernel's, at the median and the 95th percentile of all rounds,
`outside_ratio` that of "outside", and `ratio_outside` that of "view" against "outside". `messages_per_s` and `kb_per_s` are what the
view sends; `bytes_when_doubled` is how much more that is when twice as much is printed. Two more cases show the table alone, of ten
rows ("ten") and of twenty ("rows"): `bytes_when_shown_doubled` is how much more the second sends. Prints one JSON line.
Usage: python tests/benchmarks/bench_cell.py [ROUNDS [SECONDS]]
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from jupyter_core.utils import ensure_event_loop  # noqa: E402

from tests.notebook.test_kernel import Kernel  # noqa: E402

PROCESSES = 20
RATE = 5000
LIMITS = {"messages_per_s": 10.0, "ratio_p50": 1.2, "ratio_p95": 1.2, "bytes_when_doubled": 1.3, "bytes_when_shown_doubled": 2.1}
#: Prints lines of 40 bytes at a rate, in bursts of a twentieth of a second, and counts them.
TALKER = """
import os, sys, time
rate, end, said = int(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
start = time.monotonic()
while (now := time.monotonic()) < end:
    due = int((now - start) * rate)
    if due > said:
        os.write(1, b"".join(b"line %10d of a process that talks\\n" % n for n in range(said, due)))
        said = due
    time.sleep(0.05)
"""
SETUP = f"import agentnb as nb, sys; session = nb.Session('bench', max_parallel={PROCESSES})"
LAUNCH = """
runs = [session.command([sys.executable, '-I', '-S', {path!r}, '{rate}', '3600'], name=f'talker-{{n}}') for n in range({count})]
session
"""
STOP = "for run in runs: run.cancel()\n_ = session.wait(); session.end(); session = nb.Session('bench', max_parallel=20)"


class Page(Kernel):
    """A kernel, and a client that records what its widgets are sent."""

    def latency(self) -> float:
        """Seconds from sending a cell that does next to nothing to its reply."""
        start = time.perf_counter()
        message = self.client.execute("1 + 1", store_history=False)
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != message:
            pass
        return time.perf_counter() - start

    def drain(self) -> tuple[int, int]:
        """How many widget messages have come since the last time, and their bytes."""
        count, size = 0, 0
        while self.client.iopub_channel.msg_ready():
            got = self.client.get_iopub_msg(timeout=1)
            if got["msg_type"] == "comm_open":
                self.comms[got["content"]["comm_id"]] = got["content"]["data"]
            if got["msg_type"] in {"comm_msg", "update_display_data"}:
                count, size = count + 1, size + len(json.dumps(got["content"]))
        return count, size

    def see(self, *, opened: bool) -> None:
        """Say what a page says whose rows are all in sight, with the first one opened or none."""
        [comm] = [comm for comm, data in self.comms.items() if "_esm" in data["state"]]
        names = json.loads(self.run("import json; print(json.dumps([run.id for run in runs]))"))
        for content in ({"type": "see", "runs": names}, {"type": "open", "run": names[0] if opened else None}):
            message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": {"method": "custom", "content": content}})
            self.client.shell_channel.send(message)


@dataclass
class Sample:
    """A stretch of one case: latencies in milliseconds, and what the view sent."""

    latencies: list[float]
    messages_per_s: float
    kb_per_s: float


def sampled(page: Page, seconds: float) -> Sample:
    """Time cells, one after the other with short breaks."""
    page.drain()
    found, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        found.append(1000 * page.latency())
        time.sleep(random.uniform(0.01, 0.04))  # in step with nothing
    count, size = page.drain()
    took = time.perf_counter() - start
    return Sample(found, count / took, size / took / 1000)


def outside(page: Page, talker: Path, seconds: float) -> Sample:
    """With the processes, but without agentnb."""
    command = [sys.executable, "-I", "-S", str(talker), str(RATE), "3600"]
    children = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(PROCESSES)]
    time.sleep(1)
    try:
        return sampled(page, seconds)
    finally:
        for child in children:
            child.kill()
            child.wait()


def viewed(page: Page, talker: Path, seconds: float, *, rate: int = RATE, count: int = PROCESSES, opened: bool = True) -> Sample:
    """With the processes under a session, and its view."""
    page.comms.clear()
    page.run(LAUNCH.format(path=str(talker), rate=rate, count=count))
    page.see(opened=opened)
    time.sleep(1.5)
    try:
        return sampled(page, seconds)
    finally:
        page.run(STOP)
        time.sleep(0.5)


def figures_of(found: dict[str, list[Sample]]) -> dict[str, Any]:
    """What the rounds add up to."""
    figures: dict[str, Any] = {}
    cuts = {}
    for case, samples in found.items():
        latencies = [each for sample in samples for each in sample.latencies]
        cuts[case] = {f"p{5 * n}": cut for n, cut in enumerate(statistics.quantiles(latencies, n=20), start=1)}
        figures |= {f"{case}_{name}_ms": round(cuts[case][name], 2) for name in ("p50", "p95")}
    for name in ("p50", "p95"):
        figures[f"ratio_{name}"] = round(cuts["view"][name] / cuts["idle"][name], 3)
        figures[f"outside_ratio_{name}"] = round(cuts["outside"][name] / cuts["idle"][name], 3)
        figures[f"ratio_outside_{name}"] = round(cuts["view"][name] / cuts["outside"][name], 3)
    figures["messages_per_s"] = round(max(one.messages_per_s for case in ("view", "double") for one in found[case]), 2)
    sent = {case: statistics.median(one.kb_per_s for one in found[case]) for case in ("view", "double", "rows", "ten")}
    figures |= {f"{case}_kb_per_s": round(size, 1) for case, size in sent.items()}
    figures["bytes_when_doubled"] = round(sent["double"] / sent["view"], 3)
    return figures | {"bytes_when_shown_doubled": round(sent["rows"] / sent["ten"], 3)}


def main() -> None:
    """Measure and print."""
    rounds, seconds = ([int(word) for word in sys.argv[1:]] + [5, 6][len(sys.argv) - 1 :])[:2]
    loop = ensure_event_loop()
    found: dict[str, list[Sample]] = {case: [] for case in ("idle", "outside", "view", "double", "rows", "ten")}
    with tempfile.TemporaryDirectory() as folder:
        talker = Path(folder) / "talker.py"
        talker.write_text(TALKER, encoding="utf-8")
        environment = dict(os.environ) | {"AGENTNB_HOME": f"{folder}/store", "AGENTNB_DISPLAY": "live", "PYTHONPATH": str(ROOT)}
        page = Page(Path(folder), environment)
        try:
            page.run(SETUP)
            for _ in range(rounds):
                found["idle"].append(sampled(page, seconds))
                found["outside"].append(outside(page, talker, seconds))
                found["view"].append(viewed(page, talker, seconds))
                found["double"].append(viewed(page, talker, seconds, rate=2 * RATE))
                found["rows"].append(viewed(page, talker, seconds, opened=False))
                found["ten"].append(viewed(page, talker, seconds, count=PROCESSES // 2, opened=False))
        finally:
            page.close()
            loop.close()
    figures = figures_of(found)
    met = {name: figures[name] <= limit for name, limit in LIMITS.items()}
    print(json.dumps({"bench": "cell", "rounds": rounds, "ok": all(met.values()), **figures, "limits": LIMITS, "met": met}))


if __name__ == "__main__":
    main()
