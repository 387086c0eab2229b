"""Conditions of handlers: small expressions over how a run went, such as ``status == 'timeout' and attempts > 1``.

They are no Python: comparisons, ``in``, ``and``, ``or``, ``not``, parentheses, texts, numbers and lists of them, over the four names
of `NAMES`. Nothing can be called, indexed or computed, so a condition costs nothing and can do no harm.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from agentnb.errors import ConfigError
from agentnb.states import RunStatus

#: What a condition may name: `exit_code` is None when there was none, `error` is "" when there was none.
NAMES = ("status", "exit_code", "error", "attempts")
MAX_LENGTH = 1000

_STATUSES = tuple(status.value for status in RunStatus if status not in {RunStatus.PENDING, RunStatus.RUNNING})
_SAME: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_IN = (ast.In, ast.NotIn)
_ALLOWED = "it may hold comparisons, in, and, or, not, texts, numbers and lists of them"


def check(text: str) -> None:
    """Raise ConfigError, saying what is wrong, when `text` is no condition."""
    tree = _parsed(text)
    used: set[str] = set()
    for node in ast.walk(tree):
        _check_node(text, node)
        if isinstance(node, ast.Name):
            used.add(node.id)
    if not used:
        raise ConfigError(f"condition: {text!r} looks at nothing, so it is always the same; use {', '.join(NAMES)}")


def holds(text: str, values: Mapping[str, Any]) -> bool:
    """Whether the condition is true for `values` (of `NAMES`). Raises TypeError when what it compares cannot be compared."""
    return bool(_value(_parsed(text), values))


def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"condition: it has {len(text)} characters, more than {MAX_LENGTH}; make the choice in the command")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as bad:
        why = bad.msg if isinstance(bad, SyntaxError) else "it nests too deeply or holds a NUL character"
        raise ConfigError(f"condition: {text!r} cannot be read: {why}; write for example \"status == 'timeout'\"") from None


def _check_node(text: str, node: ast.AST) -> None:
    match node:
        case ast.Name(id=name) if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}, or the text '{name}'?" if near else f"known: {', '.join(NAMES)}; texts need quotes"
            raise ConfigError(f"condition: in {text!r} there is no value {name!r}; {hint}")
        case ast.Compare():
            _check_compare(text, node)
        case ast.Constant(value=value) if value is not None and not isinstance(value, str | int | float | bool):
            raise ConfigError(f"condition: in {text!r} a {type(value).__name__} cannot be; {_ALLOWED}")
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())) | ast.UnaryOp(op=ast.Not()):
            pass
        case ast.Name() | ast.Constant() | ast.BoolOp() | ast.List() | ast.Tuple():
            pass
        case ast.expr_context() | ast.boolop() | ast.unaryop() | ast.cmpop():
            pass
        case _:
            raise ConfigError(f"condition: in {text!r} a {type(node).__name__.lower()} cannot be; {_ALLOWED}")


def _check_compare(text: str, node: ast.Compare) -> None:
    sides = [node.left, *node.comparators]
    for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
        if not isinstance(op, (*_SAME, *_ORDER, *_IN)):
            raise ConfigError(f"condition: in {text!r} '{type(op).__name__.lower()}' cannot be; write == or !=")
        if isinstance(op, _IN) and isinstance(right, ast.Constant) and not isinstance(right.value, str):
            raise ConfigError(f"condition: in {text!r} `in` needs a text or a list on its right")
        if isinstance(op, (*_SAME, *_IN)):
            _check_status(text, left, right)
            _check_status(text, right, left)


def _check_status(text: str, name: ast.expr, other: ast.expr) -> None:
    """A status that no run ends with is a slip of the pen."""
    if not (isinstance(name, ast.Name) and name.id == "status"):
        return
    for item in other.elts if isinstance(other, ast.List | ast.Tuple) else [other]:
        if isinstance(item, ast.Constant) and item.value not in _STATUSES:
            raise ConfigError(f"condition: in {text!r} no run ends with the status {item.value!r}; it is one of {', '.join(_STATUSES)}")


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, values) for item in items]
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _value(inner, values)
        case ast.UnaryOp(operand=inner):
            return -_value(inner, values)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, values) for part in parts)
        case ast.Compare():
            return _compared(node, values)
        case _:
            raise TypeError(f"a {type(node).__name__} has no value")


def _compared(node: ast.Compare, values: Mapping[str, Any]) -> bool:
    sides = [_value(side, values) for side in (node.left, *node.comparators)]
    return all(_holds(op, left, right) for op, left, right in zip(node.ops, sides, sides[1:], strict=False))


def _holds(op: ast.cmpop, left: Any, right: Any) -> bool:
    """One comparison; what is not known (None) is neither less nor more than anything, and in nothing that is text."""
    if (order := _ORDER.get(type(op))) is not None:
        return left is not None and right is not None and order(left, right)
    if isinstance(op, _IN):
        found = right is not None and not (left is None and isinstance(right, str)) and left in right
        return found if isinstance(op, ast.In) else not found
    return _SAME[type(op)](left, right)
