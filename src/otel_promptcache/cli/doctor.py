"""``otel-promptcache doctor``: what is observed, who else instruments, where telemetry goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from otel_promptcache.cli import (
    _doctor_child,
    _doctor_otlp,
    _doctor_peers,
    _doctor_prometheus,
    _doctor_settings,
    _doctor_versions,
    _doctor_workers,
)
from otel_promptcache.cli._doctor_report import Finding, Section, as_json, as_text, found_problem, problem
from otel_promptcache.settings import Settings

_HELP = """\
Looks at this environment: what is observed, who else instruments and whether tokens are counted twice, where
telemetry goes and whether it is taken, which settings hold. It imports and calls in processes of its own, talks to
nothing but the OTLP endpoints of this environment (with --fleet, also to the shared history), and changes nothing.

Each endpoint is sent an empty request; if that is well, a record called promptcache.doctor, and an empty request of the
size of a full batch. A receiver that is out of memory, full or throttled takes the first and refuses the others. With
--empty nothing is sent that anybody keeps, and such a receiver is not noticed.

Exits with 0, or with 1 when something is a problem. Run it as the application runs: with its variables, in its
environment.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _HELP
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for a person, or for a program")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="to wait for answers (5)")
    parser.add_argument("--empty", action="store_true", help="send empty requests only, which leave nothing behind")
    parser.add_argument("--fleet", action="store_true", help="look at the shared history and who uses it, too")
    parser.add_argument(
        "--prometheus", metavar="URL", help="a Prometheus that has our metrics: versions, labels, losses"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError("takes a number of seconds, more than 0 and at most 600")
    return seconds


def run(options: argparse.Namespace) -> int:
    if sys.stderr.isatty():
        print("Making a few calls in a process of their own; this takes some seconds ...", file=sys.stderr)
    sections = examine(options.timeout, options.prometheus, fleet=options.fleet, records=not options.empty)
    print((as_json if options.format == "json" else as_text)(sections), end="")
    return 1 if found_problem(sections) else 0


def examine(timeout: float, prometheus: str | None, *, fleet: bool = False, records: bool = True) -> list[Section]:
    """All sections, in the order in which they are read; what takes time is done side by side."""
    found = _doctor_settings.current()
    settings = found.settings

    def cardinality() -> Section:
        findings = _doctor_settings.cardinality(settings)
        if prometheus:
            findings += _doctor_prometheus.findings(prometheus, _doctor_settings.labels(settings), timeout)
        return Section("Cardinality of metrics", findings)

    parts: tuple[Callable[[], Section], ...] = (
        _doctor_versions.section,
        _doctor_child.patched,
        _doctor_peers.section,
        lambda: _doctor_otlp.section(settings, timeout, records=records),
        lambda: _doctor_settings.settings_section(found),
        cardinality,
        _doctor_workers.section,
        lambda: _doctor_settings.start_section(settings),
        *([lambda: _fleet(settings, timeout)] if fleet else []),
    )
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(_contained, parts))


def _fleet(settings: Settings, timeout: float) -> Section:
    from otel_promptcache.cli import _doctor_fleet

    return _doctor_fleet.section(settings, timeout)


def _contained(part: Callable[[], Section]) -> Section:
    """A part that fails is a finding of its own: the others are still worth reading."""
    try:
        return part()
    except Exception as error:
        return Section("Unexpected", [_unexpected(error)])


def _unexpected(error: Exception) -> Finding:
    return problem(type(error).__name__, f"{error}", "this is an error of otel-promptcache: please report it")
