"""Keys of single backends on spans: only when asked for, only where we count, and not without bound."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from servers.application import HAS_NATIVE, OUTPUT, Clients, Observed, message, observed, provider, text

import otel_promptcache
from otel_promptcache import conversation
from otel_promptcache.model import Cost, Observation, Usage
from otel_promptcache.settings import parse
from otel_promptcache.telemetry.duplicates import (
    MAX_ATTRIBUTES,
    MAX_BYTES,
    ON_OTHERS_SPANS,
    ON_OWN_SPANS,
    duplicate_attributes,
)
from otel_promptcache.vocabulary.backends import DUPLICATES, Backend, Tells

ALL = ",".join(Backend)
USD_KEYS = {name for name, key in DUPLICATES.items() if key.tells is Tells.USD}
READ, WRITE, UNCACHED = 2000, 1500, 10
COST_READ, COST_WRITE, COST_UNCACHED, COST_OUTPUT = 0.0006, 0.005625, 0.00003, 0.00075


@pytest.fixture
def clients() -> Iterator[Clients]:
    with provider() as emulated:
        found = Clients(emulated.url)
        yield found
        found.close()


def keys(span: Mapping[str, Any]) -> dict[str, Any]:
    """What stands on a span for single backends."""
    return {name: value for name, value in span.items() if name in DUPLICATES}


def calls(clients: Clients, seen: Observed) -> Mapping[str, Any]:
    """The span of a call that reads 2000 tokens, writes 1500, and has 10 beside."""
    first = message(text(READ, "sys"), text(10))
    said = [
        {"type": "text", "text": text(WRITE), "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": text(UNCACHED)},
    ]
    second = message(text(READ, "sys")) | {"messages": [{"role": "user", "content": said}]}
    clients.anthropic.messages.create(**first)
    with conversation("talk-7"):
        clients.anthropic.messages.create(**second)
    return seen.calls[-1].attributes or {}


# --- What is written ----------------------------------------------------------------------------------------


def test_nothing_unless_asked(clients: Clients) -> None:
    """By default a span has no key of a single backend."""
    with observed() as seen:
        assert keys(calls(clients, seen)) == {}


EXPECTED: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "claude-sonnet-4-6",
    "llm.provider": "anthropic",
    "session.id": "talk-7",
    "llm.token_count.prompt": READ + WRITE + UNCACHED,
    "llm.token_count.completion": OUTPUT,
    "llm.token_count.total": READ + WRITE + UNCACHED + OUTPUT,
    "llm.token_count.prompt_details.cache_read": READ,
    "llm.token_count.prompt_details.cache_write": WRITE,
    "llm.cost.total": COST_READ + COST_WRITE + COST_UNCACHED + COST_OUTPUT,
    "llm.cost.prompt": COST_READ + COST_WRITE + COST_UNCACHED,
    "llm.cost.completion": COST_OUTPUT,
    "llm.cost.prompt_details.cache_read": COST_READ,
    "llm.cost.prompt_details.cache_write": COST_WRITE,
    "llm.cost.prompt_details.input": COST_UNCACHED,
    "langfuse.observation.usage_details": {
        "input": UNCACHED,
        "input_cached_tokens": READ,
        "input_cache_creation": WRITE,
        "output": OUTPUT,
        "total": READ + WRITE + UNCACHED + OUTPUT,
    },
    "langfuse.observation.cost_details": {
        "input": COST_UNCACHED,
        "input_cached_tokens": COST_READ,
        "input_cache_creation": COST_WRITE,
        "output": COST_OUTPUT,
        "total": COST_READ + COST_WRITE + COST_UNCACHED + COST_OUTPUT,
    },
    "langsmith.span.kind": "llm",
    "langsmith.metadata.thread_id": "talk-7",
    "langsmith.usage_metadata": {
        "input_tokens": READ + WRITE + UNCACHED,
        "output_tokens": OUTPUT,
        "total_tokens": READ + WRITE + UNCACHED + OUTPUT,
        "input_token_details": {"cache_read": READ, "cache_creation": WRITE},
        "input_cost": COST_READ + COST_WRITE + COST_UNCACHED,
        "output_cost": COST_OUTPUT,
        "total_cost": COST_READ + COST_WRITE + COST_UNCACHED + COST_OUTPUT,
        "input_cost_details": {"cache_read": COST_READ, "cache_creation": COST_WRITE},
    },
    "gen_ai.system": "anthropic",
    "gen_ai.usage.cache_creation.input_tokens": WRITE,
    "gen_ai.usage.cost": COST_READ + COST_WRITE + COST_UNCACHED + COST_OUTPUT,
}


@pytest.mark.parametrize("backend", Backend)
def test_each_backend_has_its_own(backend: Backend, clients: Clients) -> None:
    """With the right values, to the last cent, and none of another."""
    with observed(backends=backend) as seen:
        found = keys(calls(clients, seen))
    assert {name: _close(found[name]) for name in found} == {
        name: value for name, value in EXPECTED.items() if backend in DUPLICATES[name].backends
    }


def _close(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return {name: _close(part) for name, part in json.loads(value).items()}
    if isinstance(value, dict):
        return {name: _close(part) for name, part in value.items()}
    return pytest.approx(value, abs=1e-12) if isinstance(value, float) else value


def test_the_table_is_whole() -> None:
    """Every key has an expected value here, but for the tokens of a model that reasons."""
    assert DUPLICATES.keys() - EXPECTED.keys() == {"llm.token_count.completion_details.reasoning"}


def test_no_key_is_written_out_elsewhere() -> None:
    """As a literal it could be misspelt."""
    source = Path(otel_promptcache.__file__).parent
    elsewhere = "".join(file.read_text() for file in source.rglob("*.py") if file != source / "vocabulary/backends.py")
    assert [name for name in DUPLICATES if f'"{name}"' in elsewhere] == []


def test_what_is_not_known_is_absent(clients: Clients) -> None:
    """A call that fails has neither tokens nor a cost, and nothing says zero."""
    with observed(backends=ALL) as seen:
        with pytest.raises(Exception, match="500"):
            clients.anthropic.messages.create(**message("", "hi"), extra_headers={"x-emulator-fault": "500"})
        (span,) = seen.spans
    assert keys(span.attributes or {}) == {
        "openinference.span.kind": "LLM",
        "llm.model_name": "claude-sonnet-4-6",
        "llm.provider": "anthropic",
        "langsmith.span.kind": "llm",
        "gen_ai.system": "anthropic",
    }


# --- On whose span ------------------------------------------------------------------------------------------


def test_on_anothers_span_only_the_cost(clients: Clients) -> None:
    """Its tokens are its maker's; what it cost, nobody else says."""
    with observed(backends=ALL) as seen:
        tracer = seen.tracer_provider.get_tracer("openllmetry")
        chat = {"gen_ai.operation.name": "chat"}
        with tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=chat):
            clients.anthropic.messages.create(**message(text(READ), text(10)))
        (span,) = seen.spans
    assert set(keys(span.attributes or {})) == USD_KEYS


