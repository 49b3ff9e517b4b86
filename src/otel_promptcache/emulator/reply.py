"""What the stand-in model says: a short deterministic text, a value that fits a JSON schema, a forced tool call.

A demo or a test replaces ``default`` by any function of the request body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from otel_promptcache.providers._wire import as_list, mapping, string

MAX_DEPTH: Final = 24
"""Levels of a schema that are filled in; a schema that never ends gets null there."""

MAX_SIZE: Final = 10_000
"""Items or characters that a schema may demand."""

_FORMATS: Final[dict[str, str]] = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "ok@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: text, and tool calls as (name, arguments)."""

    text: str = ""
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()


class SchemaError(ValueError):
    """The request asks for an answer in a form that is none. Providers refuse such a request."""


Answer = Callable[[Mapping[str, Any]], Reply]
"""The stand-in model: request body to reply. Called on the server's event loop, so it must not wait for anything."""


def default(body: Mapping[str, Any]) -> Reply:
    """Fills in the schema that is asked for, calls the tool that is forced, else says something short."""
    forced = _forced_tool(body)
    if forced is not None:
        name, schema = forced
        return Reply(tool_calls=((name, mapping(instance(schema))),))
    wanted = schema_of(body)
    if wanted is not None:
        return Reply(json.dumps(instance(wanted)))
    newest = next((said[-1] for field in _SAID if (said := as_list(body.get(field)))), "")
    digest = blake2b(json.dumps(newest).encode(), digest_size=3).hexdigest()
    return Reply(f"This is answer {digest}.")


_SAID: Final = ("messages", "input", "contents")
"""Where the dialects put what was said."""


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema that an answer must fit, wherever the dialect puts it."""
    chat = mapping(body.get("response_format"))
    generation = mapping(body.get("generationConfig"))
    for form in (
        mapping(mapping(body.get("output_config")).get("format")),
        mapping(body.get("output_format")),
        mapping(mapping(body.get("text")).get("format")),
        {**chat, **mapping(chat.get("json_schema"))},
        {"schema": generation.get("responseSchema") or generation.get("responseJsonSchema")},
    ):
        if isinstance(form.get("schema"), dict):
            return mapping(form["schema"])
        if form.get("type") == "json_object":
            return _ANSWER
    return None


_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}


def _forced_tool(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Name and parameter schema of the tool that the request makes the model call."""
    choice = body.get("tool_choice")
    tools = [_definition(mapping(tool)) for tool in as_list(body.get("tools"))]
    calling = mapping(mapping(body.get("toolConfig")).get("functionCallingConfig"))
    if calling.get("mode") == "ANY":
        return _gemini_tool(body, as_list(calling.get("allowedFunctionNames")))
    if isinstance(choice, dict):
        name = string(choice.get("name")) or string(mapping(choice.get("function")).get("name"))
        if not name and choice.get("type") == "any" and tools:
            return tools[0]
        return next((tool for tool in tools if tool[0] == name), None) if name else None
    return tools[0] if choice == "required" and tools else None


def _gemini_tool(body: Mapping[str, Any], allowed: Sequence[object]) -> tuple[str, Mapping[str, Any]] | None:
    """The first function that Gemini may call: a tool there holds any number of them."""
    declared = [
        one for tool in as_list(body.get("tools")) for one in as_list(mapping(tool).get("functionDeclarations"))
    ]
    for one in map(mapping, declared):
        if not allowed or one.get("name") in allowed:
            return string(one.get("name")), mapping(one.get("parametersJsonSchema") or one.get("parameters"))
    return None


def _definition(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    inner = {**tool, **mapping(tool.get("function"))}
    return string(inner.get("name")), mapping(inner.get("input_schema") or inner.get("parameters"))


# --- A value for a schema -----------------------------------------------------------------------------------


def instance(schema: Mapping[str, Any]) -> Any:
    """The plainest value that fits a JSON schema: required properties only, first choices, smallest numbers.

    Raises ``SchemaError`` for what is no schema.
    """
    try:
        return _value(schema, schema, 0)
    except (TypeError, ValueError, LookupError) as error:
        raise SchemaError(f"Invalid schema for the answer: {error}") from error


def _value(schema: object, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(_resolve(string(schema["$ref"]), root), root, depth + 1)
    for field in ("const", "default"):
        if field in schema:
            return schema[field]
    if as_list(schema.get("enum")):
        return schema["enum"][0]
    for field in ("anyOf", "oneOf"):
        if as_list(schema.get(field)):
            return _value(schema[field][0], root, depth + 1)
    if as_list(schema.get("allOf")):
        return _value(_merged(schema["allOf"], root), root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    match kind.lower() if isinstance(kind, str) else kind:  # Gemini writes them large
        case "object":
            properties = mapping(schema.get("properties"))
            return {name: _value(properties.get(name, {}), root, depth + 1) for name in as_list(schema.get("required"))}
        case "array":
            return [_value(schema.get("items", {}), root, depth + 1)] * _least(schema, "minItems")
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            text = _FORMATS.get(string(schema.get("format")), "ok").ljust(_least(schema, "minLength"), ".")
            return text[: schema.get("maxLength")]


def _least(schema: Mapping[str, Any], name: str) -> int:
    least: int = schema.get(name, 0)
    if least > MAX_SIZE:
        raise ValueError(f"{name} of {least} is more than {MAX_SIZE}")
    return least


def _number(schema: Mapping[str, Any]) -> float:
    least: float = schema.get("minimum", 0)
    above = schema.get("exclusiveMinimum")
    if isinstance(above, int | float) and not isinstance(above, bool):
        least = max(least, above + 1)
    most: float = schema.get("maximum", least)
    return min(least, most)


def _merged(schemas: Sequence[object], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """All parts of an ``allOf`` as one schema."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        reference = string(mapping(schema).get("$ref"))
        part = mapping(_resolve(reference, root) if reference else schema)
        properties = {**mapping(merged.get("properties")), **mapping(part.get("properties"))}
        required = [*as_list(merged.get("required")), *as_list(part.get("required"))]
        merged = {**merged, **part}
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _resolve(reference: str, root: Mapping[str, Any]) -> object:
    """What a reference within the same document points to."""
    found: object = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = mapping(found).get(name.replace("~1", "/").replace("~0", "~"))
    return found
