"""Places in a request body, and how much of them may be shown.

A path is wire field names and positions. Field names that the APIs define say nothing about anybody; every other key
(a property of a tool's schema, an argument) is the application's, and is readable only from the step ``names`` of
``OTEL_PROMPTCACHE_PRIVACY`` on.
"""

from __future__ import annotations

import re
from typing import Final

from otel_promptcache.fingerprint import HashKey
from otel_promptcache.model import Segment
from otel_promptcache.providers import Dialect
from otel_promptcache.settings import Privacy

Path = tuple[str | int, ...]

_NAMES: Final = """
    additionalProperties allOf allowed_tools annotations anyOf args arguments audio betas budget_tokens
    cache_control cache_salt cachedContent call_id chat_template chat_template_kwargs citations content
    content_blocks contents context_management conversation data default definitions description detail
    disable_parallel_tool_use display document effort encrypted_content enum file file_data file_id file_url
    fileData filename fileUri format function functionCall functionDeclarations functionResponse
    generationConfig id image image_url include inlineData input input_audio input_schema instructions is_error
    items json_schema lora_path lora_request max_tokens max_uses media_type messages metadata mime_type mimeType
    mode model name oneOf output output_config output_format parallel_tool_calls parameters parts pattern phase
    previous_message_id previous_response_id prompt_cache_breakpoint prompt_cache_key prompt_cache_retention
    properties reasoning reasoning_content reasoning_effort refusal required response response_format
    responseSchema result results retention role schema server_label server_url service_tier signature source
    speed status stream strict summary system systemInstruction text thinking thread title tool_call_id
    tool_calls tool_choice tool_name tool_use_id toolConfig tools ttl type url user_location verbosity
"""
WIRE: Final = frozenset(_NAMES.split())
"""Names that the providers' APIs and JSON Schema define."""

_FREE: Final = frozenset({"args", "arguments", "input", "metadata"})
"""Objects whose keys are the application's, all the way down; as a list, ``input`` is the API's."""

_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def parsed(path: str) -> Path:
    """The steps of a path as the dialects write it: ``messages[3].content[0]``."""
    return tuple(int(index) if index else name for index, name in _STEP.findall(path))


def shown(path: Path, privacy: Privacy, key: HashKey) -> str:
    """A path as this step of the ladder may show it: ``tools[3].input_schema.properties.[key:3f2a]``."""
    text = ""
    for place, step in enumerate(path):
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        own = _own(path, place) or step not in WIRE
        name = shown_name(step, privacy, key) if own else step
        text += f".{name}" if text else name
    return text


def at(dialect: Dialect, place: Segment, field: Path, privacy: Privacy, key: HashKey) -> str:
    """Where something differs: a segment's own path, which only names of the API are in, and the field within."""
    front, within = dialect.path(place), shown(field, privacy, key)
    return f"{front}.{within}" if field and isinstance(field[0], str) else front + within


def _own(path: Path, place: int) -> bool:
    """Whether the application chose this key, whatever it is called: the names of a schema's properties, and
    everything in the arguments of a tool."""
    if place and path[place - 1] == "properties" and not (place > 1 and path[place - 2] == "properties"):
        return True
    return any(path[at] in _FREE and isinstance(path[at + 1], str) for at in range(place))


def shown_name(name: str, privacy: Privacy, key: HashKey) -> str:
    """A tool's name, or a key of the application's own, as this step of the ladder may show it."""
    return key.name(name) if privacy is Privacy.HASHES else name
