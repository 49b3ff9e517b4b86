"""What a request can ask a provider for on our behalf, and who takes the question: its own cache diagnostics, and the
usage of a stream.

Anthropic: ``diagnostics.previous_message_id`` (``DiagnosticsParam`` of anthropic 2.12; the beta header
``cache-diagnosis-2026-04-07`` was needed while it was a beta, platform.claude.com/docs/en/build-with-claude/
cache-diagnostics). Claude API only. OpenAI Responses: ``prompt_cache_options.comparison_response_id`` (types of
openai 3.54), GPT-5.6 and later. Chat Completions and text completions: ``stream_options.include_usage``
(developers.openai.com/api/reference, streaming; most that speak the dialect take it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from otel_promptcache.providers._wire import mapping, string
from otel_promptcache.providers.rules import rules_for


class Asking(NamedTuple):
    """How one dialect asks."""

    hosts: tuple[str, ...]
    """Ends of the host names that take the question."""
    group: str
    field: str
    """The request's object and, in it, the field that names the earlier response."""
    opts_in: bool
    """Whether a response can be compared with only if its own request asked, if only with null."""
    beta: str = ""
    """The value of ``anthropic-beta`` that a deployment may still want."""
    on_platforms: bool = False
    """Whether the platforms that host the models take the question too."""


BETA_HEADER: Final = "anthropic-beta"
ASKING: Final[dict[str, Asking]] = {
    "anthropic": Asking(
        ("api.anthropic.com",), "diagnostics", "previous_message_id", opts_in=True, beta="cache-diagnosis-2026-04-07"
    ),
    "openai_responses": Asking(("api.openai.com",), "prompt_cache_options", "comparison_response_id", opts_in=False),
}

STREAM_USAGE: Final = Asking((), "stream_options", "include_usage", opts_in=False, on_platforms=True)
_STREAMS: Final = frozenset({"openai_chat", "openai_completions"})
_USAGE_UNASKED: Final = frozenset({"mistral_ai", "openrouter"})
"""Whose streams end with usage anyway (recorded streams; openrouter.ai/docs/client-sdks, ``ChatStreamOptions``: the
option has no effect). They are not asked, so nothing of theirs is kept from the application."""

UNCHANGED: Final = "null"
"""What stands for an answer that was asked for and is null: the provider saw no difference."""


def takes(dialect: str, host: str, provider: str, model: str, further: tuple[str, ...] = ()) -> bool:
    """Whether a question may be sent there: the provider's own hosts, this machine's (an emulator), and ``further``."""
    asking = ASKING.get(dialect)
    if asking is None:
        return False
    if dialect == "openai_responses" and not rules_for(provider, model).implicit_mark:
        return False
    known = any(host == end or host.endswith("." + end) for end in asking.hosts)
    return known or host in further or host in ("localhost", "::1") or host.startswith("127.")


def asked(dialect: str, body: Mapping[str, Any]) -> str | None:
    """The response that a request itself asks to be compared with, empty where it only opts in; None: it does not."""
    asking = ASKING.get(dialect)
    if asking is None or asking.group not in body:
        return None
    group = body[asking.group]
    if not isinstance(group, dict) or asking.field not in group:
        return "" if asking.opts_in else None
    return string(group[asking.field])


def lacks_usage(dialect: str, provider: str, body: Mapping[str, Any]) -> bool:
    """Whether a request is for a stream that would end without usage, and says nothing of it itself."""
    if dialect not in _STREAMS or provider in _USAGE_UNASKED or body.get("stream") is not True:
        return False
    said = body.get(STREAM_USAGE.group)
    return said is None or (isinstance(said, dict) and STREAM_USAGE.field not in said)


def brought_by_asking(document: object) -> bool:
    """Whether a chunk of a stream is there for nothing but the usage: all others have choices, or no usage."""
    return isinstance(document, dict) and document.get("choices") == [] and isinstance(document.get("usage"), dict)


def addition(asking: Asking, body: Mapping[str, Any], value: str | bool | None) -> dict[str, Any]:  # noqa: FBT001
    """What the question adds to a request's body, as the top-level field it goes into. ``body`` is left as it is."""
    return {asking.group: {**mapping(body.get(asking.group)), asking.field: value}}


_AS_A_FIELD: Final = r"(?:^|[^\w\s]\s*|\b(?:argument|field|input|key|parameter|property)s? )"
"""What stands in front of a name that a complaint is about; the same word may stand in anything that is quoted."""


def refuses(asking: Asking, complaint: str, body: Mapping[str, Any]) -> bool:
    """Whether a provider's complaint about a request is about the question that was added to ``body``."""
    names = [asking.field]
    if asking.beta:
        names.append(asking.beta)
    if any(name in complaint for name in names):
        return True
    # A group that the application has sent too may be refused for what it put there.
    return asking.group not in body and re.search(_AS_A_FIELD + re.escape(asking.group) + r"\b", complaint) is not None
