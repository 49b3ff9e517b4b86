"""What is done at the three points that all calls of both SDKs pass.

``request``: the life of the logical call. ``_build_request``: the prepared body, once an attempt.
``_process_response``: the response of the attempt that succeeded. The last two are one function for sync and
async clients; the first has a shell for each around the same ``Frame``.

The four hooks are where the application's stack meets ours. Errors are told further in; what is suppressed here is
what not even the telling survived (no stack or no memory left), so that it cannot replace the application's result.
``try`` is written out where every call passes: entering one costs nothing, ``contextlib.suppress`` does.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, Final, Literal

from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_promptcache.instrumentation.asking import Asked
from otel_promptcache.instrumentation.platforms import platform_of
from otel_promptcache.instrumentation.tap import tap
from otel_promptcache.instrumentation.together import Opener, Together, Told
from otel_promptcache.providers import dialect_for
from otel_promptcache.providers.errands import errand_for
from otel_promptcache.telemetry.context import candidates

_REFUSED: Final = (400, 422)
"""With which providers refuse a field that they do not know, and name it."""
_NOT_FOR_A_FIELD: Final = (401, 408, 409, 429)
"""Errors that no field of a request is to blame for."""

_frame: ContextVar[Frame | None] = ContextVar("otel_promptcache_frame", default=None)

_observer: Opener | None = None
"""Who is told: the application's observer, a listener, or all of them as one."""
_lock = threading.RLock()
_application: Opener | None = None
_listeners: tuple[Opener, ...] = ()


def set_observer(observer: Opener | None) -> None:
    """Says who observes for the application; None for nobody. With no listener either, every hook is a plain
    pass-through."""
    global _application
    with _lock:
        _application = observer
        _assemble()


def listen(observer: Opener) -> None:
    """Tells one more observer, beside the application's and whatever becomes of that."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, observer)
        _assemble()


def stop_listening(observer: Opener) -> None:
    """Takes ``listen`` back. Calls that are under way still end where they began."""
    global _listeners
    with _lock:
        _listeners = tuple(one for one in _listeners if one is not observer)
        _assemble()


def _assemble() -> None:
    global _observer
    observers = [one for one in (_application, *_listeners) if one is not None]
    _observer = Together(observers) if len(observers) > 1 else observers[0] if observers else None


Again = tuple[tuple[Any, ...], Mapping[str, Any]] | Literal[False] | None
"""Arguments, positional and named; False for "not again"; None where nobody could tell."""


class Frame:
    """One run of an SDK's ``request``: the call it makes, if it is one of ours, and what to undo at its end."""

    __slots__ = ("_attached", "_heard", "_token", "asked", "call", "given", "silent", "tapped")

    def __init__(self, call: Told | None, given: Any = None) -> None:
        self.call = call
        self.given = given
        """The request's options as the SDK's caller gave them."""
        self.tapped = False
        self._heard: Any = None
        """The response whose head was looked at last: SDKs show us refused ones at several places."""
        self.asked: Asked | None = None
        """The question that was added to the request, if one was."""
        self.silent = False
        """Whether to ask no more, because a question was refused."""
        self._attached: Any = None
        # Requests that carry no prompt have a frame too: within a middleware they hide the outer call.
        self._token: Token[Frame | None] = _frame.set(self)

    @property
    def sifted(self) -> bool:
        """Whether the response has a chunk that only our question brought."""
        return self.asked is not None and self.asked.question.for_usage

    def attach(self, span: trace.Span) -> None:
        """Makes our span current until the request returns, for spans below it and for propagation."""
        if self._attached is None:
            made = trace.set_span_in_context(span)
            self._attached = made, context.attach(made)

    def hear(self, response: Any) -> None:
        """The head of an attempt's response, refused or not. What has no such head is no attempt's response."""
        if response is None or response is self._heard or self.call is None:
            return
        self._heard = response
        raw = getattr(getattr(response, "headers", None), "raw", None)
        if raw is not None:
            self.call.heard(response.status_code, raw)

    def again(self, asked: Asked, error: BaseException, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Again:
        """Arguments to make the request with once more, where it failed because of our question; else False."""
        refused = asked.refused_by(error) if getattr(error, "status_code", None) in _REFUSED else False
        if refused is False and not asked.question.untried:
            return False
        if self.call is not None:
            self.call.refused(certain=refused is not False)
        return asked.without(args, kwargs)

    def leave(self, error: BaseException | None) -> None:
        """The request returned or raised."""
        if self._attached is not None:
            made, token = self._attached
            self._attached = None
            # An SDK that had a context of its own around ours has taken both back by now.
            if context.get_current() is made:
                with contextlib.suppress(Exception):
                    _detach(token)
        try:
            _frame.reset(self._token)
        except ValueError:  # resumed in another context, which never saw this frame
            _frame.set(None)
        call = self.call
        if call is None:
            return
        try:
            if isinstance(error, Exception):
                call.failed(error_type(error))
            elif error is not None:
                call.left()
            elif not self.tapped:
                call.finished()
        except Exception as ours:
            call.observer.trouble("hook", ours)


# ``context.detach`` logs a traceback where another context has taken over by then; the thing it calls does not.
_detach: Callable[[Any], None] = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "detach", context.detach)


