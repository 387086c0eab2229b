"""JSON Schemas of spec files, for editors: made of the models, with what their validators take where pydantic cannot know it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from agentnb.a2a import AgentUrl, JsonPart, Message, Modes
from agentnb.agents.spec import AgentSpec, FunctionName, Tags
from agentnb.agents.swarm_file import SOURCES, SwarmFile
from agentnb.commands import Argv, CommandText, Folder
from agentnb.data import Bytes, Data, Env, JsonSchema, Seconds
from agentnb.execution import ExecutionConfig, HandlerSpec, Pattern
from agentnb.programs import Claude
from agentnb.prompts import ROLES, ApiKey, Extra, Headers, Messages, ModelName, PromptText, ServerUrl
from agentnb.workspaces import Folder as WorkspaceFolder

Json = dict[str, Any]
_MODELS: dict[str, type[Data]] = {"agent": AgentSpec, "swarm": SwarmFile}

_NO_NUL = "[^\\u0000]*"
_TEXT: Json = {"type": "string", "pattern": f"^{_NO_NUL}$"}
_SOME_TEXT: Json = {"type": "string", "pattern": f"^{_NO_NUL}[^\\s\\u0000]{_NO_NUL}$"}
_SCALAR: Json = {"anyOf": [_TEXT, {"type": ["number", "boolean"]}]}
_NUMBER = r"[0-9]{1,15}(\.[0-9]{1,15})?"
_SOME = r"(?=.*[1-9])"
_WORKSPACES = frozenset({"Worktree", "TempCopy", "Shared"})
#: The keys that a file begins with.
_FIRST = ("apiVersion", "kind", "id", "description", "tags", "input", "output", "command", "workers", "flow", "on_failure", "runtime")
_NULL: Json = {"type": "null"}


def _durations(*, positive: bool) -> Json:
    number: Json = {"type": "number", ("exclusiveMinimum" if positive else "minimum"): 0, "maximum": 1e300}
    text = rf"^{_SOME if positive else ''}\s*({_NUMBER}|({_NUMBER}\s*(ms|s|m|h|d|w)\s*)+)\s*$"
    return {"anyOf": [number, {"type": "string", "pattern": text}], "description": "seconds, or text such as 90s, 5m, 1h30m"}


_THOUSANDS = r"[0-9]{1,6}(\.[0-9]{1,3})?\s*(k|[kKMGT]B|[KMGT])"
_SIZES: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        {"type": "string", "pattern": rf"^\s*([0-9]{{1,18}}\s*B?|{_THOUSANDS}|[0-9]{{1,6}}(\.(5|25|75))?\s*[KMGT]iB)\s*$"},
    ],
    "description": "bytes, or text such as 2GiB, 5MB",
}
_NAMED = {"type": "object", "propertyNames": {"pattern": "^[^=\\u0000]+$"}, "additionalProperties": _SCALAR}
_HEADERS = {
    "type": "object",
    "propertyNames": {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    "additionalProperties": {"anyOf": [{"type": "string", "pattern": "^[ -~]*$"}, {"type": ["number", "boolean"]}]},
}
_WORDS = {"type": "array", "minItems": 1, "items": _SCALAR, "prefixItems": [{"anyOf": [_SOME_TEXT, {"type": ["number", "boolean"]}]}]}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "additionalProperties": False,
    "properties": {"role": {"enum": list(ROLES)}, "content": _SOME_TEXT},
}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, _NULL]}


def _list(item: Json) -> Json:
    return {"type": "array", "items": item}


def _function(annotated: Any) -> Callable[..., Any]:
    """The function that looks at a value first."""
    found: Callable[..., Any] = annotated.__metadata__[0].func
    return found


def _of_field(cls: Any, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = cls.model_fields[name].metadata[0].func
    return found


#: What validators take that look at a value before pydantic does.
_KNOWN: dict[Any, Json] = {
    _function(Seconds): _durations(positive=False),
    _function(Bytes): _SIZES,
    _function(Env): _NAMED,
    _function(Headers): _HEADERS,
    _function(JsonSchema): {"type": "object", "description": "a JSON Schema"},
    _function(Argv): _WORDS,
    _function(CommandText): _SOME_TEXT,
    _function(PromptText): _SOME_TEXT,
    _function(ModelName): _SOME_TEXT,
    _function(Message): _or_null(_SOME_TEXT),
    _function(Folder): _or_null(_TEXT),
    _function(WorkspaceFolder): _TEXT | {"minLength": 1},
    _function(ServerUrl): {"type": "string", "pattern": "^https?://"},
    _function(AgentUrl): {"type": "string", "pattern": "^https?://"},
    _function(ApiKey): {
        "type": ["string", "null"],
        "pattern": "^[A-Z_][A-Z0-9_]*$",
        "description": "the environment variable with the key",
    },
    _function(Extra): {"type": "object"},
    _function(JsonPart): {"type": ["object", "null"]},
    _function(Messages): _list(_MESSAGE),
    _function(Modes): {"type": ["array", "string"], "items": {"type": "string", "pattern": "^[!-.0-~]*/[!-.0-~]*$"}},
    _function(Pattern): {"type": "string", "format": "regex"},
    _function(FunctionName): {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_.]*$"},
    _function(Tags): {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
    _of_field(Claude, "context"): {"anyOf": [{"type": ["string", "null"]}, _list(_SOME_TEXT)]},
    _of_field(Claude, "tools"): {"type": ["array", "null"], "items": {"type": "string", "pattern": "^[^-\\s]"}},
    _of_field(Claude, "mcp_config"): {"type": ["string", "object", "null"]},
    _of_field(ExecutionConfig, "inputs"): {"anyOf": [_SOME_TEXT, _list(_SOME_TEXT)]},
}


class _Generator(GenerateJsonSchema):
    """Says what validators take."""

    def function_before_schema(self, schema: Any) -> Json:
        look = schema["function"]["function"]
        if look is _function(HandlerSpec):
            return {"anyOf": [deepcopy(_SOME_TEXT), *super().function_before_schema(schema)["anyOf"]]}
        return dict(deepcopy(_KNOWN[look]) if look in _KNOWN else super().function_before_schema(schema))

    def tagged_union_schema(self, schema: Any) -> Json:
        found = dict(super().tagged_union_schema(schema))
        return found | ({"required": [schema["discriminator"]]} if isinstance(schema["discriminator"], str) else {})


def schema_of(kind: str) -> Json:
    """The JSON Schema (draft 2020-12) of files of a kind, "agent" or "swarm"."""
    found = _MODELS[kind].model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions: Json = found.pop("$defs")
    for definition in [found, *definitions.values()]:
        _settle(definition.get("properties", {}))
    for name in _WORKSPACES & definitions.keys():
        definitions[name]["required"] = ["type", *definitions[name].get("required", [])]
    if kind == "swarm":
        _choices(definitions)
    if "Handler" in definitions:
        command = definitions["Handler"]["properties"]["command"]
        command["anyOf"] = [_SOME_TEXT, *command["anyOf"]]
    properties = {name: found["properties"][name] for name in _FIRST if name in found["properties"]} | found.pop("properties")
    found["title"] = f"agentnb {kind} file"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found | {"properties": properties, "$defs": definitions}


def _settle(properties: Json) -> None:
    """What validators of single fields take; names that are made of names say nothing."""
    for name, schema in properties.items():
        schema.pop("title", None)
        if name == "timeout":
            properties[name] = _or_null(_durations(positive=True))
        elif name == "ref":
            properties[name] = _SOME_TEXT | {"default": "HEAD"}
        elif name == "artifacts":
            properties[name] = {"anyOf": [{"type": "string"}, _list({"type": "string"})], "default": []}
        elif name in {"condition", "while"} and {"type": "boolean"} in schema.get("anyOf", []):
            properties[name] = {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": r"\{[{%]"}]}


def _choices(definitions: Json) -> None:
    """Of some keys there is exactly one."""
    worker, loop = definitions["Worker"], definitions["Loop"]
    for owner, names in ((worker, SOURCES), (loop, ("over", "while", "as"))):
        owner["properties"] |= {name: _not_null(owner["properties"][name]) for name in names}
    worker["properties"]["spec"] = {"anyOf": [_SOME_TEXT, {"type": "object"}]}
    worker["oneOf"] = [{"required": [name]} for name in SOURCES]
    loop["oneOf"] = [{"required": ["over"]}, {"required": ["while"], "not": {"required": ["as"]}}]


def _not_null(schema: Json) -> Json:
    options: list[Json] = [option for option in schema.get("anyOf", [schema]) if option != _NULL]
    return options[0] if len(options) == 1 else {"anyOf": options}
