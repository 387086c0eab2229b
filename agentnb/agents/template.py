"""Templates: ``{{ word }}`` in commands, prompts and arguments.

jinja2 in its sandbox, with every missing value an error. In a shell line each value becomes one single-quoted word, whatever it
holds; ``{{ x | raw }}`` puts it in as it is. What a value holds is never read as a template. Shell syntax such as ``${x}``,
``${#x}``, ``$((1+2))`` and ``awk '{print $1}'`` stays as it is; a literal ``{{`` is written ``{% raw %}{{ ... }}{% endraw %}``.

Quoting ends where the shell hands the word on: ``eval``, ``ssh`` or ``sh -c`` read their arguments once more, by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context  # noqa: TC002 - pass_context needs it at run time
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from agentnb.agents.quoting import Follower
from agentnb.errors import TemplateError

#: Longest text that a template may give, in characters.
MAX_LENGTH = 8 * 1024 * 1024
#: Longest text or list, and largest power, that ``*`` and ``**`` may make inside of a template.
_MAX_PRODUCT = 1_000_000

_TOO_LONG = f"it gives more than {MAX_LENGTH:,} characters"
_VALUES = "\0values"
_MARK = re.compile("\0(\\d+)\0")
_LITERAL_HINT = "for braces that belong to the text itself write {% raw %}{{ ... }}{% endraw %}"

#: What a shell line may hold besides values. Everything that captures output could hand quoted text on as if it were a value.
_SHELL_NODES = (nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Assign, nodes.With)


class _Raw(str):
    """A text that goes into a shell line as it is."""

    __slots__ = ()


class _Values(list[Any]):
    """The values of one shell line in order, and how many characters they have."""

    length = 0


class _Missing(StrictUndefined):
    """A value that is not there; says where it was looked for."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, place = self._undefined_name, self._undefined_obj
        if self._undefined_hint:
            return str(self._undefined_hint)
        if place is missing:
            return f"there is no value {name!r}"
        if isinstance(place, Mapping):
            return f"there is no {name!r} in {_names(place)}{_near(str(name), place)}"
        return f"a {type(place).__name__} has no {name!r}"


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with products and powers bounded."""

    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``x.items`` is what the data has under that name; a method only where there is none."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | bytes | list | tuple) and isinstance(other, int) and len(one) * other > _MAX_PRODUCT:
                raise SecurityError(f"{len(one)} * {other} items are too many (at most {_MAX_PRODUCT:,})")
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_PRODUCT:
            raise SecurityError("the power is too large")
        return super().call_binop(context, operator, left, right)


@pass_context
def _finalize(context: Context, value: Any) -> str:
    """The text of a value; for a shell line a mark, and the value is kept beside it: the two are never mixed before quoting."""
    text = str(value)
    if isinstance(value, str):
        pass
    elif value is None or text in {"nan", "NaT", "<NA>"}:
        raise ValueError(f"a value is missing ({text}); drop that row, or write {{{{ name | default('...', true) }}}}")
    elif callable(value):
        raise TypeError(f"a value is a {type(value).__name__}, which is no text")
    values: _Values | None = context.get(_VALUES)
    if values is None:
        return text
    values.append(value)
    values.length += len(text)
    if values.length > MAX_LENGTH:
        raise ValueError(_TOO_LONG)
    return f"\0{len(values) - 1}\0"


def _environment() -> _Environment:
    # "{#" must not open a comment, because ${#name} is shell; a NUL cannot occur in a command
    environment = _Environment(
        undefined=_Missing,
        finalize=_finalize,
        keep_trailing_newline=True,
        newline_sequence="\n",
        comment_start_string="\0#",
        comment_end_string="#\0",
        autoescape=False,
    )
    environment.globals = {"range": environment.globals["range"]}
    environment.filters["raw"] = _Raw
    return environment


_environment_ = _environment()


def render(text: str, params: Mapping[str, Any], *, shell: bool, what: str) -> str:
    """Fill `text` with `params`; with `shell`, each value becomes one quoted word.

    `what` names the template in messages. Raises TemplateError for a syntax error, a missing value, a value with a NUL
    character, and, with `shell`, for a value that stands where quoting cannot protect it.
    """
    if "{{" not in text and "{%" not in text:
        return text
    template = compiled(text, shell, what)
    try:
        if not shell:
            return _bounded(template, dict(params))
        values = _Values()
        return "".join(_shell_words(_bounded(template, dict(params) | {_VALUES: values}), values))
    except RecursionError:
        raise TemplateError(f"{what}: the template nests too deeply") from None
    except Exception as bad:  # noqa: BLE001 - an expression may do anything to a value: divide by zero, call a method that fails
        raise TemplateError(f"{what}: {_explain(bad, params)}") from None


def variables(text: str) -> set[str]:
    """The names that `text` takes from its parameters. Raises TemplateError if it does not parse."""
    found = meta.find_undeclared_variables(parsed(text, f"template {_short(text)}"))
    return {str(name) for name in found} - set(_environment_.globals)


def render_value(text: str, params: Mapping[str, Any], *, what: str = "value") -> Any:
    """Like `render`, for text; but a text that is exactly one ``{{ expression }}`` gives the value itself, of any type."""
    if "{{" not in text and "{%" not in text:
        return text
    match parsed(text, what).body:
        case [nodes.Output(nodes=[only])] if not isinstance(only, nodes.TemplateData):
            expression = text.strip().removeprefix("{{").removesuffix("}}").strip("-+ \t\n")
        case _:
            return render(text, params, shell=False, what=what)
    try:
        value = _expression(expression)(dict(params))
        if isinstance(value, StrictUndefined):
            str(value)  # raises, and says what is missing
    except Exception as bad:  # noqa: BLE001 - as in render
        raise TemplateError(f"{what}: {_explain(bad, params)}") from None
    return value


def parsed(text: str, what: str) -> nodes.Template:
    """The syntax tree of a template. Raises TemplateError when it does not parse."""
    if "\0" in text:
        raise TemplateError(f"{what}: it contains a NUL character")
    try:
        return _environment_.parse(text)
    except TemplateSyntaxError as bad:
        raise TemplateError(f"{what}: line {bad.lineno}: {bad.message}; {_LITERAL_HINT}") from None
    except RecursionError:
        raise TemplateError(f"{what}: the template nests too deeply") from None


@lru_cache(maxsize=256)
def compiled(text: str, shell: bool, what: str) -> Template:  # noqa: FBT001 - lru_cache takes arguments by position
    """A template, ready to be filled. Raises TemplateError, with `shell` also for blocks that a shell line cannot hold."""
    tree = parsed(text, what)
    if shell:
        for node in tree.find_all(nodes.Stmt):
            if not isinstance(node, _SHELL_NODES) or (isinstance(node, nodes.For) and node.recursive):
                raise TemplateError(
                    f"{what}: line {node.lineno}: a shell line can hold values, if, for and set; not {type(node).__name__.lower()} blocks",
                )
    try:
        return _environment_.from_string(text)
    except TemplateSyntaxError as bad:  # found when compiled only: an unknown filter or test
        raise TemplateError(f"{what}: line {bad.lineno}: {bad.message}; {_LITERAL_HINT}") from None


@lru_cache(maxsize=256)
def _expression(text: str) -> Callable[..., Any]:
    return _environment_.compile_expression(text, undefined_to_none=False)


def _bounded(template: Template, values: dict[str, Any]) -> str:
    pieces, length = [], 0
    for piece in template.generate(values):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_LENGTH:
            raise ValueError(_TOO_LONG)
    return "".join(pieces)


def _segments(rendered: str, values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Literal text and values by turns: (text, None) or ("", value)."""
    for number, part in enumerate(_MARK.split(rendered)):
        yield ("", values[int(part)]) if number % 2 else (part, None)


