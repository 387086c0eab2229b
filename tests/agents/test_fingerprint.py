"""Fingerprints of functions and values: equal for equal ones in every process, different for different ones, else refused."""

from __future__ import annotations

import dataclasses
import enum
import functools
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents import fingerprint as module
from agentnb.agents import own_code
from agentnb.agents.bytecode import shallow
from agentnb.agents.fingerprint import fingerprint
from agentnb.agents.own_code import library
from tests.notebook.conftest import new_session, session

__all__ = ["new_session", "session"]


def of(value: object) -> str:
    return fingerprint({"it": value})


def defined(code: str, name: str = "f", **given: object) -> Any:
    """What a cell of a notebook defines: functions of ``__main__`` that are in no file."""
    namespace: dict[str, Any] = {"__name__": "__main__", **given}
    exec(compile(textwrap.dedent(code), "<cell>", "exec"), namespace)
    return namespace[name]


SCRIPT = """
    import dataclasses, enum, functools, json, re
    import numpy as np, pandas as pd
    from agentnb.agents.fingerprint import fingerprint
    NAMES = {"b", "a", "c", "dd", "eee", "f"}
    class Kind(enum.Enum):
        GOOD = "good"
    @dataclasses.dataclass
    class Point:
        x: int = 3
        tags: list = dataclasses.field(default_factory=list)
        def area(self): return helper(self.x)
    def helper(n): return n + (helper(n - 1) if n else len(NAMES))
    WORD = re.compile("a+")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "t": pd.to_datetime(["2020", "2021"])})
    def agent(a, b=2, *, c=Point(4)):
        return [helper(a), Point().area(), np.mean([1]), WORD.match("a").end(), Kind.GOOD, frame.sum(), a in {"x", "y", "z"}]
    print(fingerprint({"agent": agent, "data": [NAMES, frozenset({("a", 1)}), {"k": {1, 2}}, np.arange(6).reshape(2, 3)],
                       "partial": functools.partial(agent, 1), "bound": Point(1).area, "frame": frame}))
"""


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    seeds = ("1", "2")
    told = [
        subprocess.run([sys.executable, "script.py"], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in seeds
    ]
    assert re.fullmatch(r"[0-9a-f]{64}\n", told[0].stdout), told[0].stderr
    assert told[0].stdout == told[1].stdout


PAIRS = [
    ("def f(): return 1", "def f(): return 2"),
    ("def f(): return 1", "def f(): return 1.0"),
    ("def f(): return 1", "def f(): return True"),
    ("def f(a=1): return a", "def f(a=2): return a"),
    ("def f(*, a=1): return a", "def f(*, a=2): return a"),
    ("def f(a, b): return a", "def f(b, a): return a"),
    ("def f(): return 'a'", "def f(): return b'a'"),
    ("def f(): return x\nx = 1", "def f(): return x\nx = 2"),
    ("def f(): return g()\ndef g(): return 1", "def f(): return g()\ndef g(): return 2"),
    ("def f(): return g()\ndef g(): return h()\ndef h(): return 1", "def f(): return g()\ndef g(): return h()\ndef h(): return 2"),
    ("def f(): return [g() for _ in range(2)]\ndef g(): return 1", "def f(): return [g() for _ in range(2)]\ndef g(): return 2"),
    ("def f(): return C().m()\nclass C:\n def m(self): return 1", "def f(): return C().m()\nclass C:\n def m(self): return 2"),
    ("def f(): return C.x\nclass C:\n x = 1", "def f(): return C.x\nclass C:\n x = 2"),
    ("class B:\n x = 1\nclass C(B): pass\ndef f(): return C.x", "class B:\n x = 2\nclass C(B): pass\ndef f(): return C.x"),
    ("def f(): return c.x\nclass C: pass\nc = C()\nc.x = 1", "def f(): return c.x\nclass C: pass\nc = C()\nc.x = 2"),
    ("def m(x):\n def f(): return x\n return f\nf = m(1)", "def m(x):\n def f(): return x\n return f\nf = m(2)"),
    ("import json\ndef f(): return json.dumps(1)", "import json\ndef f(): return json.loads(1)"),
    ("def f():\n try: return 1\n except ValueError: return 2", "def f():\n try: return 1\n except KeyError: return 2"),
    ("def f(): return d\nd = {'a': [1]}", "def f(): return d\nd = {'a': [2]}"),
    (
        "class C:\n @property\n def x(s): return 1\ndef f(): return C().x",
        "class C:\n @property\n def x(s): return 2\ndef f(): return C().x",
    ),
    ("import functools\n@functools.cache\ndef f(): return 1", "import functools\n@functools.cache\ndef f(): return 2"),
    ("import enum\nclass E(enum.Enum):\n A = 1\ndef f(): return E.A", "import enum\nclass E(enum.Enum):\n A = 2\ndef f(): return E.A"),
    ("async def f(): return 1", "def f(): return 1"),
    ("def f(): return nothing_here", "def f(): return nothing_there"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_changes_a_function_or_what_it_uses_changes_it(one: str, other: str) -> None:
    assert of(defined(one)) == of(defined(one))
    assert of(defined(one)) != of(defined(other))


def test_comments_lines_and_what_is_not_used_change_nothing() -> None:
    plain = "def f(a):\n    return g(a) + 1\ndef g(a): return a\n"
    other = "unused = 3\ndef unused_too(): pass\n\n\ndef g(a): return a\n# more\ndef f(a):\n    # what it does\n\n    return g(a) + 1\n"
    assert of(defined(plain)) == of(defined(other))


def test_functions_that_call_each_other_and_data_that_holds_itself_come_to_an_end() -> None:
    around: list[Any] = [1]
    around.append(around)
    other: list[Any] = [1]
    other.append(other)
    assert of(around) == of(other) != of([1, [1]])
    code = "def f(n): return g(n)\ndef g(n): return f(n) + {}\n"
    assert of(defined(code.format(1))) != of(defined(code.format(2)))
    many = "\n".join(f"def f{n}(): return [{', '.join(f'f{m}' for m in range(60))}]" for n in range(60))
    assert len(of(defined(many, "f0"))) == 64  # all call all: each is looked at once


@dataclasses.dataclass
class Point:
    x: int = 1
    note: list[str] = dataclasses.field(default_factory=list)

    def double(self) -> int:
        return 2 * self.x


class Kind(enum.Enum):
    GOOD = 1
    BAD = 2


class Slots:
    __slots__ = ("a",)

    def __init__(self, a: object) -> None:
        self.a = a


VALUES: list[Callable[[], object]] = [
    lambda: None, lambda: 1, lambda: 1.0, lambda: True, lambda: "1", lambda: b"1", lambda: 1j, lambda: ..., lambda: (1,), lambda: [1],
    lambda: {1}, lambda: frozenset({1}), lambda: {1: 1}, lambda: {"1": 1}, lambda: -0.0, lambda: 0.0, lambda: float("nan"),
    lambda: Path("a"), lambda: re.compile("a"), lambda: re.compile("b"), lambda: Point(1), lambda: Point(2), lambda: Point(1, ["a"]),
    lambda: Kind.GOOD, lambda: Kind.BAD, lambda: Slots(1), lambda: Slots(2), lambda: np.float64(1), lambda: np.arange(3),
    lambda: np.arange(3.0), lambda: np.arange(3).reshape(1, 3), lambda: np.array(["a", None], dtype=object), lambda: np.add, lambda: len,
    lambda: pd.DataFrame({"a": [1]}), lambda: pd.DataFrame({"a": [2]}), lambda: pd.DataFrame({"b": [1]}), lambda: pd.Series([1], name="a"),
    lambda: Point(1).double, lambda: Point(2).double, lambda: "a".upper, lambda: functools.partial(len, "a"),
    lambda: logging.getLogger("a"), lambda: nb.Secret("a"), lambda: nb.Secret("b"), lambda: nb.Shell("a"), lambda: nb.Shell("b"),
    lambda: types.MappingProxyType({1: 1}), lambda: Point, lambda: Kind, lambda: np, lambda: int, lambda: pd.DataFrame.mean,
]  # fmt: skip


def test_values_of_every_kind_are_told_apart_and_found_equal_again() -> None:
    first, again = [of(make()) for make in VALUES], [of(make()) for make in VALUES]
    assert first == again
    assert len(set(first)) == len(first)


def test_integers_of_any_size_are_told_apart() -> None:
    assert len({of(value) for value in (10**10_000, 10**10_000 + 1, -(10**10_000), 0, 1, -1)}) == 6


def test_who_shares_what_makes_no_difference_to_plain_data() -> None:
    shared, array = ["a", "b"], np.zeros(2)
    assert of([shared, shared]) == of([["a", "b"], ["a", "b"]])
    assert of([array, array, array.dtype]) == of([np.zeros(2), np.zeros(2), np.dtype("float64")])


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_PLAIN, _PLAIN)
def test_plain_data_is_equal_when_and_only_when_its_text_is(one: Any, other: Any) -> None:
    assert (of(one) == of(other)) == (repr(one) == repr(other))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text() | st.integers()))
