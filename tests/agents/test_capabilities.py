"""Capabilities: what is said to work works, and the rest says why not."""

from __future__ import annotations

import json
import sys

import pytest

import agentnb as nb
from agentnb import doctor
from agentnb.agents import capabilities as module
from agentnb.agents import model_file
from agentnb.agents.adapters import kinds
from agentnb.execution import Limits
from agentnb.results import ResourceUsage
from agentnb.states import TargetKind


def test_capabilities_are_plain_data_and_complete() -> None:
    found = nb.capabilities()
    assert json.loads(json.dumps(found)) == found
    assert set(found["targets"]) == set(kinds())
    assert set(found["limits"]) == set(Limits.model_fields)
    assert set(found["usage"]) == set(ResourceUsage.model_fields) - {"measured_by", "peak_memory_is_bound"}
    assert found["runtimes"] == ["local"]
    assert found["platform"]["python"] == ".".join(map(str, sys.version_info[:3]))
    for group in (found["targets"], found["limits"]):
        for one in group.values():
            assert one.get("available", one.get("enforced")) or one["why_not"]


def test_the_local_model_is_there_only_when_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "missing", lambda: "no model; run: x")
    assert nb.capabilities()["targets"]["local_model"] == {"available": False, "why_not": "no model; run: x"}
    assert not nb.supports("local_model")
    monkeypatch.setattr(model_file, "missing", lambda: None)
    assert nb.supports("local_model")


@pytest.mark.parametrize("kind", ["shell", TargetKind.PYTHON])
def test_supports_says_yes_to_kinds_that_can_run(kind: str) -> None:
    assert nb.supports(kind)


@pytest.mark.parametrize("kind", ["quantum", "", None, ["shell"]])
def test_supports_says_no_to_anything_else(kind: str) -> None:
    assert not nb.supports(kind)


def test_another_system_can_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")  # type: ignore[attr-defined]
    found = nb.capabilities()
    assert not any(one["available"] for one in found["targets"].values())
    assert "Linux" in found["targets"]["shell"]["why_not"]
    assert (found["limits"], found["usage"], found["runtimes"]) == ({}, {}, [])


def test_a_limit_that_is_said_to_be_kept_is_taken_and_any_other_is_refused(store) -> None:
    with nb.Session("t", store=store) as session:
        for name, how in nb.capabilities()["limits"].items():
            issues = session.validate(nb.Shell("true"), limits=nb.Limits(**{name: 1_000_000}))
            assert bool(issues) is not how["enforced"], (name, issues)
            assert how["enforced"] or how["why_not"] in issues[0].message


def test_what_is_said_to_be_measured_is_in_the_usage_of_a_run(store) -> None:
    with nb.Session("t", store=store) as session:
        usage = session.shell("sleep 0.1").wait().usage
    for name, how in nb.capabilities()["usage"].items():
        assert (getattr(usage, name) is not None) is how["measured"], name


def test_doctor_shows_the_limits(store) -> None:
    found = {finding.name: finding for finding in doctor.examine(store)}
    for name, how in nb.capabilities()["limits"].items():
        finding = found[f"limit {name}"]
        assert (finding.state == "ok") is how["enforced"]
        assert (how["precision"] if how["enforced"] else how["why_not"]) in finding.text
