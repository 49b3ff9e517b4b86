"""Adding a question to a request that is about to be sent, and taking it back where the provider does not like it.

The only place where a request is changed, and only where ``OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS`` or
``OTEL_PROMPTCACHE_STREAM_USAGE`` asks for it. What the
application holds is copied, never written to: the SDK builds the request a second time, from options of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from otel_promptcache.observer import Question
from otel_promptcache.providers import native


class Asked:
    """A question as it was added to a request."""

    __slots__ = ("body", "options", "question")

    def __init__(self, question: Question, options: Any) -> None:
        self.question = question
        self.options = options
        """As the SDK had prepared them, without the question: what was read from a generator is a list by now."""
        self.body = _body(options)

    def request(self, build: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The request with the question in it."""
        question = self.question
        changed = copy(self.options)
        # The SDK merges this into the body itself: what else is in there is treated as it always is.
        added = native.addition(question.asking, self.body, question.value)
        changed.extra_json = {**(getattr(self.options, "extra_json", None) or {}), **added}
        positional, named = _with_options(args, kwargs, changed, 0)
        made = build(*positional, **named)
        if question.header:
            before = made.headers.get(native.BETA_HEADER, "")
            if question.header not in before:
                made.headers[native.BETA_HEADER] = f"{before},{question.header}" if before else question.header
        return made

    def refused_by(self, error: BaseException) -> bool:
        """Whether an SDK's exception says that the provider does not take the question."""
        complaint = f"{error} {getattr(error, 'body', '')}"
        return native.refuses(self.question.asking, complaint, self.body) is not False

    def without(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of ``request`` that make the same request again, without the question."""
        given = kwargs["options"] if "options" in kwargs else args[1]
        again = copy(given)
        again.json_data = self.options.json_data
        if hasattr(self.options, "extra_json"):
            again.extra_json = self.options.extra_json
        return _with_options(args, kwargs, again, 1)


def _body(options: Any) -> Mapping[str, Any]:
    body = options.json_data if isinstance(options.json_data, Mapping) else {}
    extra = getattr(options, "extra_json", None)
    return {**body, **extra} if extra else body


def _with_options(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Any, place: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with other options, given by name or as the positional one at ``place``."""
    if "options" in kwargs:
        return args, {**kwargs, "options": options}
    return (*args[:place], options, *args[place + 1 :]), dict(kwargs)