def test_the_order_in_which_a_set_was_filled_makes_no_difference(items: set[Any]) -> None:
    assert of(set(sorted(items, key=repr))) == of(set(sorted(items, key=repr, reverse=True)))  # noqa: C414


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("make", [threading.Lock, _generator, lambda: open(os.devnull), threading.Event], ids=lambda f: f.__name__)  # noqa: SIM115
def test_what_lives_is_refused_with_where_it_was_found(make: Callable[[], Any]) -> None:
    value = make()
    try:
        f = defined("def f(): return g()\ndef g(): return box['a'][0]\n", box={"a": [value]})
        where = r"item 'a' of global 'box' of g\(\) of global 'g' of f\(\) of it"
        with pytest.raises(nb.ConfigError, match=f"reuse: .*{where} is a .* leave reuse"):
            of(f)
    finally:
        getattr(value, "close", lambda: None)()


def test_too_much_and_too_deep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(nb.ConfigError, match="nested too deeply"):
        of(deep)
    while deep:  # or taking it apart would go as deep
        deep = deep.pop()
    monkeypatch.setattr(module, "MAX_PARTS", 1000)
    with pytest.raises(nb.ConfigError, match=r"has more than 1,000 parts; .* inputs="):
        of(list(range(2000)))


# --- modules of the user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules that can be imported."""
    home = tmp_path / "own"
    home.mkdir()
    monkeypatch.syspath_prepend(str(home))
    known = set(sys.modules)

    def write(**files: str) -> None:
        for name, text in files.items():
            path = home / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(home)):
            del sys.modules[name]


