"""Other instrumentations, each in an environment of its own, and what becomes of calls beside them.

``PROMPTCACHE_NEIGHBOURS`` names those that are to be installed and run (``all`` for all); ``make neighbours`` sets it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

CHILD = Path(__file__).with_name("child.py")
WANTED = "PROMPTCACHE_NEIGHBOURS"
SECONDS = 180
NEW = ("anthropic==2.12.0", "openai==3.54.0")
OLD = ("anthropic==0.125.0", "openai==2.54.0")
"""The last ones on httpx, and the newest that some neighbours support."""
INPUT = {"messages": 5100, "chat": 5000, "responses": 5000}
"""Input tokens of an answer of the provider, by the first word of a call's name."""


class Neighbour(NamedTuple):
    """Somebody else's instrumentation."""

    name: str
    title: str
    starts: tuple[str, ...]
    """Names of ``child.STARTERS``."""
    packages: tuple[str, ...]
    sdks: tuple[str, ...] = NEW
    opentelemetry: bool = True
    """Whether its spans are OpenTelemetry's."""


NEIGHBOURS = (
    Neighbour(
        "opentelemetry",
        "OpenTelemetry genai",
        ("opentelemetry",),
        ("opentelemetry-instrumentation-genai-anthropic==1.3b0", "opentelemetry-instrumentation-genai-openai==1.3b0"),
    ),
    Neighbour(
        "openllmetry",
        "OpenLLMetry",
        ("openllmetry",),
        ("opentelemetry-instrumentation-anthropic==0.62.4", "opentelemetry-instrumentation-openai==0.62.4"),
    ),
    Neighbour(
        "openinference",
        "OpenInference",
        ("openinference",),
        ("openinference-instrumentation-anthropic==3.1.0", "openinference-instrumentation-openai==0.1.66"),
    ),
    Neighbour(
        "traceai",
        "traceAI",
        ("traceai",),
        ("traceai-anthropic==0.1.10", "traceai-openai==0.1.10", "fi-instrumentation-otel==1.1.0"),
        OLD,  # with anthropic 2 its instrumentor cannot be imported
    ),
    Neighbour("logfire", "Logfire", ("logfire",), ("logfire==5.2.0",)),
    Neighbour("openlit", "OpenLIT", ("openlit",), ("openlit==1.45.0",), OLD),
    Neighbour("ddtrace", "Datadog ddtrace", ("ddtrace",), ("ddtrace==4.16.0",), opentelemetry=False),
    Neighbour("sentry", "Sentry", ("sentry",), ("sentry-sdk==2.75.0",), opentelemetry=False),
    Neighbour(
        "http",
        "OpenTelemetry httpx, requests",
        ("http",),
        ("opentelemetry-instrumentation-httpx", "opentelemetry-instrumentation-requests", "httpx", "requests"),
        OLD,
    ),
    Neighbour(
        "http2",
        "the same, SDKs on httpx2",
        ("http",),
        ("opentelemetry-instrumentation-httpx", "opentelemetry-instrumentation-requests", "httpx", "requests"),
    ),
    Neighbour(
        "together",
        "OpenTelemetry genai and OpenInference",
        ("opentelemetry", "openinference"),
        (
            "opentelemetry-instrumentation-genai-anthropic==1.3b0",
            "opentelemetry-instrumentation-genai-openai==1.3b0",
            "openinference-instrumentation-anthropic==3.1.0",
            "openinference-instrumentation-openai==0.1.66",
        ),
    ),
)
BY_NAME = {one.name: one for one in NEIGHBOURS}


def wanted(name: str) -> bool:
    """Whether a neighbour is to be installed and run."""
    return bool({name, "all"} & set(os.environ.get(WANTED, "").replace(",", " ").split()))


def interpreter(name: str) -> Path:
    """The Python of a neighbour's environment, which is made if it is not there; ours for no name."""
    import environments  # of scripts/, which the child does not see

    if not name:
        return Path(sys.executable)
    one = BY_NAME[name]
    python = f"3.{sys.version_info.minor}"
    packages = [*one.packages, *one.sdks, "opentelemetry-sdk"]
    return environments.environment(f"neighbour-{name}", python, packages)


def made(
    url: str, neighbour: str, start: Sequence[str], calls: Sequence[str], *, native: bool = False
) -> dict[str, Any]:
    """What came of calls in a process of the neighbour's environment: ``{"calls": {name: ...}, "counted": ...}``."""
    request = json.dumps({"start": list(start), "calls": list(calls), "native": native})
    return _made(url, str(interpreter(neighbour)), request)


@cache
def _made(url: str, python: str, request: str) -> dict[str, Any]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    variables["OTEL_PROMPTCACHE_BUDGET_MS"] = "0"
    done = subprocess.run(
        [python, str(CHILD), url, request],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
        env=variables,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"no result: {done.stderr[-3000:]}") from None
    return found


# --- Reading spans ------------------------------------------------------------------------------------------

TOKENS = "gen_ai.usage.input_tokens"
NATIVE_SCOPE = "com.anthropic.sdk.python"
OURS = "otel_promptcache"


def total(seen: dict[str, Any]) -> int:
    """What a query that sums input tokens over the trace finds."""
    return sum(span["attributes"].get(TOKENS, 0) for span in seen["spans"])


def model_spans(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Spans that stand for the call, whoever made them."""
    return [span for span in seen["spans"] if not span["name"].startswith(("POST", "HTTP"))]


def bearers(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Spans that carry what is ours."""
    return [span for span in seen["spans"] if "promptcache.schema" in span["attributes"]]


def role(seen: dict[str, Any]) -> str:
    """How our figures stand in a trace: ``enriched`` (on whose span), ``companion``, ``own``, or ``none``."""
    found = bearers(seen)
    if not found:
        return "none"
    (span,) = found
    if span["scope"] != OURS:
        return f"enriched {span['scope']}"
    return "companion" if span["name"].startswith("promptcache ") else "own"
