"""Opt-in nesting of event loops, for user code that calls ``asyncio.run`` in a cell or in an agent."""

from __future__ import annotations

import sys
import warnings


def enable_nesting() -> None:
    """Let ``asyncio.run`` and ``loop.run_until_complete`` work inside a running loop (by nest_asyncio2).

    agentnb itself never needs it: ``run.wait()`` blocks a cell and ``await run`` awaits it without. Nested calls end in the
    inverse of the order that they began in: an inner call that takes long holds up the outer one.
    """
    import nest_asyncio2

    nest_asyncio2.apply()


def warn_about_old_nesting() -> None:
    """Warn once when nest_asyncio (1.x), which makes newer kernels drop queued cells, has patched this process."""
    import asyncio

    old = sys.modules.get("nest_asyncio")
    patched = getattr(asyncio, "_nest_patched", False) or hasattr(asyncio.run, "__module__") and asyncio.run.__module__ == "nest_asyncio"
    if old is not None and patched and "nest_asyncio2" not in sys.modules:
        warnings.warn(
            "nest_asyncio has patched this kernel: with ipykernel 7.1 and later it makes 'Run All' drop queued cells. "
            "Remove nest_asyncio.apply() (agentnb needs none), or use agentnb.enable_nesting().",
            RuntimeWarning,
            stacklevel=3,
        )
