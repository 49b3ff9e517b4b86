"""The wall between the application and us, around every event that a call is told of."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Concatenate, ParamSpec

if TYPE_CHECKING:
    from otel_promptcache.observer.call import Call

P = ParamSpec("P")


def walled(
    where: str, phase: str
) -> Callable[[Callable[Concatenate[Call, P], None]], Callable[Concatenate[Call, P], None]]:
    """Contains every error of a method of ``Call`` and adds its time to the call's account."""

    def wrap(method: Callable[Concatenate[Call, P], None]) -> Callable[Concatenate[Call, P], None]:
        def guarded(self: Call, /, *args: P.args, **kwargs: P.kwargs) -> None:
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
