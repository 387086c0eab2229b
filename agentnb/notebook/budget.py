"""Budgets as people give and read them; engine/budget.py enforces them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentnb import units
from agentnb.errors import ConfigError

if TYPE_CHECKING:
    from agentnb.events import BudgetSpent, Json

#: The options, and what their amounts are called in `Budget.spent` and `Budget.remaining`.
OPTIONS = {"budget_usd": "usd", "budget_tokens": "tokens", "budget_time": "time"}
#: From this share on a view warns.
NEARLY = 0.8


@dataclass(slots=True, frozen=True)
class Budget:
    """The budget of a run, a group or a session at one moment, as ``session.budget`` gives it.

    `bounds`: what may be spent of ``usd`` (US dollars), ``tokens`` and ``time`` (seconds since the first start), as far as it is
    bounded. `spent`: what was, of all three. `crossed`: the amount whose bound was crossed, or "".
    """

    scope: str
    bounds: dict[str, float]
    spent: dict[str, float]
    crossed: str = ""

    @property
    def remaining(self) -> dict[str, float]:
        """What is left of each bound, never below zero."""
        return {name: max(most - self.spent[name], 0) for name, most in self.bounds.items()}

    @property
    def share(self) -> float:
        """The share that is spent of the bound that is nearest to its end: 0 to 1, or more."""
        return max(self.spent[name] / most for name, most in self.bounds.items())

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left: no more runs start."""
        return bool(self.crossed) or any(left <= 1e-9 for left in self.remaining.values())  # sums of dollars are not exact

    @property
    def version(self) -> int:
        """Rises with what is spent, in steps that a view can show."""
        return sum(int(200 * self.spent[name] / most) for name, most in self.bounds.items()) + bool(self.crossed)

    def __str__(self) -> str:
        """``$0.42 of $5 · 12k of 200k tokens``."""
        from agentnb.notebook.figures import budget_line

        return budget_line(self)

    def __repr__(self) -> str:
        """One line: the scope, what is spent of what."""
        return f"<Budget of the {self.scope}: {self}{', spent' if self.exhausted else ''}>"


def bounds_of(given: Mapping[str, Any]) -> Json | None:
    """The bounds among these options, by their names; None when there are none. Raises ConfigError for what is no amount."""
    found = {name: _amount(name, given[name]) for name in OPTIONS if given.get(name) is not None}
    return found or None


def _amount(name: str, value: Any) -> float:
    if name == "budget_time":
        amount = units.seconds(value, what=name)
    elif isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(value):
        what = "US dollars, such as 2.5" if name == "budget_usd" else "tokens, such as 200_000"
        raise ConfigError(f"{name}: {value!r} is no amount; give a number of {what}")
    else:
        amount = float(value)
    if name == "budget_tokens" and amount != int(amount):
        raise ConfigError(f"{name}: {value!r} is no whole number of tokens")
    if amount <= 0:
        raise ConfigError(f"{name}: {value!r} must be more than zero; leave it out for no bound")
    return int(amount) if name == "budget_tokens" else amount


def budget_at(scope: str, bounds: Json, told: BudgetSpent | None, until: float | None = None) -> Budget:
    """The budget as the supervisor told of it last. `until`: when the scope ended, seconds since the epoch; default: it goes on."""
    spent: dict[str, float] = {"usd": 0.0, "tokens": 0, "time": 0.0}
    if told is not None:
        spent["usd"], spent["tokens"] = told.cost_usd, told.tokens
        if told.began is not None:
            spent["time"] = max((time.time() if until is None else until) - told.began / 1e6, 0.0)
    return Budget(scope, {OPTIONS[name]: most for name, most in bounds.items()}, spent, OPTIONS.get(told.crossed if told else "", ""))
