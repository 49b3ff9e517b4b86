"""The providers' own cache diagnostics: how a request asks for them, and who takes the question.

Anthropic: ``diagnostics.previous_message_id`` (``DiagnosticsParam`` of anthropic 2.12; the beta header
``cache-diagnosis-2026-04-07`` was needed while it was a beta, platform.claude.com/docs/en/build-with-claude/
cache-diagnostics). Claude API only. OpenAI Responses: ``prompt_cache_options.comparison_response_id`` (types of
openai 3.54), GPT-5.6 and later.
"""

from __future__ import annotations

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


BETA_HEADER: Final = "anthropic-beta"
ASKING: Final[dict[str, Asking]] = {
    "anthropic": Asking(
        ("api.anthropic.com",), "diagnostics", "previous_message_id", opts_in=True, beta="cache-diagnosis-2026-04-07"
    ),
    "openai_responses": Asking(("api.openai.com",), "prompt_cache_options", "comparison_response_id", opts_in=False),
}

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


def addition(dialect: str, body: Mapping[str, Any], previous_id: str) -> dict[str, Any]:
    """What the question adds to a request's body, as the top-level field it goes into. ``body`` is left as it is."""
    asking = ASKING[dialect]
    return {asking.group: {**mapping(body.get(asking.group)), asking.field: previous_id or None}}


def refuses(dialect: str, complaint: str, body: Mapping[str, Any]) -> bool:
    """Whether a provider's complaint about a request (HTTP 400) is about the question that was added to ``body``."""
    asking = ASKING[dialect]
    names = [asking.field]
    if asking.beta:
        names.append(asking.beta)
    if asking.group not in body:  # else the complaint may be about what the application put there
        names.append(asking.group)
    return any(name in complaint for name in names)
