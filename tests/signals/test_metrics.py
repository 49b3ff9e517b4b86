"""The metrics of the contract: names, units, labels, sums."""

from __future__ import annotations

import inspect
import json
import time
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.trace import SpanKind
from servers.application import MODEL, Clients, Observed, collected, message, observed, text

import otel_promptcache
from otel_promptcache import attribute, conversation, route
from otel_promptcache.emulator import Emulator
from otel_promptcache.instrumentation import runtime
from otel_promptcache.semconv import SCHEMA, SCOPE

ADVISED = "explicit_bucket_boundaries_advisory" in inspect.signature(api.Meter.create_histogram).parameters
SCOPED = "attributes" in inspect.signature(api.get_meter).parameters
COMMON = {"gen_ai.provider.name", "gen_ai.request.model", "promptcache.route"}
USAGE = {*COMMON, "gen_ai.operation.name", "gen_ai.token.modality"}
DURATION = {*COMMON, "gen_ai.operation.name", "promptcache.status"}
OF_LIMITS = {"gen_ai.provider.name", "gen_ai.request.model"}

OF_A_FLEET = ("promptcache.history.lookups", "promptcache.key.mismatch")
"""Without points where no history is shared; see ``test_shared``."""
CONTRACT = [
    # name, unit, kind, labels
    ("gen_ai.client.inference.usage.input_tokens", "{token}", "counter", USAGE),
    ("gen_ai.client.inference.usage.output_tokens", "{token}", "counter", USAGE),
    ("gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", "counter", USAGE),
    ("gen_ai.client.inference.usage.cache_write.input_tokens", "{token}", "counter", USAGE),
    ("promptcache.calls", "{call}", "counter", {*COMMON, "promptcache.status", "promptcache.reason"}),
    ("promptcache.cost", "USD", "counter", {*COMMON, "promptcache.cost.class"}),
    ("promptcache.cost.without_cache", "USD", "counter", COMMON),
    ("promptcache.lost.tokens", "{token}", "counter", {*COMMON, "promptcache.reason"}),
    ("promptcache.lost.cost", "USD", "counter", {*COMMON, "promptcache.reason"}),
    ("promptcache.write.unread.cost", "USD", "counter", {*COMMON, "promptcache.ttl"}),
    (
        "promptcache.native.calls",
        "{call}",
        "counter",
        {*COMMON, "promptcache.reason", "promptcache.native.verdict", "promptcache.native.agreement"},
    ),
    ("promptcache.unpriced.calls", "{call}", "counter", COMMON),
    ("promptcache.usage_missing.calls", "{call}", "counter", COMMON),
    ("promptcache.internal.errors", "{error}", "counter", {"promptcache.where"}),
    ("promptcache.ratelimit.limit", "{item}", "gauge", {*OF_LIMITS, "promptcache.ratelimit.kind"}),
    ("promptcache.ratelimit.remaining", "{item}", "gauge", {*OF_LIMITS, "promptcache.ratelimit.kind"}),
    ("promptcache.ratelimit.retry_after", "s", "gauge", OF_LIMITS),
    ("promptcache.ratelimit.refused", "{response}", "counter", {*COMMON, "promptcache.status"}),
    ("promptcache.ratelimit.lost.tokens", "{token}", "counter", COMMON),
    ("promptcache.ratelimit.malformed", "{header}", "counter", OF_LIMITS),
    ("gen_ai.client.operation.duration", "s", "histogram", {*DURATION, "error.type"}),
    ("gen_ai.client.operation.time_to_first_chunk", "s", "histogram", DURATION),
    ("promptcache.overhead", "s", "histogram", {"promptcache.phase"}),
    ("promptcache.info", "{process}", "gauge", {"promptcache.version", "promptcache.schema", "promptcache.key.id"}),
]


