"""What agents report of themselves becomes steps, artifacts, usage and a result; nonsense becomes a warning."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.engine.agent_log import AgentLog
from agentnb.engine.outcome import Outcome
from tests.engine.driver import Engine, base64_of, lives, wait_until


def test_steps_output_usage_result_and_artifacts(engine: Engine) -> None:
    run = engine.agent(
        "say({'t':'log','text':'thinking'})\nsay({'t':'output','stream':'stderr','text':'hm'})\n"
        "say({'t':'step','id':'1','name':'turn','kind':'turn','status':'running','input':{'q':1}})\n"
        "say({'t':'step','id':'2','parent':'1','name':'grep','kind':'tool','status':'running'})\n"
        "say({'t':'step','id':'2','status':'failed','error':'no match'})\n"
        "say({'t':'step','id':'1','status':'completed','output':'a','tokens':{'input':3,'output':4},'cost_usd':0.5})\n"
        "say({'t':'step','id':'3','name':'left open','status':'running'})\n"
        "say({'t':'usage','input_tokens':10,'output_tokens':20,'cost_usd':0.25})\n"
        "open('file.txt','w').write('from a file')\nsay({'t':'artifact','name':'f','path':'file.txt'})\n"
        "say({'t':'artifact','name':'b.json','data':'e30='})\nsay({'t':'result','output':{'answer':42}})\n"
    )
    end = run.wait()
    assert (end.status, end.output, end.detail["output_source"]) == ("completed", {"answer": 42}, "returned")
    assert "warnings" not in end.detail
    assert (run.stdout(), run.stderr()) == (b"thinking\n", b"hm")
    assert engine.steps(run.id) == [
        ("attempt", "attempt 1", "completed"),
        ("turn", "turn", "completed"),
        ("tool", "grep", "failed"),
        ("tool", "left open", "completed"),
    ]
    rows = engine.rows("SELECT id, parent_id, input_tokens, cost_usd FROM steps WHERE run_id = ? ORDER BY created_at, id", run.id)
    assert [row[1] for row in rows] == [None, rows[0][0], rows[1][0], rows[0][0]]
    assert (rows[0][2:], rows[1][2:]) == ((10, 0.25), (3, 0.5))
    assert engine.rows("SELECT input_tokens, output_tokens, cost_usd FROM runs WHERE id = ?", run.id) == [(10, 20, 0.25)]
    found = engine.rows("SELECT name, size, content_type, location FROM artifacts WHERE source_run = ? ORDER BY name", run.id)
    assert [row[:3] for row in found] == [("b.json", 2, "application/json"), ("f", 11, "application/octet-stream")]
    assert (engine.store / json.loads(found[1][3])["path"]).read_text() == "from a file"


def test_an_error_fails_the_run_although_the_process_exits_well(engine: Engine) -> None:
    end = engine.agent("say({'t':'error','kind':'rate_limited','message':'slow down','details':{'traceback':'...'}})").wait()
    assert (end.status, end.error) == ("failed", {"kind": "rate_limited", "message": "slow down", "details": {"traceback": "..."}})
    end = engine.agent("say({'t':'error','kind':'made up','message':'x'})").wait()
    assert end.error == {"kind": "execution_failed", "message": "x"}


@pytest.mark.parametrize("code", ["os._exit(0)", "say({'t':'result'})", "os.execvp('true', ['true'])"])
def test_a_process_that_exits_well_without_a_result_has_failed(engine: Engine, code: str) -> None:
    end = engine.agent(f"say({{'t':'log','text':'so far'}})\n{code}").wait()
    assert (end.status, end.exit_code, end.output) == ("failed", 0, None)
    assert end.error == {"kind": "execution_failed", "message": "the process ended without returning"}


def test_a_result_of_an_attempt_is_none_of_the_next(engine: Engine) -> None:
    retry = {"max_attempts": 2, "strategy": "constant", "initial_delay": 0.0, "max_delay": 0.0, "jitter": 0.0, "on_exit_codes": [3]}
    code = "if os.environ['AGENTNB_ATTEMPT'] == '1':\n    say({'t':'result','output':1})\n    sys.exit(3)"
    end = engine.agent(code, retry=retry).wait()
    assert (end.status, end.attempts, end.error and end.error["message"]) == ("failed", 2, "the process ended without returning")


def test_secrets_are_masked_in_artifacts_that_are_given_inline_and_in_names_but_not_in_files(engine: Engine) -> None:
    secret = "hunter2-secret"
    Path(f"{secret}.txt").write_text(secret)
    inline = base64_of(f"the key is {secret}".encode())
    run = engine.agent(
        f"say({{'t':'artifact','name':'a','data':{inline!r}}})\nsay({{'t':'artifact','name':'b','data':{inline!r},'file':True}})\n"
        "say({'t':'result','output':None})",
        secrets=[secret],
        artifacts=["*.txt"],
    )
    assert run.wait().status == "completed"
    engine.settle()
    found = dict(engine.rows("SELECT name, location FROM artifacts WHERE source_run = ?", run.id))
    kept = {name: (engine.store / json.loads(location)["path"]).read_text() for name, location in found.items()}
    assert kept == {"a": "the key is ***", "b": f"the key is {secret}", "***.txt": secret}


def test_no_part_of_a_secret_reaches_the_store_by_what_is_cut_or_has_no_name(engine: Engine) -> None:
    secret, pin = "hunter2-verysecret-4711-abcdefgh", "424242424242"
    code = f"""
