"""A matplotlib figure that shows itself as the last line of a cell, with a text for those who do not see it."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

from matplotlib.figure import Figure

#: Of so many pixels per inch is the picture of a cell; it is shown smaller, so that it is sharp on screens of twice the usual density.
_DPI = 150


class Chart(Figure):
    """A figure of its own, not pyplot's: nothing global keeps it alive, and no backend is chosen.

    `alt` says what it shows, with its numbers. Notebooks get it as the picture's alternative text: as an ``<img alt=...>``, since
    JupyterLab has none for pictures by themselves, and in the metadata of the picture, where nbconvert and others look; the PNG's own
    Description has it as well.
    """

    alt: str = ""

    def _repr_png_(self) -> bytes:
        """For front ends that show only pictures."""
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=_DPI, metadata={"Description": self.alt} if self.alt else None)
        return data.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:  # noqa: ARG002 - IPython filters
        """For IPython, which draws a plain Figure only after pyplot was imported."""
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        width, height = (round(float(inches) * self.dpi) for inches in self.get_size_inches())
        alt = escape(self.alt)
        image = f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{picture}" style="max-width:100%;height:auto">'
        data = {"text/html": image, "image/png": picture, "text/plain": self.alt or repr(self)}
        return data, {"image/png": {"alt": self.alt, "width": width, "height": height}}
