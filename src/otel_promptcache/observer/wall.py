"""The wall between the application and us, around every event that a call is told of."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer


class Walled(Protocol):
    """What is told of a request."""

    observer: Observer
    spent: dict[str, float]
    """Our own seconds on the caller's thread, by phase."""


P = ParamSpec("P")
W = TypeVar("W", bound=Walled)


def walled(where: str, phase: str) -> Callable[[Callable[Concatenate[W, P], None]], Callable[Concatenate[W, P], None]]:
    """Contains every error of a method and adds its time to the account."""

    def wrap(method: Callable[Concatenate[W, P], None]) -> Callable[Concatenate[W, P], None]:
        def guarded(self: W, /, *args: P.args, **kwargs: P.kwargs) -> None:
            begun = perf_counter()
            try:
                method(self, *args, **kwargs)
            except Exception as error:
                self.observer.trouble(where, error)
            finally:
                self.spent[phase] = self.spent.get(phase, 0.0) + perf_counter() - begun

        guarded.__doc__ = method.__doc__
        return guarded

    return wrap