def everything(seen: Observed, clients: Clients, emulated: Emulator) -> None:
    """Makes calls of every kind: cold, hit, miss, streamed, failed, unpriced, without usage, refused, with the
    provider's own verdict, with an error of ours."""
    create = clients.anthropic.messages.create
    for first in ("one", "one", "two"):
        create(**message(f"{first}\n" + text(1999), text(10)))
    asked = {"extra_body": {"diagnostics": {"previous_message_id": "msg_none"}}}
    create(**message("three\n" + text(1999), text(10)), **asked)
    for _ in create(**message(text(2000), text(10), stream=True)):
        pass
    with pytest.raises(Exception, match="500"):
        create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"})
    create(**message(text(2000), text(10), model="claude-of-tomorrow"))
    create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"})
    patient = clients.anthropic.with_options(max_retries=1)
    for refusal in ({"x-emulator-fault": "429*1"}, {"x-emulator-fault": "429*1", "x-wait": "nan"}):
        emulated.retry_after = float(refusal.pop("x-wait", "0.01"))
        patient.messages.create(**message(text(2000), text(10)), extra_headers=refusal)
    seen.observer.trouble("test", ValueError())
    seen.observer.clock = lambda: time.time() + 301


# --- Names, units, kinds, labels ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emitted(emulated: Emulator) -> dict[str, Any]:
    with observed(hash_key="secret") as seen:
        clients = Clients(emulated.url)
        everything(seen, clients, emulated)
        clients.close()
        return dict(seen.metrics())


def test_the_contract_and_nothing_else(emitted: dict[str, Any]) -> None:
    """Every metric of the contract is there after calls of every kind, and no other."""
    assert sorted(emitted) == sorted(name for name, *_ in CONTRACT)


@pytest.mark.parametrize(("name", "unit", "kind", "labels"), CONTRACT, ids=[name for name, *_ in CONTRACT])
def test_a_metric(emitted: dict[str, Any], name: str, unit: str, kind: str, labels: set[str]) -> None:
    """Unit, kind, and every label that the contract names."""
    metric = emitted[name]
    points = metric.data.data_points
    assert metric.unit == unit
    assert set().union(*(point.attributes for point in points)) == labels
    if kind == "gauge":
        assert all(point.value >= 0 for point in points)
        return
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    if kind == "counter":
        assert metric.data.is_monotonic
        assert all(point.value >= 0 for point in points)
    else:
        assert all(point.count > 0 for point in points)


@pytest.mark.skipif(not ADVISED, reason="this opentelemetry-api takes no boundaries (1.30 does)")
def test_durations_have_buckets_of_seconds(emitted: dict[str, Any]) -> None:
    """Boundaries as the conventions ask for them: with the default ones a median is 2.5 s whatever happens."""
    for name in ("gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk"):
        (bounds,) = {point.explicit_bounds for point in emitted[name].data.data_points}
        assert bounds == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


def test_every_signal_says_its_schema(clients: Clients) -> None:
    """So that two versions of us in one fleet can be told apart. Metrics say it once, with the name of the scope."""
    with observed(ledger="true", prompt_map="true") as seen:
        clients.anthropic.messages.create(**message(text(3000), "hello"))
        clients.anthropic.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "hello"}])
        assert [(span.attributes or {})["promptcache.schema"] for span in seen.spans] == [SCHEMA] * 2
        events = [*seen.ledger, *seen.maps]
        assert [one["promptcache.schema"] for one in events] == [SCHEMA] * 2
        data = seen.reader.get_metrics_data()
        ours = [one.scope for each in data.resource_metrics for one in each.scope_metrics if one.scope.name == SCOPE]
        if SCOPED:
            assert [dict(scope.attributes) for scope in ours] == [{"promptcache.schema": SCHEMA}]


