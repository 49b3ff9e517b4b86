"""Whether a prompt continues the one it should, asked of the diagnosis as if everything were cached for ever.

A test's prompts are short, its provider may be a mock that reports nothing, and whether an entry had expired is not
the question. So the same diagnosis is asked about the same prompts under rules that cache every prefix of any
length, at a moment that does not pass, and with a provider that has read nothing: what it then blames on the request
is a change.
"""

from __future__ import annotations

from typing import Final

from otel_promptcache import diagnosis, paths
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Link, Prompt, Scope, Usage
from otel_promptcache.providers import Dialect
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import PROMPT_CHANGED, Reason
from otel_promptcache.settings import Privacy
from otel_promptcache.testing.calls import Change

_ANY_PROVIDER: Final = ""
_TOKENS_A_BYTE: Final = 64
"""So many that no change is lost in the granule of tokens that prefixes are cached in."""


class Stability:
    """The prompts of a recording, compared as they are sent."""

    def __init__(self, segments: int) -> None:
        self._key = HashKey()
        self._memory = Memory(self._key, segments)
        self._marked: set[int] = set()
        """Numbers of the calls that asked for caching."""

    def sent(
        self, prompt: Prompt, scope: Scope, dialect: Dialect, *, number: int, route: str, conversation: str
    ) -> tuple[Sight, Change | None]:
        """What has changed since the earlier prompt that this one should continue."""
        scope = scope._replace(provider=_ANY_PROVIDER)
        link = Link(0, number)
        sight = self._memory.sent(prompt, scope, now=0.0, route=route, conversation=conversation, link=link)
        self._memory.describe(prompt, sight)
        size = sight.nodes.size(len(sight.nodes)) if sight.nodes else 0
        nothing_read = Usage(input_total=_TOKENS_A_BYTE * size, read=0)
        found = diagnosis.diagnose(prompt, sight, nothing_read, rules_for(_ANY_PROVIDER, prompt.model))
        self._memory.begun(sight)
        self._memory.ended(sight, nothing_read, "", None)
        if prompt.automatic or prompt.breakpoints:
            self._marked.add(number)
        if found.reason not in PROMPT_CHANGED:
            return sight, self._lost_marker(sight, number)
        path = ""
        if found.place is not None:
            path = paths.at(dialect, found.place, found.field, Privacy.HASHES, self._key)
        earlier = found.link.span_id if found.link is not None else 0
        return sight, Change(found.reason, found.cause, path, found.line, earlier)

    def _lost_marker(self, sight: Sight, number: int) -> Change | None:
        """A call with the whole of an earlier prompt that no longer asks for caching as that one did."""
        earlier = sight.previous
        if number in self._marked or earlier is None or earlier.link is None or earlier.leaf is None:
            return None
        if earlier.leaf.length != sight.shared or earlier.link.span_id not in self._marked:
            return None
        return Change(Reason.BREAKPOINT_MISSING, None, "", None, earlier.link.span_id)

    def answered(self, sight: Sight, response_id: str) -> None:
        """The id by which a later request may name this one."""
        self._memory.ended(sight, None, response_id, None)
