"""Which packages are there, and whether they are new enough. What we support is read from our own metadata."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Final, NamedTuple

from otel_promptcache._version import __version__
from otel_promptcache.cli._doctor_report import Finding, Section, note, ok, problem

SDKS: Final = ("anthropic", "openai")
_DISTRIBUTION: Final = "otel-promptcache"
_LEAST: Final = re.compile(r"(?P<name>[\w.-]+).*?>=\s*(?P<least>[\w.]+)")
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*")


class _Row(NamedTuple):
    """A package, and what its absence means."""

    name: str
    without: str = ""
    advice: str = ""
    optional: bool = False


_SDK_ADVICE: Final = "pip install 'otel-promptcache[otlp]'"
_ROWS: Final = (
    _Row("opentelemetry-api", "nothing can be recorded", "pip install otel-promptcache"),
    _Row("opentelemetry-sdk", "calls are observed, but nothing is recorded", _SDK_ADVICE),
    _Row("opentelemetry-instrumentation", "nothing can be patched", "pip install otel-promptcache"),
    _Row("opentelemetry-distro", "`opentelemetry-instrument` configures no exporter", _SDK_ADVICE, optional=True),
    _Row("opentelemetry-exporter-otlp-proto-http", "no OTLP over HTTP", _SDK_ADVICE, optional=True),
    _Row("opentelemetry-exporter-otlp-proto-grpc", "no OTLP over gRPC", _SDK_ADVICE, optional=True),
    _Row("wrapt", "nothing can be patched", "pip install otel-promptcache"),
    _Row("genai-prices", "calls have no cost", "pip install otel-promptcache"),
    *(_Row(sdk, "its calls are not observed", f"pip install 'otel-promptcache[{sdk}]'", optional=True) for sdk in SDKS),
)


def installed(name: str) -> str:
    """The version of a distribution, empty when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def older(version: str, least: str) -> bool:
    """Whether a version's release number lies below another's."""
    numbers, limit = _release(version), _release(least)
    length = max(len(numbers), len(limit))
    return numbers + (0,) * (length - len(numbers)) < limit + (0,) * (length - len(limit))


def _release(version: str) -> tuple[int, ...]:
    found = _RELEASE.match(version)
    return tuple(map(int, found.group().split("."))) if found else ()


def required() -> dict[str, str]:
    """The oldest supported version of each package we name, extras included."""
    found = {}
    for line in metadata.requires(_DISTRIBUTION) or ():
        matched = _LEAST.match(line.partition(";")[0])
        if matched:
            found[matched["name"].lower()] = matched["least"]
    return found


def section() -> Section:
    """Versions of everything that takes part."""
    return Section("Versions", list(_findings()))


def _findings() -> Iterator[Finding]:
    python = platform.python_version()
    matched = re.search(r">=\s*([\w.]+)", metadata.metadata(_DISTRIBUTION)["Requires-Python"])
    least = matched[1] if matched else "0"
    if older(python, least):
        yield problem("python", f"{python}, older than the supported {least}")
    else:
        yield ok("python", f"{python} ({platform.python_implementation()})")
    yield ok(_DISTRIBUTION, __version__)
    oldest = required()
    for row in _ROWS:
        family = row.name.partition("-proto-")[0]  # the exporters are released together, under one number
        yield _judged(row, installed(row.name), oldest.get(row.name) or oldest.get(family, ""))
    if not any(map(installed, SDKS)):
        yield problem("SDKs", f"none of {', '.join(SDKS)} is installed here: there is nothing to observe")


def _judged(row: _Row, version: str, least: str) -> Finding:
    if not version:
        say = note if row.optional else problem
        return say(row.name, f"not installed: {row.without}", row.advice)
    if least and older(version, least):
        return problem(row.name, f"{version}, older than the supported {least}", f"pip install '{row.name}>={least}'")
    return ok(row.name, version)
