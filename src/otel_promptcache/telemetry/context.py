"""What the surrounding spans say of a call: whose span it is, which route it serves, which conversation it is in."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple
from weakref import ref

from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind

from otel_promptcache import semconv
from otel_promptcache.vocabulary.backends import OI_KIND

_LLM_OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "responses"})
_ENTRY_ROUTES: Final = ("http.route", "messaging.destination.name", "celery.task_name")
NATIVE_SCOPE: Final = "com.anthropic.sdk"
"""Scope of the spans that the anthropic SDK emits itself. It records no metrics, and no usage of raw streams."""
_MOST_CONSUMED: Final = 8192
"""Claimed spans that are remembered."""
_TASK: Final = "run/"
"""How Celery's instrumentation begins the name of a task's span; the attribute it sets only when the task is over."""

_entry: ContextVar[Span | Unsampled | None] = ContextVar("otel_promptcache_entry", default=None)
_outer: ContextVar[Span | Unsampled | None] = ContextVar("otel_promptcache_outer", default=None)
_newest: ContextVar[Span | None] = ContextVar("otel_promptcache_newest", default=None)
_around: ContextVar[tuple[Span, Span, Span | None] | None] = ContextVar("otel_promptcache_around", default=None)
"""The newest model span, the one it was started in, and the model span before it that no call had claimed."""


class Unsampled(NamedTuple):
    """An entry span that a sampler dropped. Processors never hear of it, and routes must not depend on sampling."""

    trace_id: int
    route: str


def span_attributes(span: Span) -> Any:
    """The attributes an SDK span was given so far; empty for spans of no SDK."""
    return getattr(span, "attributes", None) or {}


def is_llm(span: Span) -> bool:
    """Whether a span stands for one model call: a CLIENT span of such an operation, or one that OpenInference or
    traceAI calls LLM."""
    found = span_attributes(span)
    if found.get(OI_KIND) == "LLM" or found.get("gen_ai.span.kind") == "LLM":
        return True
    return getattr(span, "kind", None) is SpanKind.CLIENT and found.get(semconv.OPERATION) in _LLM_OPERATIONS


class Watcher:
    """Span processor: remembers, in context, the newest model span and the innermost entry span.

    It reads two attributes of each starting span and exports nothing.
    """

    def on_start(self, span: Any, parent_context: context.Context | None = None) -> None:
        # Runs inside the application's start_span: a span that we cannot read is none that we look for.
        try:
            kind = span.kind
            if kind is SpanKind.SERVER or kind is SpanKind.CONSUMER:
                _outer.set(_entry.get())
                _entry.set(span)
            elif scope_name(span) != semconv.SCOPE and is_llm(span) and is_instrumentation_enabled():
                _around.set((span, trace.get_current_span(parent_context), _newest.get()))
                _newest.set(span)
        except Exception:  # noqa: S110
            pass

    def _on_ending(self, span: Any) -> None:
        """Part of the SDK's processor interface."""

    def on_end(self, span: Any) -> None:
        """An entry span inside another one gives the place back. The outermost keeps it: work may go on after it."""
        try:
            if span.kind is not SpanKind.SERVER and span.kind is not SpanKind.CONSUMER:
                return
            entry, outer = _entry.get(), _outer.get()
            if not isinstance(entry, Span) or not isinstance(outer, Span):
                return
            if outer.is_recording() and span.context.span_id == entry.get_span_context().span_id:
                _entry.set(outer)
        except Exception:  # noqa: S110
            pass

    def shutdown(self) -> None:
        """Part of the SDK's processor interface."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        return True


_heard: Final[list[Any]] = []
"""Samplers that tell us of entry spans."""


def hear_of_unsampled(provider: Any) -> None:
    """Has the sampler of a provider tell us of entry spans, since a dropped one is shown to nobody else.

    Their route is known when their instrumentation gives it at the start of the span, as those of FastAPI, Starlette
    and Flask do.
    """
    sampler: Any = getattr(provider, "sampler", None)
    decide = getattr(sampler, "should_sample", None)
    if decide is None or getattr(decide, "promptcache", False):
        return

    @functools.wraps(decide)
    def heard(  # the names are the SDK's: somebody's sampler may pass them on by name
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        if kind is SpanKind.SERVER or kind is SpanKind.CONSUMER:
            with contextlib.suppress(Exception):
                # A span that is recorded takes this place in a moment.
                _entry.set(Unsampled(trace_id, _route_in(attributes or {}, name)))
        return decide(parent_context, trace_id, name, kind, attributes, *rest, **more)

    heard.promptcache = True  # type: ignore[attr-defined]
    with contextlib.suppress(Exception):  # a sampler with slots: then as if there were none
        sampler.should_sample = heard
        _heard.append(sampler)


def hear_no_more() -> None:
    """Gives the samplers back. One that somebody else has wrapped since keeps ours inside, which only takes notes."""
    while _heard:
        sampler = _heard.pop()
        if getattr(vars(sampler).get("should_sample"), "promptcache", False):
            with contextlib.suppress(AttributeError):
                del sampler.should_sample


def scope_name(span: Span) -> str:
    scope = getattr(span, "instrumentation_scope", None)
    return getattr(scope, "name", "") or ""


class Known:
    """Objects by identity, for as long as they live: somebody's provider may have no hash."""

    def __init__(self) -> None:
        self._references: dict[int, ref[Any]] = {}

    def add(self, one: object) -> None:
        place, references = id(one), self._references
        references[place] = ref(one, lambda _: references.pop(place, None))

    def __contains__(self, one: object) -> bool:
        found = self._references.get(id(one))
        return found is not None and found() is one


