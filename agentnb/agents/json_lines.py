"""Programs that print JSON lines as targets, and the work of every agent whose stream a parser reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentnb.agents import filling
from agentnb.agents.adapters import Asked, Features
from agentnb.engine.parsing import folder_of
from agentnb.programs import JsonLines


def stream_work(argv: list[str], parser: str, **options: Any) -> dict[str, Any]:
    """The parts of an engine Work that runs `argv` and has `parser` (``module:attribute``, called with `options`) read its stdout.

    The protocol of parsers is in engine/parsing.py; a parser's module is imported by the supervisor, from the folder where it is here.
    """
    work: dict[str, Any] = {"argv": argv, "parser": parser, "parser_options": options}
    if (folder := folder_of(parser.partition(":")[0])) is not None:
        work["parser_path"] = folder
    return work


class _JsonLinesAdapter:
    features = Features(steps=True, tokens=True, cost=True, agent=True)

    def missing(self) -> str:
        return ""

    def fill(self, spec: JsonLines, params: Mapping[str, Any]) -> JsonLines:
        shown = filling.short(spec.display)
        argv = [filling.text(word, params, f"argument {number} of {shown}") for number, word in enumerate(spec.argv)]
        return filling.again(spec, {"argv": argv})

    def work(self, spec: JsonLines, _: Asked) -> dict[str, Any]:
        return stream_work(list(spec.argv), "agentnb.agents.json_stream:JsonStream", text=spec.text, output=spec.output)


JSON_LINES = _JsonLinesAdapter()
