from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path

import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from agentnb.notebook.chart import Chart


@pytest.fixture
def chart() -> Chart:
    """Without text: matplotlib keeps the files of fonts open."""
    made = Chart(figsize=(2, 1))
    made.alt = 'A <b>"chart"</b> & שלום\nof 3 runs'
    return made


def test_a_chart_shows_itself_in_a_cell_without_pyplot_with_its_alternative_text(chart: Chart) -> None:
    data, metadata = DisplayFormatter().format(chart)
    picture = base64.b64decode(data["image/png"])
    assert picture.startswith(b"\x89PNG\r\n")
    assert metadata == {"image/png": {"alt": chart.alt, "width": 200, "height": 100}}
    assert data["text/plain"] == chart.alt
    assert data["text/html"].startswith(
        '<img alt="A &lt;b&gt;&quot;chart&quot;&lt;/b&gt; &amp; שלום\nof 3 runs" width="200" src="data:image/png;base64,'
    )
    assert data["text/html"].count("<") == 1
    image = Image.open(io.BytesIO(picture))
    assert (image.size, image.info["Description"]) == ((300, 150), chart.alt)


def test_a_chart_without_a_text_is_a_picture_all_the_same() -> None:
    data, metadata = DisplayFormatter().format(Chart(figsize=(2, 1)))
    assert data["text/html"].startswith('<img alt="" ')
    assert metadata["image/png"]["alt"] == ""


def test_every_picture_in_the_saved_notebooks_has_its_alternative_text() -> None:
    books = [json.loads(path.read_text(encoding="utf-8")) for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")]
    outputs = [
        output for book in books for cell in book["cells"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(outputs) >= 2
    for output in outputs:
        alt = output["metadata"]["image/png"]["alt"]
        assert len(alt) > 100
        assert "".join(output["data"]["text/html"]).startswith(f'<img alt="{escape(alt)}"')
