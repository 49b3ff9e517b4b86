"""What the application says about its calls: route, conversation, prompt, who they are for.

Each helper is a context manager and a decorator, for plain and async functions alike. The values live in context
variables, so they follow asyncio tasks and ``contextvars.copy_context`` and never leak into a neighbour.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import ContextVar, Token
from functools import lru_cache
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar, cast

from otel_promptcache.model import Attribution

F = TypeVar("F", bound=Callable[..., Any])


class _Level(NamedTuple):
    """What holds inside one statement, and the level that holds again after it."""

    holds: Attribution
    said: Said | None
    outer: _Level | None


NOTHING: Final = Attribution()
_OUTERMOST: Final = _Level(NOTHING, None, None)
_CURRENT: Final[ContextVar[_Level]] = ContextVar("otel_promptcache_attribution", default=_OUTERMOST)


class Hashed(str):
    """A user who came from another process, hashed there."""

    __slots__ = ()


def unsaid() -> bool:
    """Whether nothing has been said in this context."""
    return _CURRENT.get() is _OUTERMOST


def current() -> Attribution:
    """What has been said in this context."""
    return _CURRENT.get().holds


class Said:
    """A statement that holds inside a ``with`` block or a decorated function, plain or async."""

    __slots__ = ("_changes", "_keys")

    def __init__(self, keys: dict[str, str] | None = None, **changes: str) -> None:
        self._changes = {name: str(value) for name, value in changes.items()}
        self._keys = keys

    def __enter__(self) -> None:
        outer = _CURRENT.get()
        changes: dict[str, Any] = dict(self._changes)
        if self._keys is not None:
            changes["keys"] = tuple(sorted((dict(outer.holds.keys) | self._keys).items()))
        _CURRENT.set(_Level(outer.holds._replace(**changes), self, outer))

    def __exit__(self, *exc_info: object) -> None:
        # Looked for in this context, where a statement that many threads share has a level of its own, and one made
        # by a generator that is closed elsewhere has none.
        level = _CURRENT.get()
        while level.outer is not None:
            if level.said is self:
                _CURRENT.set(level.outer)
                return
            level = level.outer

    def __call__(self, function: F) -> F:
        import inspect  # costs what importing us must not

        fresh = functools.partial(Said, self._keys, **self._changes)  # one call, one block: functions may recurse
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waiting(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return await function(*args, **kwargs)

            return cast("F", waiting)
        if inspect.isgeneratorfunction(function):
            return cast("F", functools.wraps(function)(lambda *args, **kwargs: _held(fresh, function(*args, **kwargs))))
        if inspect.isasyncgenfunction(function):
            return cast(
                "F", functools.wraps(function)(lambda *args, **kwargs: _aheld(fresh, function(*args, **kwargs)))
            )

        @functools.wraps(function)
        def calling(*args: Any, **kwargs: Any) -> Any:
            with fresh():
                return function(*args, **kwargs)

        return cast("F", calling)


def _held(fresh: Callable[[], Said], source: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The same generator with the statement in force while its body runs, and not in between for who iterates."""
    resume = functools.partial(source.send, None)
    while True:
        try:
            with fresh():
                item = resume()
        except StopIteration as end:
            return end.value
        try:
            resume = functools.partial(source.send, (yield item))
        except GeneratorExit:
            with fresh():
                source.close()
            raise
        except BaseException as error:
            resume = functools.partial(source.throw, error)


