"""Requests that carry no prompt to a model but have to do with its price: counting tokens, and batches.

A batch is submitted by one request and paid for item by item in its results, which may be read as often as one likes:
Anthropic's as a stream of JSON lines (platform.claude.com/docs/en/build-with-claude/batch-processing), OpenAI's as the
content of an output file that the batch names when it is done (developers.openai.com/api/docs/guides/batch). A response
that is made in the background has its usage when it is done, in answer to whoever asks for it then
(developers.openai.com/api/docs/guides/background).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from otel_promptcache.model import Answer
from otel_promptcache.providers import Dialect, anthropic, openai_chat, openai_completions, openai_responses
from otel_promptcache.providers._wire import as_list, count, mapping, string

MAX_ID: Final = 256


class Kind(StrEnum):
    """What a request is for; the value is its ``gen_ai.operation.name``."""

    COUNT = "count_tokens"
    SUBMIT = "create_batch"
    LOOK = "retrieve_batch"
    """Asks how a batch is getting on. Not observed, but the answer may name the file of its results."""
    FETCH = "fetch_response"
    POLL = "retrieve_response"
    """Asks for a response that is made in the background, or cancels it. Not observed until the answer is there."""


class Errand(NamedTuple):
    """One such request. ``subject`` is the id of the batch or file in its URL, where there is one."""

    kind: Kind
    subject: str = ""


_PATHS: Final[tuple[tuple[str, Kind, re.Pattern[str]], ...]] = (
    ("post", Kind.COUNT, re.compile(r"/messages/count_tokens$|/responses/input_tokens$")),
    ("post", Kind.SUBMIT, re.compile(r"/batches$")),
    ("get", Kind.FETCH, re.compile(r"/messages/batches/([^/]+)/results$")),
    ("get", Kind.FETCH, re.compile(r"/files/([^/]+)/content$")),
    ("get", Kind.POLL, re.compile(r"/responses/([^/]+)$")),
    ("post", Kind.POLL, re.compile(r"/responses/([^/]+)/cancel$")),
    ("get", Kind.LOOK, re.compile(r"/batches(?:/([^/]+))?$")),
)


def errand_for(method: str, url: str) -> Errand | None:
    """The errand of a request, None for any other."""
    path = url.partition("?")[0].rstrip("/")
    for verb, kind, pattern in _PATHS:
        if verb == method and (found := pattern.search(path)) is not None:
            return Errand(kind, (found[1] or "") if found.re.groups else "")
    return None


def counted(document: Mapping[str, Any]) -> int | None:
    """The count that was asked for."""
    return count(document.get("input_tokens"))


def submitted(body: Mapping[str, Any]) -> int | None:
    """How many requests the body of a new batch has; None where they are in a file."""
    requests = body.get("requests")
    return len(requests) if isinstance(requests, (list, tuple)) else None


def batches(document: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(id, files of its results) of the batches that an answer describes: one, or a list of them."""
    found = []
    for one in as_list(document.get("data")) or [document]:
        batch = mapping(one)
        if identity := _identity(batch.get("id")):
            found.append((identity, tuple(filter(None, [_identity(batch.get("output_file_id"))]))))
    return found


def _identity(value: object) -> str:
    """An id; empty where it is none, or too long to be remembered."""
    found = string(value)
    return found if len(found) <= MAX_ID else ""


class Item(NamedTuple):
    """One request of a batch, answered."""

    custom_id: str
    dialect: Dialect
    answer: Answer


_OBJECTS: Final[dict[str, Dialect]] = {
    "chat.completion": openai_chat,
    "response": openai_responses,
    "text_completion": openai_completions,
}


def is_line_of_results(line: object) -> bool:
    """Whether a line of a file is one of a batch's results, answered or not."""
    return isinstance(line, dict) and "custom_id" in line and ("result" in line or "response" in line)


def item(line: Mapping[str, Any]) -> Item | None:
    """The item in a line of results; None for one that failed, expired or was canceled, which costs nothing."""
    result, response = mapping(line.get("result")), mapping(line.get("response"))
    if result.get("type") == "succeeded":
        document, dialect = mapping(result.get("message")), _MESSAGES
    else:
        document = mapping(response.get("body"))
        known = _OBJECTS.get(string(document.get("object")))
        if known is None:
            return None
        dialect = known
    answer = dialect.answer(document)
    if answer.usage is None or answer.error_type:
        return None
    priced = answer.usage._replace(processing="batch")
    return Item(string(line.get("custom_id")), dialect, answer._replace(usage=priced))


_MESSAGES: Final[Dialect] = anthropic