def _shell_words(rendered: str, values: list[Any]) -> Iterator[str]:
    follower, literal = Follower(), ""
    for text, value in _segments(rendered, values):
        if value is None or isinstance(value, _Raw):
            literal += text if value is None else _without_nul(value)
            continue
        follower.literal(literal)
        yield literal
        plain = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
        word = _without_nul(str(plain))
        try:
            quoted = follower.value(plain, word)
        except ValueError as bad:
            raise ValueError(f"the value after {_short(literal, last=True)} {bad}") from None
        yield quoted
        literal = ""
    yield literal


def _without_nul(word: str) -> str:
    if "\0" in word:
        raise ValueError(f"the value {_short(word)} contains a NUL character, which no process can be given")
    return str(word)


def _explain(bad: Exception, params: Mapping[str, Any]) -> str:
    text = str(bad) or type(bad).__name__
    if isinstance(bad, UndefinedError):
        found = re.fullmatch(r"there is no value '(.*)'", text)
        if found is None:  # the name is there, something in it is not
            return text
        return f"{text}; the parameters are {_names(params)}{_near(found[1], params)} ({_LITERAL_HINT})"
    return text if isinstance(bad, ValueError | SecurityError) else f"{type(bad).__name__}: {text}"


def _names(mapping: Mapping[Any, Any]) -> str:
    names = [str(name) for name in mapping]
    return (", ".join(names[:20]) + (", ..." if len(names) > 20 else "")) or "(none)"


def _near(name: str, mapping: Mapping[Any, Any]) -> str:
    near = get_close_matches(name, [str(key) for key in mapping], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _short(text: str, *, last: bool = False) -> str:
    limit = 40
    if len(text) <= limit:
        return repr(text)
    return repr("..." + text[-limit:]) if last else repr(text[:limit] + "...")
