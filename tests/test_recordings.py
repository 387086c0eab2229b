"""The recordings that the notebooks play."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest

from agentnb import demo
from agentnb.agents.replay import check_recording

FILES = sorted((demo.notebooks() / "recorded").glob("*.jsonl"))
BOOK = demo.notebooks() / "02_claude.ipynb"


def test_there_are_some() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_whole_and_tells_nothing_of_the_machine_it_was_made_on(path: Path) -> None:
    assert check_recording(path)["run"]["status"] == "completed"
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if (coded := json.loads(line).get("base64")) is not None:
            text += base64.b64decode(coded).decode("utf-8", "replace")
    assert not re.findall(r"(?:/home|/root|/usr|/work|/Users|/var)/[\w./-]+", text)
    assert not re.findall(r"no-(?:key|token)-at-all", text)


def test_the_saved_notebook_shows_its_results_without_a_kernel() -> None:
    book = nbformat.read(BOOK, 4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if re.search("pending|running<", str(output.get("data", {}).get("text/html")))]
    assert not re.findall(r"(?:/home|/root|/usr|/work|/Users|/var)/[\w./-]+", json.dumps(outputs))


def test_the_notebook_plays_only_recordings_that_are_there() -> None:
    named = re.findall(r'recorded\("(\w+)"\)', BOOK.read_text(encoding="utf-8").replace('\\"', '"'))
    assert set(named) <= {path.stem for path in FILES}
    assert len(set(named)) >= 5
