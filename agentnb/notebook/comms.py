"""What a widget's line to the front end needs to carry a click while a cell blocks."""

from __future__ import annotations

from typing import Any


def unpin(widget: Any) -> None:
    """Let clicks on `widget` come on the subshell that the front end asked for.

    ipykernel 7.4 sends them to the shell that last published on the widget's comm, which a blocking cell keeps busy; other versions
    have no such method, and need nothing.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = None  # noqa: SLF001 - there is no public way; guarded, for it may go
