import os, pytest
from tests.browser.conftest import *
from tests.browser.conftest import FAKE_SOURCE
from playwright.sync_api import expect
SETUP = FAKE_SOURCE + r"""
from agentnb.notebook.display import show
loop = ThreadLoop()
import random
random.seed(3)
full = dict(command="pytest -q --maxfail=1 tests/engine && echo done", name="engine-tests", started_at=time.time()-73, cpu_s=12.4, peak_memory_bytes=182*2**20, input_tokens=12345, output_tokens=987, tokens_per_s=58.3, cost_usd=0.0423, stdout_bytes=52311, params={"seed": 7, "model": "sonnet", "word": "a b c"}, attempt=2)
LOG = ["\x1b[1mcollecting\x1b[0m ... 42 items\n"] + [f"tests/engine/test_{n}.py::case \x1b[32mPASSED\x1b[0m [{i*7}%]\n" for i, n in enumerate(["spawn","capture","limits","retry","kill","tree","usage","cgroup","events"])] + ["\x1b[33mwarning\x1b[0m: slow test 3.2 s\n"]
ERR = ["Traceback (most recent call last):\n", "  File \"tests/engine/test_kill.py\", line 42, in test\n", "\x1b[31mAssertionError: a process is left\x1b[0m\n"]
def fill(source, rid):
    for t in LOG: source.emit(rid, t)
    for t in ERR: source.emit(rid, t, "stderr")
    source.emit(rid, " 10%|#         |\r 70%|#######   | 70/100 [00:12<00:05]")
def many(n, kind="group", status=""):
    runs=[]
    for i in range(n):
        st = random.choice(["completed"]*6+["failed","timeout","cancelled","running","running","pending","pending"]) if n > 1 else "running"
        kw = dict(status=st, name=f"seed={i} sonnet", kind="shell", params={"seconds": round(random.random(),2), "word": random.choice(["a","b c","delta"])}, elapsed_s=random.random()*90, cpu_s=random.random()*9, input_tokens=random.randint(10,9999), output_tokens=12, cost_usd=0.003)
        if st=="failed": kw["error"]="exit code 2: make: *** [Makefile:12: docs] Error 2"
        if st=="timeout": kw["error"]="timed out after 60 s"
        if st=="running": kw["started_at"]=time.time()-random.random()*300
        if st=="pending": kw["started_at"]=None; kw["elapsed_s"]=None
        runs.append(a_run(i, **kw))
    s=a_group(*runs, kind=kind, status=status)
    for r in runs:
        if r.status!="pending": s.emit(r.id, f"step 1\nepoch {random.randint(1,99)}: loss={random.random():.4f}\n")
    return s
"""
CELLS = {
 "run_live": "source=FakeSource(a_run(**full)); fill(source,'run-0'); show(source, loop)",
 "run_empty": "source=FakeSource(a_run(status='pending', started_at=None, elapsed_s=None, name='waiting')); show(source, loop)",
 "run_failed_static": "source=FakeSource(a_run(**{**full,'status':'failed','error':'exit code 1: AssertionError: a process is left','exit_code':1,'elapsed_s':84.2})); fill(source,'run-0'); show(source, loop)",
 "run_cancelling": "source=FakeSource(a_run(**full)); fill(source,'run-0'); source.request_cancel(None); show(source, loop)",
 "run_cancelled_static": "source=FakeSource(a_run(**{**full,'status':'cancelled','error':'cancelled: Cancel was clicked','elapsed_s':4.2})); fill(source,'run-0'); show(source, loop)",
 "run_done_static": "source=FakeSource(a_run(**{**full,'status':'completed','exit_code':0,'elapsed_s':84.2})); fill(source,'run-0'); show(source, loop)",
 "group_1": "s=many(1); show(s, loop)",
 "group_12": "s=many(12); fill(s,'run-3'); show(s, loop)",
 "group_200": "s=many(200); show(s, loop)",
 "group_60_static": "random.seed(9); s=many(60); [s.update(r.id, status='completed') for r in list(s.snapshot().runs) if not r.done]; show(s, loop)",
 "session": "s=many(7,'session','active'); show(s, loop)",
 "session_empty": "s=a_group(kind='session',status='active'); show(s, loop)",
 "long_rtl": r"""source=FakeSource(a_run(name='שלום עולם — ' + 'averyveryverylongnamewithoutspaces'*5, command='echo '+'x'*600, error='مرحبا: خطأ في الملف ' + 'long '*60, params={'مفتاح':'قيمة', 'path': '/a/'*60}, warnings=['limits are measured by sampling on this machine']))
source.emit('run-0','שלום עולם, זה פלט\nمرحبا بالعالم\n<script>alert(1)</script> \u202eoverride\n'+'y'*3000+'\n'); show(source, loop)""",
}
@pytest.mark.parametrize("theme,width", [("light",1100),("dark",1100),("light",640)])
def test_shots(open_book, theme, width):
    only = os.environ.get("ONLY","").split(",") if os.environ.get("ONLY") else None
    if os.environ.get("THEME") and f"{theme}{width}" not in os.environ["THEME"].split(","): return
    names = [n for n in CELLS if not only or n in only]
    book = open_book(SETUP, *[CELLS[n] for n in names], theme=theme, width=width, height=1000)
    if width < 1000: book.page.keyboard.press("Control+b")
    book.run(0); book.idle()
    for i, n in enumerate(names, 1):
        book.cell(i).scroll_into_view_if_needed()
        book.run(i); book.idle()
        view = book.output(i).locator(".anb, .anb-s").first
        expect(view).to_be_visible()
        if n == "group_12":
            view.locator(".anb-toggle").nth(3).click()
            expect(view.locator(".anb-detail")).to_be_visible()
        book.page.wait_for_timeout(600)
        view.scroll_into_view_if_needed()
        book.output(i).screenshot(path=f"/tmp/w/shots/{n}_{theme}{'' if width>1000 else '_narrow'}.png")
    print(book.errors)