k, pin = {secret!r}, {pin}
for n in range(0, 2000, 9):
    say({{'t': 'nonsense', 'a': 'x' * n + k}})
    say({{'t': 'step', 'id': 'x' * n + k, 'status': k}})
say({{'t': 'warning', 'text': 'x' * 1985 + k}})
say({{'t': 'step', 'id': k, 'status': 'running'}})
say({{'t': 'step', 'id': k, 'status': 'completed', 'output': [pin]}})
say({{'t': 'artifact', 'name': 'a', 'data': '', 'content_type': k}})
say({{'t': 'artifact', 'name': 'b', 'data': '', 'content_type': {{'a': 1}}}})
say({{'t': 'result', 'output': {{'pin': pin, 'float': pin + 0.0}}}})
"""
    end = engine.agent(code, secrets=[secret, pin]).wait()
    assert (end.status, end.output) == ("completed", {"pin": "***", "float": "***"})
    engine.settle()
    written = b"".join(path.read_bytes() for path in engine.store.rglob("*") if path.is_file())
    assert secret[:12].encode() not in written
    assert pin.encode() not in written
    assert engine.rows("SELECT DISTINCT name FROM steps WHERE kind <> 'attempt'") == [("***",)]


def test_the_reason_why_a_waiting_run_was_cancelled_is_masked(engine: Engine) -> None:
    session = engine.open(max_parallel=1)
    first = engine.launch("sleep 1000", session=session).started()
    waiting = engine.launch("true", session=session, secrets=["hunter2"])
    waiting.cancel("because hunter2")
    assert waiting.wait().error == {"kind": "cancelled", "message": "because ***"}
    first.cancel()
    first.wait()


def test_what_a_step_used_may_be_told_after_its_end_and_adds_nothing_to_the_whole(engine: Engine) -> None:
    code = """
say({'t':'step','id':'1','name':'turn','kind':'turn','status':'running'})
say({'t':'used','id':'1','cost_usd':9})
say({'t':'step','id':'1','status':'completed','output':'a','tokens':{'input':3}})
say({'t':'usage','cost_usd':0.5})
say({'t':'used','id':'1','tokens':{'input':3,'output':4},'cost_usd':0.25})
say({'t':'used','id':'1','tokens':'many','cost_usd':-1})
say({'t':'used','id':'nobody','cost_usd':9})
say({'t':'used'})
say({'t':'result','output':None})
"""
    run = engine.agent(code)
    end = run.wait()
    assert [warning[:40] for warning in end.detail["warnings"]] == ["a malformed report was left out (KeyErro"]
    engine.settle()
    assert engine.rows("SELECT kind, input_tokens, output_tokens, cost_usd FROM steps ORDER BY created_at, id") == [
        ("attempt", 3, None, 0.5),
        ("turn", 3, 4, 0.25),
    ]


def test_tokens_and_cost_of_a_step_are_numbers_or_nothing(engine: Engine) -> None:
    code = """
