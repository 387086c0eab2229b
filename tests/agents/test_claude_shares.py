"""What turns and sub-agents of claude cost: shares of what the CLI tells at its end."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents.claude_shares import Call, shares
from tests.agents.test_claude_stream import EVENTS, NAMES, kinds, reports

Json = dict[str, Any]


def used(found: list[Json]) -> dict[str, Json]:
    """What was told last of each step."""
    return {report["id"]: report for report in kinds(found, "used")}


@pytest.mark.parametrize("name", [name for name in NAMES if EVENTS[name][-1]["modelUsage"]])
def test_the_shares_of_each_recorded_stream_add_up_to_what_the_cli_told(name: str) -> None:
    found = reports(EVENTS[name])
    costs = {step: told["cost_usd"] for step, told in used(found).items()}
    begun = {step["id"]: step for step in kinds(found, "step") if step["status"] == "running"}
    assert set(costs) >= {step for step in begun if begun[step]["kind"] == "turn"}
    assert all(cost > 0 for cost in costs.values())
    mine = [cost for step, cost in costs.items() if begun[step]["kind"] == "tool" or "parent" not in begun[step]]
    assert math.fsum(mine) == pytest.approx(EVENTS[name][-1]["total_cost_usd"], abs=1e-9)


@pytest.mark.parametrize("name", ["sigint", "err401_r1", "nokey"])
def test_nothing_is_shared_out_where_the_cli_tells_nothing(name: str) -> None:
    assert kinds(reports(EVENTS[f"2.1.197_{name}.jsonl"]), "used") == []


def test_a_tool_that_is_no_sub_agent_used_no_model() -> None:
    (end,) = [step for step in kinds(reports(EVENTS["2.1.197_tool.jsonl"]), "step") if step["id"].startswith("toolu") and "output" in step]
    assert (end["tokens"], end["cost_usd"]) == ({"input": 0, "output": 0}, 0.0)


def test_a_sub_agent_costs_what_its_turns_and_its_last_message_cost() -> None:
    found = reports(EVENTS["2.1.330_agent.jsonl"])
    told, tool = used(found), "toolu_000000000000000000000001"
    # 160 tokens were written: by the two turns of the model itself 25 each, by the last message 70: 40 are left for the one not told
    one, two, last = (100 + 25 + 3 + 5 * written for written in (25, 40, 70))
    whole = EVENTS["2.1.330_agent.jsonl"][-1]["total_cost_usd"]
    assert told["turn 2"]["cost_usd"] == pytest.approx(whole * two / (2 * one + two + last))
    assert told[tool]["cost_usd"] == pytest.approx(whole * (two + last) / (2 * one + two + last))
    assert told[tool]["tokens"] == {"input": 200, "cache_read": 60, "cache_write": 40}
    mine = math.fsum(told[turn]["cost_usd"] for turn in ("turn 1", "turn 3"))
    assert mine + told[tool]["cost_usd"] == pytest.approx(whole, abs=1e-9)


def test_a_sub_agent_in_the_background_lasts_until_it_has_ended_with_its_turns_below() -> None:
    found = reports(EVENTS["2.1.330_background.jsonl"])
    tool = "toolu_000000000000000000000001"
    steps = kinds(found, "step")
    parents = {step["id"]: step.get("parent") for step in steps if step["status"] == "running"}
    assert [step for step, parent in parents.items() if parent == tool] == ["turn 3", "turn 4"]
    (end,) = [step for step in steps if step["id"] == tool and step["status"] != "running"]
    assert end["output"].startswith("sub done")
    assert steps.index(end) > max(n for n, step in enumerate(steps) if step["id"] == "turn 4" and step["status"] == "running")
    costs = {step: told["cost_usd"] for step, told in used(found).items()}
    assert costs[tool] == pytest.approx(costs["turn 3"] + costs["turn 4"])
    assert len(kinds(found, "used")) == len(costs)  # there are two results, and each counts on


def test_of_a_conversation_that_goes_on_only_what_is_new_counts() -> None:
    events = json.loads(json.dumps(EVENTS["2.1.330_agent.jsonl"]))
    end = events[-1]
    ((model, mine),) = end["modelUsage"].items()
    end["model_usage_since_last_result"] = {model: dict(mine)}
    end["modelUsage"] = {model: {name: n * 3 for name, n in mine.items() if isinstance(n, int | float)}, "other": {"costUSD": 1}}
    end["total_cost_usd"] = mine["costUSD"] * 3 + 1
    last = kinds(reports(events, resume="s"), "usage")[-1]
    assert (last["cost_usd"], last["input_tokens"], last["output_tokens"]) == (mine["costUSD"], 400, 160)
    assert used(reports(events, resume="s")) == used(reports(EVENTS["2.1.330_agent.jsonl"]))
    refused = {"type": "result", "is_error": True, "total_cost_usd": 5, "modelUsage": {"m": {"costUSD": 5}}}
    assert kinds(reports([refused | {"model_usage_since_last_result": {}}], resume="s"), "usage")[-1]["cost_usd"] == 0
    assert kinds(reports([refused], resume="s"), "usage")[-1]["cost_usd"] == 5  # an older version, which tells no more


def call(step: str, model: str = "m", written: int | None = 10, length: int = 0, **read: int) -> Call:
    return Call(step, model, read, written, length)


def told(cost: Any, written: int = 0, **read: int) -> Json:
    return {"costUSD": cost, "outputTokens": written, "inputTokens": read.get("input", 0),
            "cacheReadInputTokens": read.get("cache_read", 0), "cacheCreationInputTokens": read.get("cache_write", 0)}  # fmt: skip


def test_each_kind_of_token_has_its_weight() -> None:
    calls = [call("a", written=0, input=100), call("b", written=20), call("c", written=0, cache_read=1000),
             call("d", written=0, cache_write=80), call("e", written=0, cache_write=50, hour=50)]  # fmt: skip
    assert shares(calls, {"m[1m]": told(5.0, 20, input=100, cache_read=1000, cache_write=130)}) == pytest.approx(
        dict.fromkeys("abcde", 1.0)
    )


def test_models_that_no_turn_was_made_by_and_calls_that_nobody_saw_stay_with_the_attempt() -> None:
    calls = [call("a", "big", 10, input=50), call("b", "big", None, input=50)]
    assert shares(calls[:1], {"big": told(3.0, 40, input=100), "small": told(1.0, 5)}) == pytest.approx({"a": 3.0 * 100 / 300})
    assert shares(calls, {"big": told(3.0, 40, input=150), "small": told(1.0, 5)}) == pytest.approx({"a": 3.0 * 100 / 350})
    assert shares(calls[:1], {"other": told(3.0, 10, input=50)}) == {"a": 3.0}  # one by one: a gateway's name for it
    assert shares(calls[:1], {"other": told(3.0), "another": told(3.0)}) == {}


def test_a_cloud_may_have_names_of_its_own_for_models() -> None:
    calls = [call("a", "claude-big-4-20250101", 10, input=50), call("b", "claude-small-4-5", 10, input=50)]
    models = {
        "eu.anthropic.claude-big-4-v1:0": told(3.0, 10, input=50) | {"canonicalModel": "claude-big-4"},
        "eu.anthropic.claude-small-4-5-v1:0": told(1.0, 10, input=50) | {"canonicalModel": "claude-small-4-5"},
        "other": told(1.0, 10, input=50) | {"canonicalModel": "claude"},
    }
    assert shares(calls, models) == {"a": 3.0, "b": 1.0}


@pytest.mark.parametrize("cost", [None, "1", -1, math.nan, math.inf, True, 10**400, []])
def test_a_cost_that_makes_no_sense_is_not_shared(cost: Any) -> None:
    assert shares([call("a", input=1)], {"m": told(cost, 10)}) == {}
    assert shares([call("a", input=1)], {"m": told(1.0, 10) | {"outputTokens": cost}}) == {}


TOKENS = st.integers(0, 10**7)
READ = st.fixed_dictionaries({"input": TOKENS, "cache_read": TOKENS, "cache_write": TOKENS})
CALLS = st.lists(st.tuples(READ, TOKENS, st.booleans(), st.integers(0, 5000)), min_size=1, max_size=30)


@given(CALLS, st.floats(0, 1e4), READ, TOKENS)
def test_shares_are_never_negative_nor_more_than_the_whole_and_all_of_it_when_all_was_seen(
    made: list[Any], cost: float, unseen: Json, unwritten: int
) -> None:
    calls = [call(str(n), "m", written if known else None, length, **read) for n, (read, written, known, length) in enumerate(made)]
    read = {kind: sum(one[0][kind] for one in made) for kind in unseen}
    written = sum(one[1] for one in made)
    whole = shares(calls, {"m": told(cost, written, **read)})
    if any(read.values()) or written:
        assert set(whole) == {call.step for call in calls}
        assert math.fsum(whole.values()) == pytest.approx(cost, abs=1e-9)
    partly = shares(calls, {"m": told(cost, written + unwritten, **{kind: n + unseen[kind] for kind, n in read.items()})})
    for found in (whole, partly):
        assert all(0 <= share <= cost * (1 + 1e-12) for share in found.values())
        assert math.fsum(found.values()) <= cost + 1e-9
