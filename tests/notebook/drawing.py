"""Figures as they come to a page."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(figure: Figure) -> bytes:
    """The figure as PNG; a warning on the way is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()
