from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: The YAML files that it shows, by the names in their first lines.
FILES = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


async def run(block: str, names: dict[str, Any]) -> int:
    """Run a block statement by statement, as cells are; each ``# -> value`` has to hold. Returns how many did."""
    lines, checked = block.splitlines(), 0
    for node in ast.parse(block).body:
        tree: Any = ast.Expression(node.value) if isinstance(node, ast.Expr) else ast.Module([node], [])
        code = compile(tree, "README.md", "eval" if isinstance(node, ast.Expr) else "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)
        if inspect.iscoroutine(value):
            value = await value
        _, found, said = lines[(node.end_lineno or 0) - 1].partition("# -> ")
        if found:
            assert said in {str(value), repr(value)}, f"README.md says {lines[(node.end_lineno or 0) - 1]!r}, but it gave {value!r}"
            checked += 1
    return checked


@pytest.mark.model
@pytest.mark.slow
def test_the_code_of_the_readme_runs_in_order_and_gives_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    async def all_blocks() -> int:
        return sum([await run(block, names) for block in BLOCKS])

    assert asyncio.run(all_blocks()) >= 10
    assert "No such file or directory" in capsys.readouterr().out
    assert all(answer.output for answer in names["answers"])
    assert (tmp_path / ".agentnb").is_dir()


def test_the_spec_files_of_the_readme_are_good_and_do_what_it_says(tmp_path: Path) -> None:
    from agentnb.agents.spec_file import load

    assert FILES
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in FILES:
        load(tmp_path / name)


def test_the_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert (ROOT / "notebooks/images/live-view.png").stat().st_size < 300_000


def test_the_readme_names_only_commands_that_exist() -> None:
    from agentnb.cli import _parser

    known = next(action.choices for action in _parser()._actions if action.choices)
    assert set(re.findall(r"^\$ agentnb (\w+)", README, re.MULTILINE)) <= set(known or ())
