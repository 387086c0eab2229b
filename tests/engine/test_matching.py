"""The search for artifacts: the files that glob finds, and an end at once when it is told to stop."""

from __future__ import annotations

from glob import glob
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.engine.matching import Stopped, matching

NAMES = ["a", "b", ".h", "a.txt", "b.log", "[x]", "é"]
FILES = [f"{one}/{two}/{three}" for one in ("a", "b", ".h") for two in ("a", ".h", "é") for three in ("a.txt", "b.log", "[x]", ".h")]
PARTS = st.sampled_from([*NAMES, "*", "**", "?", "*.txt", ".*", "[ab]*", "[!a]*", "[[]x]", "..", "."])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in (*FILES, "a.txt", ".hidden", "b.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "linked").symlink_to(root / "a")
    (root / "broken").symlink_to(root / "nothing")
    return root


@given(parts=st.lists(PARTS, min_size=1, max_size=4), absolute=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_it_finds_what_glob_finds(tree: Path, parts: list[str], absolute: bool) -> None:
    pattern = "/".join(parts)
    pattern = f"{tree}/{pattern}" if absolute else pattern
    found = glob(pattern, root_dir=tree, recursive=True)
    expected = {name for name in found if (tree / name).is_file() and not name.endswith("/")}  # "a.txt/" is what it makes of "a.txt/**"
    assert matching(pattern, tree, lambda: False) == sorted(expected)


def test_it_stops_at_the_next_entry(tree: Path) -> None:
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Stopped):
        matching("**/nothing", tree, stopped)
    assert len(asked) == 4


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a.txt").touch()
    assert "a.txt" in matching("**/a.txt", tmp_path, lambda: False)
