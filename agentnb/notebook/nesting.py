"""Opt-in nesting of event loops, for user code that calls ``asyncio.run`` in a cell or in an agent."""

from __future__ import annotations

import sys
import warnings

_warned = False


def enable_nesting() -> None:
    """Let ``asyncio.run`` and ``loop.run_until_complete`` work inside a running loop (by nest_asyncio2).

    agentnb itself never needs it: ``run.wait()`` blocks a cell and ``await run`` awaits it without. Nested calls end in the
    inverse of the order that they began in: an inner call that takes long holds up the outer one.
    """
    import nest_asyncio2

    nest_asyncio2.apply()


def warn_about_old_nesting(*, stacklevel: int) -> None:
    """Warn, once in a process, when nest_asyncio 1.x, which makes newer kernels drop queued cells, has patched asyncio."""
    global _warned  # noqa: PLW0603 - once in a process
    asyncio = sys.modules.get("asyncio")
    if _warned or "nest_asyncio" not in sys.modules or not getattr(asyncio, "_nest_patched", False) or hasattr(asyncio, "_nest_asyncio2"):
        return
    _warned = True
    warnings.warn(
        "nest_asyncio has patched this process: with ipykernel 7.1 and later it makes 'Run All' drop queued cells. agentnb needs no "
        "patch: remove nest_asyncio.apply(), restart the kernel, and call agentnb.enable_nesting() if your own code needs it.",
        RuntimeWarning,
        stacklevel=stacklevel,
    )
