"""Live views in JupyterLab in the system's Chromium: what they cost the browser, and what goes over the wire.

Cases: a group of 200 live runs that print two lines a second each: the share of one core that the page's scripts take
(`script_percent`; all of the page's tasks: `task_percent`), against the same page before anything is shown (`idle_percent`). A group of
2,000 likewise. One run that prints 8,000 lines in about eight seconds: bytes over the websocket (`wire_mb`). Prints one JSON line.
Usage: python tests/benchmarks/bench_view.py [SECONDS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import CHROMIUM_FLAGS, FAKE_SOURCE, Book, chromium, running_lab, wait_until  # noqa: E402

LIMITS = {"script_percent": 10.0, "wire_mb": 2.0}
SETUP = FAKE_SOURCE + "\nfrom agentnb.notebook.display import show\nloop = ThreadLoop()\n"
GROUP = """
source = a_group(*[a_run(i, name=f'grid [{{i}}]', params={{'seed': i}}) for i in range({count})])
show(source, loop)
def talk():
    number = 0
    while not all(run.done for run in source.snapshot().runs):
        number += 1
        for i in range(200): source.emit(f'run-{{i}}', f'step {{number}}: loss {{1 / number:.4f}}\\n')
        time.sleep(0.5)
threading.Thread(target=talk, daemon=True).start()
"""
STOP = "for i in range({count}): source.update(f'run-{{i}}', status='cancelled')"
LINES = """
one = FakeSource(a_run())
show(one, loop)
def flood():
    for n in range(8000):
        one.emit('run-0', f'line {n}: the quick brown fox jumps over the lazy dog, again and again\\n')
        time.sleep(0.001)
    one.emit('run-0', 'the very end\\n')
threading.Thread(target=flood, daemon=True).start()
"""


def spent(page: Page, seconds: float) -> dict[str, float]:
    """The share of one core that scripts, and all tasks, of the page take, in percent."""
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")

    def read() -> dict[str, float]:
        return {metric["name"]: metric["value"] for metric in cdp.send("Performance.getMetrics")["metrics"]}

    before, start = read(), time.monotonic()
    page.wait_for_timeout(1000 * seconds)
    after, took = read(), time.monotonic() - start
    cdp.detach()
    return {
        name: round(100 * (after[f"{name.title()}Duration"] - before[f"{name.title()}Duration"]) / took, 2) for name in ("script", "task")
    }


def received(page: Page) -> list[int]:
    """A list of one number that counts what comes over the page's websockets."""
    total = [0]

    def count(frame: bytes | str) -> None:
        total[0] += len(frame if isinstance(frame, bytes) else frame.encode())

    page.on("websocket", lambda socket: socket.on("framereceived", count))
    return total


def measure(book: Book, total: list[int], seconds: float) -> dict[str, Any]:
    """All cases."""
    figures: dict[str, Any] = {"idle_percent": spent(book.page, 3)["script"]}
    for count in (200, 2000):
        book.stage(SETUP, GROUP.format(count=count), STOP.format(count=count))
        book.run(0)
        book.run(1)
        book.output(1).locator(".anb-row").first.wait_for(timeout=60_000)
        book.page.wait_for_timeout(2000)
        before = total[0]
        used = spent(book.page, seconds)
        name = "" if count == 200 else "_2000"
        figures |= {f"script_percent{name}": used["script"], f"task_percent{name}": used["task"]}
        figures[f"wire_kb_per_s{name}"] = round((total[0] - before) / seconds / 1000, 1)
        figures[f"rows_in_page{name}"] = book.output(1).locator(".anb-row").count()
        book.run(2)
        book.idle()
    book.stage(SETUP, LINES)
    book.run(0)
    book.idle()
    before = total[0]
    book.run(1)
    log = book.output(1).get_by_role("log")
    log.wait_for(timeout=30_000)
    wait_until(lambda: "the very end" in log.inner_text(), "the last line", 60)
    figures["wire_mb"] = round((total[0] - before) / 1e6, 3)
    return figures


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        total = received(page)
        book = Book(page, lab, lab.write("1"))
        page.goto(f"{lab.url}/lab/workspaces/w1/tree/{book.name}?token={lab.token}")
        book.ready()
        figures = measure(book, total, seconds)
        browser.close()
        lab.end_kernel(book.name)
    met = {name: figures[name] < limit for name, limit in LIMITS.items()}
    sys.stdout.write(json.dumps({"benchmark": "view", **figures, "limits": LIMITS, "met": met}) + "\n")


if __name__ == "__main__":
    main()
