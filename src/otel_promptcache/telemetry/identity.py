"""``service.instance.id``, by which backends tell the counters of processes apart: two processes under one name
overwrite each other's."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID, uuid4

INSTANCE: Final = "service.instance.id"


def name_child(meters: Any) -> None:
    """In a forked child: gives its metrics an id of their own where the SDK does not see to that itself (before 1.4x
    the resource was made once, by whoever forked)."""
    if not hasattr(type(meters), "_handle_fork"):
        with contextlib.suppress(Exception):  # none of this is public
            _name(meters, str(uuid4()))


def name_spawned(providers: Iterable[Any]) -> None:
    """In a child of multiprocessing that was started anew: an id that somebody chose, in the environment or in code, is
    the same in all that were. The process is added to it."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    for provider in providers:
        with contextlib.suppress(Exception):
            given = str(_resource(provider).attributes[INSTANCE])
            if not _random(given) and not _of_this_process(given):
                _name(provider, f"{given}/{os.getpid()}")


def chosen(meters: Any) -> str:
    """``service/id`` where somebody has chosen the id, and so may have chosen it for others too; else nothing."""
    try:
        attributes = _resource(meters).attributes
        given = str(attributes.get(INSTANCE, ""))
    except Exception:  # of no SDK
        return ""
    alone = not given or _random(given) or _of_this_process(given)
    return "" if alone else "/".join(str(attributes.get("service.name", "")).split() + given.split())


def _of_this_process(identity: str) -> bool:
    """Whether it has the number of this process, as a word: those in a container are short, and names are full of
    digits."""
    return re.search(rf"(?<!\w){os.getpid()}(?!\w)", identity) is not None


def _random(identity: str) -> bool:
    try:
        return bool(UUID(identity))
    except ValueError:
        return False


def _resource(provider: Any) -> Any:
    configuration = getattr(provider, "_sdk_config", None)  # of meters
    return provider.resource if configuration is None else configuration.resource


def _name(provider: Any, identity: str) -> None:
    from opentelemetry.sdk.resources import Resource

    ours = Resource({INSTANCE: identity})
    if hasattr(provider, "_update_resource"):
        provider._update_resource(ours)  # noqa: SLF001
    elif hasattr(provider, "_sdk_config"):  # of meters
        provider._sdk_config.resource = provider._sdk_config.resource.merge(ours)  # noqa: SLF001
    else:
        provider._resource = provider._resource.merge(ours)  # noqa: SLF001 - of tracers and loggers, who take it along