async def _aheld(fresh: Callable[[], Said], source: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """Likewise for an asynchronous one."""
    resume: Callable[[], Awaitable[Any]] = functools.partial(source.asend, None)
    while True:
        try:
            with fresh():
                item = await resume()
        except StopAsyncIteration:
            return
        try:
            resume = functools.partial(source.asend, (yield item))
        except GeneratorExit:
            with fresh():
                await source.aclose()
            raise
        except BaseException as error:
            resume = functools.partial(source.athrow, error)


def route(name: str) -> Said:
    """Names the part of the application that makes the calls inside, in place of what would be found by itself.

    >>> with route("/support/answer"):
    ...     client.messages.create(...)  # doctest: +SKIP
    """
    return Said(route=name)


def conversation(identity: str) -> Said:
    """Names the conversation that the calls inside belong to; exported as ``gen_ai.conversation.id``."""
    return Said(conversation=identity)


def strategy(name: str) -> Said:
    """Names the caching strategy the calls inside follow, so that strategies can be compared."""
    return Said(strategy=name)


def prompt(name: str, version: str = "") -> Said:
    """Names the prompt template in use; exported as ``gen_ai.prompt.name`` and ``gen_ai.prompt.version``."""
    return Said(prompt_name=name, prompt_version=version)


def attribute(**keys: str) -> Said:
    """Says whom the calls inside are for: ``attribute(team="search", tenant="acme", feature="summary")``.

    Inner values are laid over outer ones. ``user`` is exported as a keyed hash only. ``team`` and ``feature`` are
    metric labels too (``OTEL_PROMPTCACHE_METRIC_KEYS``).
    """
    return Said({name: str(value) for name, value in keys.items()})


# --- Where work is handed over ------------------------------------------------------------------------------


def hold(said: Attribution) -> Token[_Level]:
    """Has this hold, and nothing else, until it is let go."""
    return _CURRENT.set(_Level(said, None, None))


def let_go(token: Token[_Level]) -> None:
    """What held before holds again. In another context there is nothing to take back."""
    with contextlib.suppress(ValueError):
        _CURRENT.reset(token)


class Handed:
    """A function, and what was said where it was handed to another thread or process, which holds while it runs."""

    __slots__ = ("_function", "_said")

    def __init__(self, function: Callable[..., Any], said: Attribution) -> None:
        self._function = function
        self._said = said

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = hold(self._said)
        try:
            return self._function(*args, **kwargs)
        finally:
            let_go(token)


# --- The route where nobody named one -----------------------------------------------------------------------

_LIBRARIES: Final = ("site-packages", "dist-packages")
_DEEPEST: Final = 64
_PASSED_BY: Final = frozenset(
    {"otel_promptcache", "anthropic", "openai", "wrapt", "asyncio", "contextlib", "functools"}
)
"""Packages between the application, or what wraps the SDK for it, and us."""


_application: Final[dict[str, bool]] = {}
"""By file name, whether it is the application's; asked for every frame of every call."""
_MAX_FILES: Final = 8192


def _is_application(filename: str) -> bool:
    if len(_application) >= _MAX_FILES:
        _application.clear()
    library = filename.startswith(("<", *_standard_library())) or any(part in filename for part in _LIBRARIES)
    _application[filename] = not library
    return not library


@lru_cache(maxsize=1)
def _standard_library() -> tuple[str, ...]:
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    return (os.path.dirname(contextlib.__file__) + os.sep, here + os.sep)


def called_by_instrumentation(depth: int = 1) -> bool:
    """Whether an instrumentation has called the SDK for the application.

    Told by the innermost frame that is neither ours nor the SDK's: a library's function that was given what it wraps,
    or is of a module that calls itself an instrumentation.
    """
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001
    for _ in range(_DEEPEST):
        if frame is None:
            break
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _PASSED_BY:
            code = frame.f_code
            told = "wrapped" in code.co_varnames or ".instrumentation." in module
            return told and any(library in code.co_filename for library in _LIBRARIES)
        frame = frame.f_back
    return False


def calling_function(depth: int = 1) -> str:
    """``module:function`` of the innermost frame that is neither ours, nor a library's, nor the interpreter's."""
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001
    for _ in range(_DEEPEST):
        if frame is None:
            break
        filename = frame.f_code.co_filename
        known = _application.get(filename)
        if known is None:
            known = _is_application(filename)
        if known:
            return f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""