def test_an_own_module_counts_by_its_source_and_by_those_that_it_imports(own: Callable[..., None]) -> None:
    own(own_top="from own_low import low\ndef top(): return low()\n", own_low="def low(): return 1\n")
    import own_top  # type: ignore[import-not-found]

    by_name, by_module = defined("def f(): return top()", top=own_top.top), defined("def f(): return own_top.top()", own_top=own_top)
    inside = defined("def f():\n import own_top\n return own_top.top()")
    before = [of(by_name), of(by_module), of(inside)]
    own(own_low="def low(): return 2\n")  # what a child process would import now
    assert not set(before) & {of(by_name), of(by_module), of(inside)}
    own(own_low="def low(): return 1\n")
    assert before == [of(by_name), of(by_module), of(inside)]


def test_what_an_own_module_holds_now_counts_where_it_is_asked_for(own: Callable[..., None]) -> None:
    own(own_settings="depth = 1\nother = 1\n")
    import own_settings  # type: ignore[import-not-found]

    f = defined("def f(): return own_settings.depth", own_settings=own_settings)
    before = of(f)
    own_settings.other = 2
    assert of(f) == before
    own_settings.depth = 2
    assert of(f) != before


def test_packages_relative_imports_and_modules_that_are_not_there(own: Callable[..., None]) -> None:
    own(**{"pack/__init__": "", "pack/a": "from . import b\nfrom .c import thing\nimport not_installed_anywhere\n"})
    own(**{"pack/b": "", "pack/c": "thing = 1\n"})
    f = defined("def f():\n import pack.a\n import also_not_installed\n")
    before = of(f)
    own(**{"pack/c": "thing = 2\n"})
    assert of(f) != before
    before = of(f)
    own(**{"pack/__init__": "import json\n"})
    assert of(f) != before


def test_an_own_module_that_is_in_no_file_is_refused() -> None:
    made = types.ModuleType("made_in_memory")
    sys.modules["made_in_memory"] = made
    try:
        with pytest.raises(nb.ConfigError, match="the source of module 'made_in_memory' is in no file"):
            of(defined("def f(): return m.x", m=made))
    finally:
        del sys.modules["made_in_memory"]


def test_installed_packages_count_by_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library("numpy.linalg") == f"numpy {np.__version__}"
    assert (library("json"), library("__main__"), library("tests.agents")) == ("json", None, None)
    assert str(library("agentnb.notebook")).startswith("agentnb ")
    f = defined("import numpy as np\ndef f(): return np.mean([1])")
    before = of(f)
    own_code._library.cache_clear()
    monkeypatch.setattr(np, "__version__", "0.0.1")
    try:
        assert of(f) != before
    finally:
        own_code._library.cache_clear()


def test_a_session_is_a_means_and_a_run_that_ended_is_data(session: nb.Session) -> None:
    code = "async def f(): return await session.shell('echo')"
    assert of(defined(code, session=session)) == of(defined(code, session=nb.Session("other", store=session.store)))
    one, other = session.shell("true"), session.shell("true")
    session.wait()
    assert of(one) == of(one) != of(other)
    group = session.map(nb.Shell("true"), [{}]).wait()
    with pytest.raises(nb.ConfigError, match=r"agentnb\.notebook\.group\.RunGroup"):
        of(group)


# --- the quick digest


def test_the_quick_digest_sees_a_functions_own_code_only() -> None:
    one, moved, other = (defined(text) for text in ("def f(): return g()", "\n\ndef f():\n  # why\n  return g()", "def f(): return h()"))
    assert shallow(one) == shallow(moved) != shallow(other)
    assert shallow(defined("def f(): return 1")) != shallow(defined("def f(): return 1.0"))
    assert shallow(defined("def f(): return [x for x in y if x in {'a', 'b'}]")) is not None
    assert shallow(functools.partial(one, 1)) == shallow(one)
    assert shallow(len) is None