class Owners:
    """Finds the span that already stands for a call, each at most once."""

    def __init__(self) -> None:
        self._consumed: dict[int, None] = {}
        """Ids, the oldest first: some SDKs hand out a wrapper here and what is in it there."""

    def claim(self) -> Span | None:
        """The current span, else the newest model span begun in this context, if it stands for one model call and no
        other call has claimed it; None when the call has no span yet."""
        for span in candidates():
            place = span.get_span_context().span_id
            if place not in self._consumed:
                self._consumed[place] = None
                if len(self._consumed) > _MOST_CONSUMED:
                    for one in list(self._consumed)[: _MOST_CONSUMED // 2]:
                        self._consumed.pop(one, None)
                _newest.set(None)
                return span
        return None


def candidates() -> list[Span]:
    """Open spans of others that may stand for a call which is made now.

    Where instrumentation is suppressed, one that was begun before: what begins later may never be exported. The SDK's
    own span does not heed it.
    """
    newest, current = _newest.get(), trace.get_current_span()
    if not is_instrumentation_enabled() and (newest is not None or scope_name(current).startswith(NATIVE_SCOPE)):
        current = trace.INVALID_SPAN
    return [
        span
        for span in (current, newest)
        if span is not None
        and span is not trace.INVALID_SPAN
        and scope_name(span) != semconv.SCOPE
        and span.is_recording()
        and is_llm(span)
    ]


def _same(span: Span, other: Span) -> bool:
    return span.get_span_context() == other.get_span_context()


def within_another(owner: Span) -> bool:
    """Whether another model span is open around a call's: then that one's maker counts the call's tokens."""
    newest, ids = _around.get(), owner.get_span_context()
    if newest is None or not _same(newest[0], owner):
        return False
    return any(
        span is not None and span.is_recording() and span.get_span_context().trace_id == ids.trace_id and is_llm(span)
        for span in newest[1:]
    )


def conversation_in_context(owner: Span | None) -> str:
    """The conversation that a framework named: on a surrounding span, or LangGraph's thread."""
    newest = _around.get()
    parent = newest[1] if newest is not None and owner is not None and _same(newest[0], owner) else None
    for span in (owner, parent, trace.get_current_span()):
        if span is not None and span is not trace.INVALID_SPAN:
            found = span_attributes(span).get(semconv.CONVERSATION_ID)
            if isinstance(found, str):
                return found
    configuration = sys.modules.get("langchain_core.runnables.config")
    if configuration is not None:
        current = getattr(configuration, "var_child_runnable_config", None)
        running = current.get() if current is not None else None
        thread = ((running or {}).get("configurable") or {}).get("thread_id")
        if thread is not None:
            return str(thread)
    return ""


def entered() -> bool:
    """Whether this context has been in a SERVER or CONSUMER span."""
    return _entry.get() is not None


def entry_route() -> str:
    """Route of the innermost SERVER or CONSUMER span around the call, as its instrumentation named it."""
    entry = _entry.get()
    if entry is None:
        return ""
    current = trace.get_current_span().get_span_context()
    if isinstance(entry, Unsampled):
        return entry.route if current.is_valid and entry.trace_id == current.trace_id else ""
    if current.is_valid:
        if entry.get_span_context().trace_id != current.trace_id:
            return ""
    elif not entry.is_recording():
        return ""  # left over in a thread that has gone on to other work
    return _route_in(span_attributes(entry), getattr(entry, "name", ""))


def _route_in(found: Mapping[str, Any], title: str) -> str:
    for name in _ENTRY_ROUTES:
        if found.get(name):
            return str(found[name])
    return title.removeprefix(_TASK) if title.startswith(_TASK) else ""
