from __future__ import annotations

from agentnb.notebook.chart import Chart


def test_a_chart_shows_itself_in_a_cell_without_pyplot() -> None:
    chart = Chart(figsize=(2, 1))  # without text: matplotlib keeps the files of fonts open
    assert chart._repr_png_().startswith(b"\x89PNG\r\n")
