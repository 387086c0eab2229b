"""What a template reads: the names it takes, and of ``steps`` and ``input`` which ones, without filling it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import meta, nodes

from agentnb.agents import template
from agentnb.errors import TemplateError


@dataclass(frozen=True, slots=True)
class Reads:
    """`roots`: the names it takes; `steps`, `input`: which of theirs it names outright; `whole`: it takes ``input`` as such, too."""

    roots: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    input: frozenset[str] = frozenset()
    whole: bool = False


def is_template(text: str) -> bool:
    """Whether there is anything to fill."""
    return "{{" in text or "{%" in text


def reads(text: str, *, shell: bool = False) -> Reads:
    """What `text` reads. Raises TemplateError when it is no template that could be filled."""
    if not is_template(text):
        return Reads()
    template.compiled(text, shell, "")
    tree = template.parsed(text, "")
    roots = frozenset(map(str, meta.find_undeclared_variables(tree))) - {"range"}
    named = sum(_is(node.node, "input") for node in tree.find_all(nodes.Getattr))
    named += sum(_is(node.node, "input") for node in tree.find_all(nodes.Getitem))
    whole = sum(_is(node, "input") for node in tree.find_all(nodes.Name)) > named
    return Reads(roots, _of(tree, "steps"), _of(tree, "input"), whole)


def complaint(text: str, *, shell: bool = False) -> str:
    """Why `text` cannot be filled, whatever with; "" when it can."""
    try:
        reads(text, shell=shell)
    except TemplateError as bad:
        return str(bad).removeprefix(": ")
    return ""


def _of(tree: nodes.Template, root: str) -> frozenset[str]:
    """The first parts of ``root.x`` and ``root['x']``."""
    dotted = [node.attr for node in tree.find_all(nodes.Getattr) if _is(node.node, root)]
    bracketed = [node.arg.value for node in tree.find_all(nodes.Getitem) if _is(node.node, root) and isinstance(node.arg, nodes.Const)]
    return frozenset([*dotted, *(value for value in bracketed if isinstance(value, str))])


def _is(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name and node.ctx == "load"
