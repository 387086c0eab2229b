"""Nesting is opt-in, works in a script, and the old patch is warned about once."""

from __future__ import annotations

import asyncio
import sys
import types
import warnings

import pytest

from agentnb.notebook import nesting


def test_nothing_is_patched_before_it_is_asked_for_and_then_loops_nest(run_script) -> None:
    out = run_script(
        """
        import asyncio, sys
        print("nest_asyncio2" in sys.modules, asyncio.run.__module__)
        async def inner():
            return (await session.shell("echo inner")).stdout.strip()
        async def main():
            nb.enable_nesting()
            nb.enable_nesting()
            found = asyncio.run(inner())
            return found, (await session.shell("echo outer")).stdout.strip()
        print(asyncio.run(main()), session.shell("echo after").wait().stdout.strip())
        async def agent():
            return asyncio.run(inner())
        print(session.python(agent, timeout=20).wait().output)
        """
    )
    assert out.splitlines() == ["False asyncio.runners", "('inner', 'outer') after", "inner"]


def test_nesting_is_enabled_without_a_loop_too(run_script) -> None:
    assert run_script("nb.enable_nesting()\nprint(session.shell('echo on').wait().stdout)") == "on\n\n"


def test_the_old_patch_is_warned_about_once_and_its_successor_is_not(monkeypatch) -> None:
    monkeypatch.setattr(nesting, "_warned", False)
    nesting.warn_about_old_nesting(stacklevel=2)
    monkeypatch.setitem(sys.modules, "nest_asyncio", types.ModuleType("nest_asyncio"))
    nesting.warn_about_old_nesting(stacklevel=2)  # imported, but it has patched nothing
    monkeypatch.setattr(asyncio, "_nest_patched", True, raising=False)
    monkeypatch.setattr(asyncio, "_nest_asyncio2", object(), raising=False)
    nesting.warn_about_old_nesting(stacklevel=2)
    monkeypatch.delattr(asyncio, "_nest_asyncio2")
    with pytest.warns(RuntimeWarning, match=r"'Run All' drop queued cells.*enable_nesting"):
        nesting.warn_about_old_nesting(stacklevel=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nesting.warn_about_old_nesting(stacklevel=2)