def test_beside_anothers_span_nothing(clients: Clients) -> None:
    """Whoever adds up cost would add it twice."""
    with observed(backends=ALL) as seen:
        tracer = seen.tracer_provider.get_tracer("logfire")
        chat = {"gen_ai.operation.name": "chat"}
        with tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=chat):
            stream = clients.anthropic.messages.create(**message(text(READ), text(10), stream=True))
        for _ in stream:
            pass
        (companion,) = [span for span in seen.spans if span.name.startswith("promptcache")]
    assert "promptcache.cost.total" in (companion.attributes or {})
    assert keys(companion.attributes or {}) == {}


@pytest.mark.skipif(not HAS_NATIVE, reason="this anthropic SDK has no spans of its own")
def test_on_the_sdks_own_span_everything() -> None:
    """Which has our counts where it has none."""
    with provider() as emulated, observed(backends=ALL) as seen:
        clients = Clients(emulated.url, native=seen.tracer_provider)
        clients.anthropic.messages.create(**message(text(READ), text(10)))
        clients.close()
        (span,) = seen.calls
    found = keys(span.attributes or {})
    assert found["llm.token_count.prompt"] == READ + 10
    assert set(found) >= USD_KEYS


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=pytest.mark.skipif(not HAS_NATIVE, reason="none"))])
def test_the_sums_of_a_batch(native: bool) -> None:
    """With their tokens and cost; the SDK's own span of reading is not called a model's call."""
    with provider() as emulated, observed(backends=ALL) as seen:
        clients = Clients(emulated.url, native=seen.tracer_provider if native else None)
        requests: Any = [{"custom_id": "one", "params": message(text(READ), text(10))}]
        submitted = clients.anthropic.messages.batches.create(requests=requests)
        list(clients.anthropic.messages.batches.results(submitted.id))
        clients.close()
        found = [keys(span.attributes or {}) for span in seen.spans]
    (sums,) = [span for span in found if "llm.token_count.prompt" in span]
    assert sums["llm.token_count.prompt"] == READ + 10
    # Half the price of a call that writes 2000 tokens for five minutes.
    assert sums["gen_ai.usage.cost"] == pytest.approx((READ * 3.75 + 10 * 3 + OUTPUT * 15) / 2e6)
    others = [span for span in found if span is not sums]
    assert all(span == {} for span in others)


