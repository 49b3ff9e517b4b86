"""The one table of what is patched. Applied forwards, taken back backwards; a missing target is skipped and named."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import wrapt

from otel_promptcache.instrumentation import hooks

log = logging.getLogger("otel_promptcache")


class Patch(NamedTuple):
    """One target. ``since`` is the oldest version in which it was seen."""

    sdk: str
    module: str
    target: str
    hook: Callable[..., Any]
    since: str


def _stainless(sdk: str, since: str) -> tuple[Patch, ...]:
    """Both SDKs come from one generator and keep one base client for every method and platform class."""
    module = f"{sdk}._base_client"
    return (
        Patch(sdk, module, "SyncAPIClient.request", hooks.request, since),
        Patch(sdk, module, "AsyncAPIClient.request", hooks.async_request, since),
        Patch(sdk, module, "BaseClient._build_request", hooks.build_request, since),
        Patch(sdk, module, "BaseClient._should_retry", hooks.should_retry, since),
        Patch(sdk, module, "SyncAPIClient._process_response", hooks.process_response, since),
        Patch(sdk, module, "AsyncAPIClient._process_response", hooks.process_response, since),
    )


PATCHES: Final[tuple[Patch, ...]] = (*_stainless("anthropic", "0.79"), *_stainless("openai", "1.109"))
SDKS: Final = tuple(dict.fromkeys(patch.sdk for patch in PATCHES))

_lock = threading.RLock()
_placed: Final[dict[Patch, Any]] = {}
"""Our wrapper at each target. Known by identity: a wrapper of somebody else's passes the attributes of ours on."""
_beside: Final[list[tuple[Any, str, Any]]] = []
"""Classes, attributes and wrappers of ours where others came first: see ``_passing_by``."""
_said: Final[set[str]] = set()
_wanted: Final[dict[str, set[str]]] = {}
"""SDKs that are to be observed, and who wants it. A hook that others have wrapped cannot be taken out, but it stops
here."""

_DEEPEST: Final = 16
"""Wrappers around one function that are looked through."""
APPLICATION: Final = "application"
"""Who instruments when nobody else is named. Listeners name themselves, so that neither takes the other's hooks out."""


def module_of(sdk: str) -> str:
    """The module whose import makes an SDK ready to be patched."""
    return next(patch.module for patch in PATCHES if patch.sdk == sdk)


def _locate(patch: Patch) -> tuple[Any, str, Any] | None:
    """Owner, attribute and what is there; None where this version has no such thing."""
    owner: Any = sys.modules.get(patch.module)
    *classes, attribute = patch.target.split(".")
    for name in classes:
        owner = getattr(owner, name, None)
    # Looked up on the class itself: a target inherited from a patched base must not be wrapped twice.
    found = vars(owner).get(attribute) if isinstance(owner, type) else None
    return None if found is None else (owner, attribute, found)


def applied(patch: Patch) -> bool:
    """Whether our hook stands at a target now, under whatever others put around it."""
    place = _locate(patch)
    found = place[2] if place else None
    for _ in range(_DEEPEST):
        if found is None:
            return False
        if found is _placed.get(patch):
            return True
        found = getattr(found, "__wrapped__", None)
    return False


def _passing_by(patch: Patch) -> Iterator[tuple[Any, str, Any]]:
    """Where calls pass our hook by: somebody has wrapped, before us, what a class of clients inherits, and so holds
    the function that is now below our hook."""
    place = _locate(patch)
    if place is None or not isinstance(place[0], type):
        return
    owner, attribute, found = place
    below = getattr(found, "__wrapped__", None)
    classes = owner.__subclasses__()
    while classes:
        derived = classes.pop()
        classes += derived.__subclasses__()
        theirs = wrapped = vars(derived).get(attribute)
        for _ in range(_DEEPEST):
            if wrapped is None or any(wrapped is ours for _, _, ours in _beside):
                break
            wrapped = getattr(wrapped, "__wrapped__", None)
            if wrapped is below and below is not None:
                yield derived, attribute, theirs
                break


def missing(sdk: str) -> list[Patch]:
    """Targets that the imported version of an SDK lacks."""
    return [patch for patch in PATCHES if patch.sdk == sdk and _locate(patch) is None]


def instrument(sdk: str, by: str = APPLICATION) -> None:
    """Patches an SDK now if it is imported, else as soon as it is. Idempotent."""
    with _lock:
        patched = sdk in _wanted
        _wanted.setdefault(sdk, set()).add(by)
    if patched:
        return
    wrapt.register_post_import_hook(lambda _: _apply(sdk), module_of(sdk))


def uninstrument(sdk: str, by: str = APPLICATION) -> None:
    """Takes our hooks out again, the last one first, once nobody wants them."""
    with _lock:
        wanting = _wanted.get(sdk, set())
        wanting.discard(by)
        if wanting:
            return
        _wanted.pop(sdk, None)
        for beside in _beside[::-1]:
            derived, attribute, wrapper = beside
            if derived.__module__.partition(".")[0] == sdk and vars(derived).get(attribute) is wrapper:
                setattr(derived, attribute, wrapper.__wrapped__)
                _beside.remove(beside)
        for patch in reversed(PATCHES):
            place = _locate(patch) if patch.sdk == sdk else None
            # A wrapper of somebody else's stays, with our inert one inside it.
            if place is not None and place[2] is _placed.get(patch):
                owner, attribute, found = place
                setattr(owner, attribute, found.__wrapped__)


def _apply(sdk: str) -> None:
    with _lock:
        if sdk not in _wanted:
            return
        for patch in PATCHES:
            place = _locate(patch)
            if patch.sdk != sdk or place is None:
                continue
            if not applied(patch):
                _placed[patch] = _put(patch, *place)
            for beside in list(_passing_by(patch)):
                _beside.append((*beside[:2], _put(patch, *beside)))
        absent = missing(sdk)
    if absent and sdk not in _said:
        _said.add(sdk)
        log.warning(
            "otel-promptcache: this version of %s has no %s; its calls are observed in part or not at all. "
            "`otel-promptcache doctor` lists versions that are known to work",
            sdk,
            ", ".join(patch.target for patch in absent),
        )


def _put(patch: Patch, owner: Any, attribute: str, found: Any) -> Any:
    """Wraps what stands somewhere into the hook of a patch."""
    enabled = functools.partial(_wanted.__contains__, patch.sdk)
    wrapper = wrapt.FunctionWrapper(found, patch.hook, enabled=enabled)
    setattr(owner, attribute, wrapper)
    return wrapper


def wanted() -> bool:
    """Whether the application wants any SDK to be observed."""
    return any(APPLICATION in wanting for wanting in _wanted.values())