odd = [{'tokens': {'input': 'x', 'output': [1]}}, {'tokens': 'garbage'}, {'tokens': [1]}, {'cost_usd': 'abc'}, {'cost_usd': {'a': 1}},
       {'cost_usd': float('nan')}, {'cost_usd': 1e400}, {'tokens': {'input': 10**30}}, {'tokens': {'input': -5.5}},
       {'tokens': {'input': True}}, {'cost_usd': False}, {'tokens': {'later': 1}}]
for n, more in enumerate([*odd, {'tokens': {'input': 3, 'output': 2.0, 'cache_read': 1}, 'cost_usd': 1}]):
    say({'t': 'step', 'id': n, 'name': 's', 'status': 'running'})
    say({'t': 'step', 'id': n, 'status': 'completed', **more})
say({'t': 'result', 'output': None})
"""
    run = engine.agent(code)
    assert run.wait().detail.get("warnings", []) == []
    engine.settle()
    found = engine.rows("SELECT input_tokens, output_tokens, cost_usd FROM steps WHERE run_id = ? AND name = 's' ORDER BY rowid", run.id)
    assert found == [*[(None, None, None)] * 12, (3, 2, 1.0)]


def test_a_timeout_is_no_error_of_the_agent(engine: Engine) -> None:
    end = engine.agent("say({'t':'error','message':'x'})\ntime.sleep(1000)", timeout_s=0.4, grace_s=0.2).wait()
    assert end.status == "timeout"


def test_an_artifact_that_is_not_there_fails_the_run(engine: Engine) -> None:
    end = engine.agent("say({'t':'artifact','name':'x','path':'nothing.txt'})").wait()
    assert (end.status, end.error and end.error["kind"]) == ("failed", "artifact_error")
    end = engine.agent("os.mkfifo('pipe')\nsay({'t':'artifact','name':'x','path':'pipe'})").wait(10)
    assert (end.status, end.error and end.error["kind"]) == ("failed", "artifact_error")
    end = engine.agent("say({'t':'artifact','name':'x','path':'a\\0b'})").wait(10)
    assert (end.status, end.error and end.error["kind"]) == ("failed", "artifact_error")


def test_garbage_on_the_channel_is_a_warning(engine: Engine) -> None:
    run = engine.agent(
        "os.write(fd, b'garbage\\n\\xff\\xfe\\n[]\\n{\"t\": 1}\\n')\nos.write(fd, b'[' * 50000 + b'\\n')\n"
        "for data in ({'t':'what'},{'t':'step'},{'t':'step','id':'1','status':'up'},{'t':'step','id':'9','status':'completed'},"
        "{'t':'step','id':'1','status':'running','kind':'odd'},{'t':'step','id':[],'status':[]},{'t':'artifact'},{'t':'artifact','name':'x','data':'!'},"
        "{'t':'usage','input_tokens':float('nan'),'output_tokens':-1,'cost_usd':float('inf'),'tokens_per_s':'x'},{'t':'usage','input_tokens':10**400},"
        "{'t':'error','kind':[]},{'t':'log'},{'t':'begin'},{'t':'__init__'}): say(data)\n"
        "say({'t':'log','text':'\\ud800'})\nsay({'t':'result','output':'fine'})\nos.write(fd, b'no newline at the end')"
    )
    end = run.wait()
    assert (end.status, end.output) == ("completed", "fine")
    assert any("6 reports" in warning for warning in end.detail["warnings"])
    assert len(end.detail["warnings"]) > 8
    assert engine.status(run.id) == "completed"


def test_a_huge_line_on_the_channel_costs_no_memory_and_no_later_report(engine: Engine) -> None:
    code = "piece = b'x' * 1000000\nfor _ in range(60):\n    left = memoryview(piece)\n    while left: left = left[os.write(fd, left):]\n"
    end = engine.agent(code + "os.write(fd, b'\\n')\nsay({'t':'result','output':1})").wait()
    assert (end.status, end.output) == ("completed", 1)
    assert end.detail["warnings"] == ["1 reports of the agent were not understood"]


def test_a_channel_that_a_forked_child_keeps_open_does_not_hold_the_run(engine: Engine) -> None:
    code = "pid = os.fork()\nif pid == 0:\n    os.setsid(); os.close(1); os.close(2); time.sleep(1000)\n"
    code += "open('pid','w').write(str(pid))\nsay({'t':'result','output':1})"
    start = time.monotonic()
    end = engine.agent(code).wait(10)
    assert (end.status, end.output) == ("completed", 1)
    assert time.monotonic() - start < 5
    assert not lives(int(Path("pid").read_text()))


def test_a_flood_of_reports_does_not_hold_the_engine(engine: Engine) -> None:
    run = engine.agent('while True: os.write(fd, b\'{"t": "nonsense"}\\n\' * 100)')
    run.started()
    start = time.monotonic()
    assert engine.run("true").status == "completed"
    assert time.monotonic() - start < 5
    run.cancel()
    end = run.wait(10)
    assert end.status == "cancelled"
    assert len(end.detail["warnings"]) <= 100


def test_an_agent_gets_its_payload(engine: Engine) -> None:
    payload = __import__("base64").b64encode(bytes(range(256)) * 1000).decode()
    end = engine.agent(
        "data = open(int(os.environ['AGENTNB_PAYLOAD_FD']), 'rb').read()\nsay({'t':'result','output':[len(data), data[255]]})",
        payload=payload,
    ).wait()
    assert end.output == [256_000, 255]


class Fake:
    """As much of an execution as the log of an agent needs."""

    run_id = "r"
    attempt = 1
    work = {"cwd": "/nonexistent"}  # noqa: RUF012

    def __init__(self) -> None:
        self.events: list[object] = []
        self.warnings: list[str] = []

    def emit(self, event: object) -> None:
        self.events.append(event)

    def warn(self, text: str, most: int | None = None) -> None:
        self.warnings.append(text)

    def add_output(self, stream: str, data: bytes) -> None:
        self.events.append((stream, data))

    def masked(self, data: object) -> object:
        return data

    def overdue_soon(self) -> None:
        """It has no process."""

    def used(self, tokens: int, cost_usd: float) -> None:
        assert tokens >= 0
        assert cost_usd >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["running", "completed", "1", "tool"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
KEYS = [
    "id",
    "status",
    "name",
    "kind",
    "parent",
    "input",
    "output",
    "error",
    "tokens",
    "cost_usd",
    "text",
    "stream",
    "message",
    "details",
    "input_tokens",
]
KINDS = ["log", "output", "step", "used", "usage", "result", "error", "done", "cancelled", "nonsense"]
REPORTS = st.builds(lambda data, kind: data | {"t": kind}, st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from(KINDS))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(REPORTS, max_size=12))
def test_any_reports_are_taken_or_warned_of_and_every_step_that_began_ends_once(reports: list[dict[str, object]]) -> None:
    import asyncio

    of = Fake()
    log = AgentLog(of)
    log.begin("root")
    for report in reports:
        log.take(report)
    asyncio.run(log.end(Outcome()))
    began = [event.step_id for event in of.events if getattr(event, "type", "") == "step_started"]  # type: ignore[attr-defined]
    ended = [event.step_id for event in of.events if getattr(event, "type", "") == "step_finished"]  # type: ignore[attr-defined]
    assert sorted(began) == sorted(ended)
    log.tokens("root")
    log.cost("root")


def test_reports_in_the_history_survive_anything_json_can_hold(engine: Engine) -> None:
    run = engine.agent(
        "say({'t':'step','id':'1','name':'\\ud800\\0x','status':'running','input':2**70})\n"
        "say({'t':'step','id':'1','status':'completed','tokens':{'input':2**70},'cost_usd':'dear','output':float('nan')})\n"
        "say({'t':'step','id':'2','status':'running'})\nsay({'t':'step','id':'2','status':'running'})\n"
        "say({'t':'usage','input_tokens':2**40})\nsay({'t':'result','output':['\\udfff', 1e400]})"
    )
    assert run.wait().status == "completed"
    wait_until(lambda: engine.status(run.id) == "completed")
    assert {status for _, _, status in engine.steps(run.id)} == {"completed"}
