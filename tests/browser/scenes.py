# ruff: noqa: E501 - the cells of notebooks
"""Scenes for the browser: the text of cells that set up scripted sources, one of each kind of thing that a view shows."""

from __future__ import annotations

from tests.browser.conftest import FAKE_SOURCE

SETUP = (
    FAKE_SOURCE
    + """
from agentnb.notebook.budget import Budget
from agentnb.notebook.display import show
from agentnb.notebook.snapshot import StepSnapshot
globals().get("loop") and loop.stop()
loop = ThreadLoop()
"""
)

ONE = r"""
one = FakeSource(a_run(name="train", command="python train.py --epochs 30", params={"epochs": 30, "lr": 0.01}, cpu_s=3.2))
for i in range(40):
    one.emit("run-0", f"\x1b[2m12:00:{i:02d}\x1b[0m \x1b[32mINFO\x1b[0m  epoch {i} loss=\x1b[1m{1 / (i + 1):.3f}\x1b[0m\n")
one.emit("run-0", "\x1b[33mwarning:\x1b[0m the learning rate is high\n", "stderr")
one.emit("run-0", "\rprogress 10 %\rprogress \x1b[36m57 %\x1b[0m")
show(one, loop)
"""

FAILING = r"""
broken = FakeSource(a_run(name="tests", command="pytest -q", attempt=2, warnings=["the output was cut at 10 MiB"]))
broken.emit("run-0", "........\x1b[31mF\x1b[0m..\n")
broken.emit("run-0", "Traceback (most recent call last):\n  File \"test_sum.py\", line 3\n\x1b[31mAssertionError\x1b[0m: 3 != 4\n", "stderr")
broken.emit("run-0", "1 failed, 10 passed\n")
show(broken, loop)
"""
BROKEN = """broken.update("run-0", status="failed", error="exit code 1", exit_code=1, elapsed_s=2.31, cpu_s=1.9, peak_memory_bytes=48 << 20,
              stdout_bytes=130, stderr_bytes=80)"""

#: `turns(n)`: the steps of an agent after n of its calls.
STEPS = r"""
CALLS = [("Bash", "ls -la src tests"), ("Read", "src/sum.py"), ("Grep", "def add -- in src, with context, and a pattern that is long " * 2),
         ("Edit", "src/sum.py"), ("Bash", "pytest -q"), ("Write", "README.md"), ("Bash", "pytest -q && git diff --stat")]
def turns(count):
    now, steps = time.time() - 60, [StepSnapshot("a", "attempt", "attempt 1", started_at=time.time() - 60)]
    for n in range(count):
        name, given = CALLS[n % len(CALLS)]
        last = n == count - 1
        bad = n == 4
        steps.append(StepSnapshot(f"t{n}", "turn", f"turn {n + 1}", "running" if last else "completed", "a", now + n, None if last else 2.4,
                                  "", "I look at the files first, then I change what is wrong.", "", None, 1200 + 310 * n, 85))
        steps.append(StepSnapshot(f"c{n}", "tool", name, "running" if last else "failed" if bad else "completed", f"t{n}", now + n + 0.5,
                                  None if last else 0.31, given, "" if last else "out\nof the tool\n", "exit code 1: 2 failed, 9 passed" if bad else ""))
    return steps
"""
AGENT = r"""
agent = FakeSource(a_run(name="fix the tests", kind="claude", command="Fix the failing tests of this repository", input_tokens=9120, output_tokens=640,
                         cost_usd=0.0421, turns=6, model="claude-sonnet-4-5", steps=turns(6),
                         budget=Budget("run", {"usd": 0.05}, {"usd": 0.0421, "tokens": 9760, "time": 61})))
agent.emit("run-0", "I look at the files first.\n\u2192 Bash: ls -la src tests\nThe sum is wrong in src/sum.py.\n\u2192 Edit: src/sum.py\n")
show(agent, loop)
"""
AGENT_DONE = """
steps = [replace(step, status="completed", elapsed_s=step.elapsed_s or 1.0) if step.status == "running" else step for step in turns(7)]
agent.update("run-0", steps=steps, status="completed", elapsed_s=64.2, exit_code=0)
"""
ENDS = BROKEN + AGENT_DONE

GROUP = r"""
STATES = ["completed", "completed", "completed", "failed", "running", "running", "pending"]
def many(count, name="sweep"):
    runs = []
    for i in range(count):
        status = STATES[i % 7] if i < 0.8 * count else "pending"
        done = status in ("completed", "failed")
        runs.append(a_run(i, name=f"{name} {'over the whole grid of parameters ' * (i % 3)}[{i}]", params={"seed": i, "lr": 0.1 / (1 + i % 5)},
                          status=status, started_at=None if status == "pending" else time.time() - 20 - i % 9,
                          elapsed_s=12 + i % 7 if done else None, error="exit code 1" if status == "failed" else None,
                          input_tokens=900 if done else None, cost_usd=0.003 if done else None))
    return runs
"""
GROUP_200 = (
    GROUP
    + """
group = a_group(*many(200))
group.group = replace(group.group, budget=Budget("group", {"usd": 5.0}, {"usd": 0.34, "tokens": 0, "time": 0}))
for i in range(200):
    if group._runs[f"run-{i}"].status == "running":
        group.update(f"run-{i}", memories=[(3 + (n * (i + 3)) % 11) << 20 for n in range(20)], cpu_percents=[50.0 + n for n in range(20)])
    if group._runs[f"run-{i}"].status != "pending": group.emit(f"run-{i}", f"step {i}: loss {1/(i+1):.4f}\\n")
show(group, loop)
"""
)
GROUP_2000 = GROUP + "\nlarge = a_group(*many(2000, 'large'))\nshow(large, loop)"

SESSION = """
session = a_group(a_run(1, name="notes", status="completed", elapsed_s=1.2, cost_usd=0.3), a_run(2, name="draft", cost_usd=4.1),
                  a_run(3, name="review", status="pending", started_at=None), kind="session", status="active")
session.group = replace(session.group, name="thrifty", budget=Budget("session", {"usd": 5.0, "tokens": 200000}, {"usd": 4.4, "tokens": 32000, "time": 0}))
session.emit("run-2", "writing the second paragraph\\n")
show(session, loop)
"""
EMPTY = 'empty = a_group(kind="session", status="active")\nshow(empty, loop)'
TEXTS = r"""
LONG = "a very long name that goes on and on " * 6
ARABIC, HEBREW = "\u062a\u062d\u0644\u064a\u0644 \u0627\u0644\u0628\u064a\u0627\u0646\u0627\u062a", "\u05e0\u05d9\u05ea\u05d5\u05d7 \u05e0\u05ea\u05d5\u05e0\u05d9\u05dd"
texts = a_group(a_run(1, name=LONG + "[1]", params={"prompt": "write a poem about the sea " * 20, ARABIC: HEBREW}), a_run(2, name=ARABIC + " [2]"),
                a_run(3, name="x" * 300, status="failed", error="e" * 400, elapsed_s=1.0), kind="session", status="active")
texts.emit("run-1", "word " * 200 + "\n")
texts.emit("run-2", HEBREW + " 12 abc\n\u5206\u6790\u6570\u636e \U0001f600\n")
show(texts, loop)
rtl = FakeSource(a_run(name=ARABIC, command="echo " + HEBREW * 20, params={HEBREW: ARABIC}))
rtl.emit("run-0", ARABIC + ": 42 %\nplain english\n" + "w" * 400 + "\n")
show(rtl, loop)
"""