def error_type(error: BaseException) -> str:
    """The provider's own error type where the SDK's exception has one, else the exception's qualified class."""
    with contextlib.suppress(Exception):  # a property of an exception that is not the SDK's may do anything
        kind = getattr(error, "type", None)
        if not isinstance(kind, str) or not kind:  # older versions leave it in the body
            kind = error.body["error"]["type"]  # type: ignore[attr-defined]
        if isinstance(kind, str) and kind:
            return kind
    module = type(error).__module__.partition(".")[0]
    name = type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def _enter(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Frame | None:
    """A frame for a request that is about to be made; None when nothing is to be observed at all."""
    observer = _observer
    if observer is None:
        return None
    try:
        options = kwargs["options"] if "options" in kwargs else args[1]
        method, url = options.method.lower(), options.url
        dialect = dialect_for(url) if method == "post" else None
        if dialect is not None:
            # Whoever has a span for the call may want no other below it: we write on that one, and make none.
            wanted = is_instrumentation_enabled() or candidates()
            return Frame(observer.open(dialect), options) if wanted else Frame(None)
        errand = errand_for(method, url)
        return Frame(observer.run(errand, url) if errand is not None and is_instrumentation_enabled() else None)
    except Exception as error:
        observer.trouble("hook", error)
        return None


def _left(
    frame: Frame, error: BaseException, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
    """The request raised: arguments to make it with once more, where that was our doing; else it is over."""
    with contextlib.suppress(Exception):  # an exception that is not the SDK's may have anything of that name
        frame.hear(getattr(error, "response", None))
    asked = getattr(frame, "asked", None)
    status = getattr(error, "status_code", None)
    if asked is not None and isinstance(status, int) and status not in _NOT_FOR_A_FIELD:
        frame.asked, frame.silent = None, True
        again: Again = None
        try:
            again = frame.again(asked, error, args, kwargs)
        except Exception as ours:
            with contextlib.suppress(Exception):
                frame.call.observer.trouble("witness", ours)  # type: ignore[union-attr]
        if again is not False:  # None: we could not tell whose fault it is, and it may be ours
            return again or (args, kwargs)
    with contextlib.suppress(Exception):
        frame.leave(error)
    return None


def request(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around ``SyncAPIClient.request``."""
    try:
        frame = _enter(args, kwargs)
    except Exception:
        frame = None
    if frame is None:
        return wrapped(*args, **kwargs)
    again = None
    try:
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        again = _left(frame, error, args, kwargs)
        if again is None:
            raise
    if again is not None:  # made out here, so that its own errors have no history
        try:
            result = wrapped(*again[0], **again[1])
        except BaseException as error:
            with contextlib.suppress(Exception):
                frame.leave(error)
            raise
    try:  # noqa: SIM105
        frame.leave(None)
    except Exception:  # noqa: S110
        pass
    return result


async def async_request(
    wrapped: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Around ``AsyncAPIClient.request``."""
    try:
        frame = _enter(args, kwargs)
    except Exception:
        frame = None
    if frame is None:
        return await wrapped(*args, **kwargs)
    again = None
    try:
        result = await wrapped(*args, **kwargs)
    except BaseException as error:
        again = _left(frame, error, args, kwargs)
        if again is None:
            raise
    if again is not None:  # made out here, so that its own errors have no history
        try:
            result = await wrapped(*again[0], **again[1])
        except BaseException as error:
            with contextlib.suppress(Exception):
                frame.leave(error)
            raise
    try:  # noqa: SIM105
        frame.leave(None)
    except Exception:  # noqa: S110
        pass
    return result


def build_request(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around ``BaseClient._build_request``, which makes the HTTP request of one attempt, in sync and async clients."""
    made = wrapped(*args, **kwargs)
    try:
        frame = _frame.get()
        if frame is not None and frame.call is not None:
            try:
                options = kwargs["options"] if "options" in kwargs else args[0]
                _prepared(frame, frame.call, instance, made, options)
                if frame.call.question is not None and not frame.silent:
                    made = _asking(frame, frame.call, instance, options, wrapped, args, kwargs) or made
            except Exception as error:
                frame.call.observer.trouble("hook", error)
    except Exception:  # noqa: S110
        pass
    return made


_IN_THE_URL: Final = ("model", "stream")
"""What clients for Bedrock and Vertex AI move from the body to the URL."""


def _prepared(frame: Frame, call: Told, client: Any, made: Any, options: Any) -> None:
    body = options.json_data
    extra = getattr(options, "extra_json", None)
    if not isinstance(body, Mapping):
        body = {}
    if extra:
        body = {**body, **extra}
    if "model" not in body:
        given = getattr(frame.given, "json_data", None)
        if isinstance(given, Mapping):
            body = {**{name: given[name] for name in _IN_THE_URL if name in given}, **body}
    url, headers = made.url, made.headers
    credential = next(filter(None, map(headers.get, call.dialect.credentials)), "")
    for header, field in call.dialect.headers:
        if values := headers.get(header):
            body = {**body, field: [value.strip() for value in values.split(",") if value.strip()]}
    port = url.port or (443 if url.scheme == "https" else 80)
    call.prepared(body, url.host, port, credential, platform_of(client), getattr(frame.given, "json_data", None))
    own = call.recorder.own if call.recorder is not None else None
    if isinstance(own, trace.Span):
        frame.attach(own)


def _asking(
    frame: Frame,
    call: Told,
    client: Any,
    options: Any,
    build: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """The request with the question that the call has, None where it stays as it is."""
    question = call.question
    if question is None or (platform_of(client) and not question.asking.on_platforms):
        call.unasked()
        return None
    try:
        asked = Asked(question, options)
        made = asked.request(build, args, kwargs)
    except Exception:
        call.unasked()
        raise
    frame.asked = asked
    return made


def process_response(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around ``_process_response`` of both clients: looks before the SDK does, then hands on.

    The async method's coroutine is returned as it is, so one function serves both.
    """
    try:
        frame = _frame.get()
        if frame is not None and frame.call is not None:
            try:
                response = kwargs.get("response")
                # A client with middleware hands refused attempts in too; the call goes on with the next one.
                if response is not None and response.is_success:
                    frame.tapped = tap(response, frame.call, sifted=frame.sifted)
            except Exception as error:
                frame.call.observer.trouble("tap", error)
            try:
                frame.hear(response)
            except Exception as error:
                frame.call.observer.trouble("limits", error)
    except Exception:  # noqa: S110
        pass
    return wrapped(*args, **kwargs)


def should_retry(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around ``BaseClient._should_retry``, which both clients ask about an attempt that was refused."""
    try:
        frame = _frame.get()
        if frame is not None and frame.call is not None:
            try:
                frame.hear(kwargs["response"] if "response" in kwargs else args[0])
            except Exception as error:
                frame.call.observer.trouble("limits", error)
    except Exception:  # noqa: S110
        pass
    return wrapped(*args, **kwargs)
