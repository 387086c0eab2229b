"""A matplotlib figure that shows itself as the last line of a cell, whether or not the notebook has set up matplotlib."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Chart(Figure):
    """A figure of its own, not pyplot's: nothing global keeps it alive, and no backend is chosen."""

    def _repr_png_(self) -> bytes:
        """For IPython, which draws a plain Figure only after pyplot was imported."""
        data = io.BytesIO()
        self.savefig(data, format="png")
        return data.getvalue()