class Spy(api.NoOpMeterProvider):
    """Notes the kind of every instrument."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> api.Meter:
        made = self.made

        class Meter(api.NoOpMeter):
            def __getattribute__(self, attribute: str) -> Any:
                found = super().__getattribute__(attribute)
                if not attribute.startswith("create_"):
                    return found

                def create(name: str, *args: Any, **kwargs: Any) -> Any:
                    made[name] = attribute.removeprefix("create_")
                    return found(name, *args, **kwargs)

                return create

        return Meter(name)


def test_no_counter_is_synchronous() -> None:
    """A synchronous counter costs more a call than the span does."""
    spy = Spy()
    otel_promptcache.instrument(meter_provider=spy)
    otel_promptcache.uninstrument()
    assert spy.made == {
        **{name: "observable_counter" for name, _, kind, _ in CONTRACT if kind == "counter"},
        **dict.fromkeys(OF_A_FLEET, "observable_counter"),
        **{name: "observable_gauge" for name, _, kind, _ in CONTRACT if kind == "gauge"},
        **{name: "histogram" for name, _, kind, _ in CONTRACT if kind == "histogram"},
        "gen_ai.client.token.usage": "histogram",
    }


def test_a_process_says_who_it_is() -> None:
    """Which version, and the name of its hash key: but not of one that it has made for itself."""
    told = {"promptcache.version": otel_promptcache.__version__, "promptcache.schema": 1}
    with observed() as seen:
        assert seen.points("promptcache.info") == {frozenset(told.items()): 1}
    with observed(hash_key="secret") as seen:
        told["promptcache.key.id"] = seen.observer.telemetry.book.whoami["promptcache.key.id"]
        assert seen.points("promptcache.info") == {frozenset(told.items()): 1}


# --- Sums ---------------------------------------------------------------------------------------------------


def test_tokens_and_money_of_a_cold_call_and_a_hit(clients: Clients) -> None:
    """2000 tokens in front of the breakpoint, 10 behind it, 50 of output."""
    with observed() as seen, route("/chat"):
        for _ in range(2):
            clients.anthropic.messages.create(**message(text(2000), text(10)))
        usage = "gen_ai.client.inference.usage."
        assert seen.total(usage + "input_tokens") == 4020
        assert seen.total(usage + "cache_write.input_tokens") == 2000
        assert seen.total(usage + "cache_read.input_tokens") == 2000
        assert seen.total(usage + "output_tokens") == 100
        costs = {
            dict(labels)["promptcache.cost.class"]: cost for labels, cost in seen.points("promptcache.cost").items()
        }
        assert costs == pytest.approx(
            {
                "write": 2000 * 3.75e-6,
                "read": 2000 * 0.3e-6,
                "uncached": 20 * 3e-6,
                "output": 100 * 15e-6,
            }
        )
        assert seen.total("promptcache.cost.without_cache") == pytest.approx(4020 * 3e-6 + 100 * 15e-6)


def test_nothing_read_is_a_zero_not_a_gap(clients: Clients) -> None:
    """The hit rate of a route that never hits is 0 / 2010, not unknown."""
    with observed() as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert list(seen.points("gen_ai.client.inference.usage.cache_read.input_tokens").values()) == [0]


def test_the_loss_of_a_miss(clients: Clients) -> None:
    """A first line of one token makes all 2000 be written again: lost is the price of a write less that of a read."""
    with observed() as seen:
        for first in ("one", "two"):
            clients.anthropic.messages.create(**message(f"{first}\n" + text(1999), text(10)))
        ((labels, tokens),) = seen.points("promptcache.lost.tokens").items()
        assert dict(labels)["promptcache.reason"] == "system_changed"
        assert tokens == 2000
        assert seen.total("promptcache.lost.cost") == pytest.approx(2000 * (3.75e-6 - 0.3e-6))


def test_both_temporalities(emulated: Emulator, clients: Clients) -> None:
    """Two collections: a cumulative reader sees 1 and 3 calls, a reader of deltas 1 and 2."""
    deltas = InMemoryMetricReader(
        {
            ObservableCounter: AggregationTemporality.DELTA,
            Histogram: AggregationTemporality.DELTA,
        }
    )

    def sums(reader: InMemoryMetricReader) -> list[float]:
        found = collected(reader)
        (calls,) = found["promptcache.calls"].data.data_points
        (durations,) = found["gen_ai.client.operation.duration"].data.data_points
        tokens = found["gen_ai.client.inference.usage.input_tokens"].data.data_points
        costs = found["promptcache.cost"].data.data_points
        return [calls.value, durations.count, sum(p.value for p in tokens), sum(p.value for p in costs)]

    with observed(readers=[deltas], mode="tokens") as seen:
        call = message(text(2000), text(10), mark=False)
        price = 2010 * 3e-6 + 50 * 15e-6
        clients.anthropic.messages.create(**call)
        assert sums(deltas) == pytest.approx([1, 1, 2010, price])
        assert sums(seen.reader) == pytest.approx([1, 1, 2010, price])
        clients.anthropic.messages.create(**call)
        clients.anthropic.messages.create(**call)
        assert sums(deltas) == pytest.approx([2, 2, 4020, 2 * price])
        assert sums(seen.reader) == pytest.approx([3, 3, 6030, 3 * price])


def test_a_write_that_expires_unread(clients: Clients) -> None:
    """Its premium is known once its lifetime is over, by lifetime; one that was read costs nothing."""
    with observed() as seen:
        began = time.time()
        clients.anthropic.messages.create(**message(text(2000, "abc"), text(10)))
        clients.anthropic.messages.create(**message(text(3000, "xyz"), text(10), ttl="1h"))
        for _ in range(2):
            clients.anthropic.messages.create(**message(text(4000, "its"), text(10)))
        ended = time.time()

        def unread(now: float) -> dict[str, float]:
            seen.observer.clock = lambda: now
            points = seen.points("promptcache.write.unread.cost")
            return {dict(labels)["promptcache.ttl"]: cost for labels, cost in points.items()}

        assert unread(began + 299) == {}
        assert unread(ended + 301) == pytest.approx({"5m": 2000 * (3.75e-6 - 3e-6)})
        assert unread(began + 3599) == pytest.approx({"5m": 2000 * (3.75e-6 - 3e-6)})
        assert unread(ended + 3601) == pytest.approx({"5m": 2000 * (3.75e-6 - 3e-6), "1h": 3000 * (6e-6 - 3e-6)})


def test_an_unknown_price_is_counted_and_costs_nothing(clients: Clients) -> None:
    with observed() as seen, route("/chat"):
        clients.anthropic.messages.create(**message(text(2000), text(10), model="claude-of-tomorrow"))
        assert seen.points("promptcache.unpriced.calls") == {
            frozenset(
                {
                    "gen_ai.provider.name": "anthropic",
                    "gen_ai.request.model": "claude-of-tomorrow",
                    "promptcache.route": "/chat",
                }.items()
            ): 1
        }
        assert seen.points("promptcache.cost") == {}
        assert seen.total("gen_ai.client.inference.usage.input_tokens") == 2010


def test_prices_turned_off_are_not_unknown(clients: Clients) -> None:
    with observed(prices="off") as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert seen.points("promptcache.cost") == {}
        assert seen.points("promptcache.unpriced.calls") == {}


def test_missing_usage_is_counted_and_leaves_the_sums_alone(clients: Clients) -> None:
    """Neither numerator nor denominator of the hit rate knows of such a call; a failed call misses nothing."""
    with observed() as seen:
        clients.anthropic.messages.create(
            **message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"}
        )
        with pytest.raises(Exception, match="529"):
            clients.anthropic.messages.create(
                **message(text(2000), text(10)), extra_headers={"x-emulator-fault": "529"}
            )
        assert seen.total("promptcache.usage_missing.calls") == 1
        assert seen.total("gen_ai.client.inference.usage.input_tokens") == 0
        assert seen.total("promptcache.calls") == 2


def test_time_to_first_chunk_is_of_streams(clients: Clients) -> None:
    with observed() as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert "gen_ai.client.operation.time_to_first_chunk" not in seen.metrics()
        for _ in clients.anthropic.messages.create(**message(text(2000), text(10), stream=True)):
            pass
        metrics = seen.metrics()
        (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"].data.data_points
        assert (first.count, dict(first.attributes)["promptcache.status"]) == (1, "hit")
        assert sum(point.count for point in metrics["gen_ai.client.operation.duration"].data.data_points) == 2


# --- Labels -------------------------------------------------------------------------------------------------


def test_a_label_keeps_a_hundred_values(clients: Clients) -> None:
    """150 routes are 100 and ``__other__``, and no call is lost."""
    with observed(mode="tokens") as seen:
        for number in range(150):
            with route(f"/chat/{number}"):
                clients.anthropic.messages.create(**message(text(10), text(10)))
        calls: dict[str, float] = {}
        for labels, value in seen.points("promptcache.calls").items():
            calls[dict(labels)["promptcache.route"]] = value
        assert len(calls) == 101
        assert calls["/chat/99"] == 1
        assert "/chat/100" not in calls
        assert calls["__other__"] == 50


def test_team_and_feature_are_labels(clients: Clients) -> None:
    with observed() as seen, attribute(team="search", feature="summary", tenant="acme", user="alice"):
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        (labels,) = map(dict, seen.points("promptcache.calls"))
        assert labels["promptcache.attr.team"] == "search"
        assert labels["promptcache.attr.feature"] == "summary"
        assert not {"promptcache.attr.tenant", "promptcache.attr.user"} & set(labels)


def test_the_keys_that_become_labels_are_a_setting(clients: Clients) -> None:
    with observed(metric_keys="tenant") as seen, attribute(team="search", tenant="acme"):
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        (labels,) = map(dict, seen.points("promptcache.calls"))
        assert labels["promptcache.attr.tenant"] == "acme"
        assert "promptcache.attr.team" not in labels


def test_what_has_no_bound_is_no_label(clients: Clients) -> None:
    """Cause, path, conversation, user: neither the names nor the values are in any metric."""
    with observed() as seen, conversation("conversation-17"), attribute(user="alice-the-user"):
        for first in ("one", "two"):
            clients.anthropic.messages.create(**message(f"{first}\n" + text(1999), text(10)))
        said = seen.calls[1].attributes or {}
        assert (said["promptcache.path"], said["promptcache.cause"]) == ("system[0]", "edited")
        written = json.dumps([json.loads(metric.to_json()) for metric in seen.metrics().values()])
        for word in (
            *("promptcache.cause", "promptcache.path", "gen_ai.conversation.id", "promptcache.attr.user"),
            *("system[0]", "edited", "conversation-17", "alice-the-user", str(said["promptcache.attr.user"])),
        ):
            assert word not in written


# --- What others record -------------------------------------------------------------------------------------


def test_the_older_histogram_is_opt_in(clients: Clients) -> None:
    name = "gen_ai.client.token.usage"
    with observed() as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert name not in seen.metrics()
    with observed(token_usage_metric="true") as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        points = seen.metrics()[name].data.data_points
        assert {dict(point.attributes)["gen_ai.token.type"]: point.sum for point in points} == {
            "input": 2010,
            "output": 50,
        }


@pytest.mark.parametrize(
    ("scope", "recorded"),
    [("some.instrumentation", False), ("com.anthropic.sdk.python", True)],
    ids=["an instrumentation", "the SDK itself, which has no metrics"],
)
def test_the_duration_is_left_to_an_owner_that_records_it(clients: Clients, scope: str, recorded: bool) -> None:
    with observed() as seen:
        tracer = seen.tracer_provider.get_tracer(scope)
        attributes = {"gen_ai.operation.name": "chat"}
        with tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=attributes):
            clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert ("gen_ai.client.operation.duration" in seen.metrics()) is recorded
        assert seen.total("promptcache.calls") == 1


# --- Taken out and put in again -----------------------------------------------------------------------------


def test_counters_go_on_when_instrumented_again(clients: Clients) -> None:
    """What was counted is still there to be collected after ``uninstrument``, and goes on with ``instrument``."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])

    def calls() -> float:
        return sum(point.value for point in collected(reader)["promptcache.calls"].data.data_points)

    for expected in (1, 2):
        otel_promptcache.instrument(meter_provider=meters)
        clients.anthropic.messages.create(**message(text(10), text(10)))
        running = runtime.running()
        assert running is not None
        otel_promptcache.uninstrument()
        assert calls() == expected
    clients.anthropic.messages.create(**message(text(10), text(10)))
    assert calls() == 2
    meters.shutdown()


def test_openai_counts_alike(clients: Clients) -> None:
    """A prompt of 2560 tokens: none read at first, then all of it in whole granules of 128."""
    with observed() as seen:
        for _ in range(2):
            clients.openai.chat.completions.create(
                model="gpt-4.1-mini", messages=[{"role": "user", "content": text(2560)}], max_tokens=500
            )
        usage = "gen_ai.client.inference.usage."
        assert seen.total(usage + "input_tokens") == 5120
        assert seen.total(usage + "cache_read.input_tokens") == 2560
        assert seen.total("promptcache.cost") == pytest.approx(2560 * 0.4e-6 + 2560 * 0.1e-6 + 100 * 1.6e-6)
