"""Whether processes that are started here count under names of their own: two under one ``service.instance.id``
overwrite each other's counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from otel_promptcache.cli import _doctor_child
from otel_promptcache.cli._doctor_report import NAMES_OF_THEIR_OWN, Finding, Section, note, ok, problem
from otel_promptcache.telemetry.identity import INSTANCE

_TITLE: Final = "Several processes"


def section() -> Section:
    """What the SDK calls two processes that are started in this environment, one beside the other."""
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _: _doctor_child.run("instance", ())["instance"], range(2)))
    except _doctor_child.ExperimentError as error:
        return Section(_TITLE, [problem("experiment", f"{error}")])
    return Section(_TITLE, list(findings(found)))


def findings(ids: Sequence[str]) -> Iterator[Finding]:
    """``ids``: of each process, empty where it has none."""
    if not all(ids):
        yield problem(
            INSTANCE,
            "none: all processes of a service overwrite one another's counters",
            "a newer opentelemetry-sdk gives each process its own; else OTEL_RESOURCE_ATTRIBUTES names one for each",
        )
    elif len(set(ids)) < len(ids):
        yield note(
            INSTANCE,
            f"{ids[0]}, in every process that is started here. Those that are forked, or started by multiprocessing, "
            "get one of their own; of others, two overwrite each other's counters",
            f"{NAMES_OF_THEIR_OWN}; doctor --prometheus URL says whether it happens",
        )
    else:
        yield ok(INSTANCE, "another one in each process")