# --- Bounds -------------------------------------------------------------------------------------------------


def full() -> Observation:
    """A call of which everything is known, with names as long as they may be."""
    number = Decimal("1234.567890123456")
    seen = Observation.__new__(Observation)
    seen.model, seen.provider, seen.conversation = "m" * 128, "p" * 128, "c" * 128
    seen.usage = Usage(10**12, 10**11, 10**11, 10**11, 10**11)
    seen.cost = Cost(number, number, number, number, number, "test")
    return seen


def test_bounded_with_every_backend() -> None:
    """25 attributes and three kilobytes, at most."""
    found = duplicate_attributes(full(), tuple(Backend), ON_OWN_SPANS)
    assert len(found) == len(DUPLICATES) <= MAX_ATTRIBUTES
    size = sum(len(name) + (len(value) if isinstance(value, str) else 22) + 8 for name, value in found.items())
    assert size <= MAX_BYTES


def test_a_name_that_is_too_long_is_left_out() -> None:
    """Cut off it would be another."""
    seen = full()
    seen.conversation = "é" * 65
    found = duplicate_attributes(seen, tuple(Backend), ON_OWN_SPANS)
    assert found.keys() == DUPLICATES.keys() - {"session.id", "langsmith.metadata.thread_id"}


def test_only_money_is_about_money() -> None:
    """What is written on others' spans has neither tokens nor names in it."""
    found = duplicate_attributes(full(), tuple(Backend), ON_OTHERS_SPANS)
    assert set(found) == USD_KEYS
    assert all("cost" in name for name in found)


# --- The setting --------------------------------------------------------------------------------------------


def test_names_are_taken_in_any_case_and_once() -> None:
    """As a list, from the environment or a file."""
    assert parse({"OTEL_PROMPTCACHE_BACKENDS": " Langfuse,phoenix, langfuse"}, {})[0].backends == (
        Backend.LANGFUSE,
        Backend.PHOENIX,
    )
    assert parse({}, {"backends": ["arize"]})[0].backends == (Backend.ARIZE,)


def test_a_name_that_is_none_is_said(clients: Clients, caplog: pytest.LogCaptureFixture) -> None:
    """With those that there are; calls go on as if none were named."""
    with observed(backends="phoenix,langfuze") as seen:
        assert keys(calls(clients, seen)) == {}
    (said,) = [record.getMessage() for record in caplog.records if "BACKENDS" in record.getMessage()]
    assert said == (
        "otel-promptcache: OTEL_PROMPTCACHE_BACKENDS takes some of phoenix, arize, langfuse, langsmith, datadog, "
        "honeycomb, grafana, comma separated; using none"
    )
