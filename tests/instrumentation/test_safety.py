"""The switches: how much is done for each call, when it pauses by itself, and what is said about it, once."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time

import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider

import otel_promptcache
from otel_promptcache import settings
from otel_promptcache._collection import collected
from otel_promptcache.history.memory import Memory
from otel_promptcache.instrumentation import runtime
from otel_promptcache.observer import Breaker

AM = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
}
DIAGNOSIS = ("promptcache.status", "promptcache.prefix.id", "promptcache.lineage.id", "promptcache.fingerprint")
MONEY = ("gen_ai.usage.input_tokens", "promptcache.cost.total")


def ask(clients, count=1, **more):
    for _ in range(count):
        clients.anthropic.messages.create(**{**AM, **more})


def stands(span, names):
    return [name in span.attributes for name in names]


def lines(caplog):
    """What we logged, without the name that each line begins with."""
    return [record.getMessage() for record in caplog.records if record.name == "otel_promptcache"]


# --- MODE and PERCENT ---------------------------------------------------------------------------------------


def test_mode_diagnose(clients, observe, quiet):
    """Fingerprint, verdict, tokens and money."""
    telemetry = observe(mode="diagnose")
    ask(clients)
    assert all(stands(telemetry.span, DIAGNOSIS + MONEY))


def test_mode_tokens(clients, observe, quiet):
    """Tokens and money only; the prompt is not looked at."""
    telemetry = observe(mode="tokens", ledger="true", prompt_map="true")
    ask(clients)
    assert not any(stands(telemetry.span, DIAGNOSIS))
    assert all(stands(telemetry.span, MONEY))
    assert telemetry.total("promptcache.cost") == pytest.approx(0.010575)
    assert len(telemetry.events()) == 1
    assert telemetry.events("promptcache.prompt") == []
    assert len(runtime.running().observer.history) == 0


def test_mode_off(clients, observe, provider, quiet):
    """Nothing at all."""
    telemetry = observe(mode="off", ledger="true")
    ask(clients)
    assert (telemetry.spans, telemetry.events(), telemetry.points("promptcache.calls")) == ([], [], [])
    assert len(provider.asked) == 1


@pytest.mark.parametrize(("percent", "least", "most"), [("0", 0, 0), ("100", 200, 200), ("25", 30, 70)])
def test_percent(percent, least, most, connect, http, observe, quiet):
    """That share of calls is diagnosed; tokens and money are those of all."""
    random.seed(7)
    usage = {"input_tokens": 100, "output_tokens": 0}
    answer = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": []}
    clients = connect(respond=lambda _: http.Response(200, json={**answer, "usage": usage}))
    telemetry = observe(percent=percent)
    ask(clients, 200)
    assert least <= sum("promptcache.status" in span.attributes for span in telemetry.spans) <= most
    assert telemetry.total("promptcache.cost") == pytest.approx(200 * 0.0003)


# --- The configuration file ---------------------------------------------------------------------------------


def test_the_configuration_file_is_read_again(clients, observe, tmp_path, monkeypatch, caplog):
    """Mode and percent change under way; a broken file changes nothing and is reported once."""
    monkeypatch.setattr(settings, "RECHECK_SECONDS", 0)
    file = tmp_path / "promptcache.toml"
    file.write_text('mode = "tokens"')
    telemetry = observe(config_file=str(file), mode="off")

    def diagnosed():
        before = len(telemetry.spans)
        ask(clients)
        return ["promptcache.status" in span.attributes for span in telemetry.spans[before:]]

    assert diagnosed() == [False]
    file.write_text('mode = "diagnose"')
    assert diagnosed() == [True]
    file.write_text('mode = "diagnose"\npercent = 0')
    assert diagnosed() == [False]
    file.write_text("mode = [")
    assert diagnosed() == [False]
    assert diagnosed() == [False]
    file.write_text('mode = "sometimes"  # a typing error: the default holds')
    assert diagnosed() == [True]
    file.unlink()
    assert diagnosed() == [True]
    file.write_text('mode = "off"')
    assert diagnosed() == []
    assert lines(caplog) == [
        f"otel-promptcache: OTEL_PROMPTCACHE_CONFIG_FILE{said}"
        for said in (
            ": TOMLDecodeError: the file cannot be read as TOML; nothing is changed",
            ": mode takes one of off, tokens, diagnose; using diagnose",
            ": FileNotFoundError: the file cannot be read as TOML; nothing is changed",
        )
    ]


def test_a_call_keeps_the_settings_it_began_with(clients, provider, observe, tmp_path, monkeypatch, quiet):
    """Turning us off in the middle of a stream does not cut it in half."""
    monkeypatch.setattr(settings, "RECHECK_SECONDS", 0)
    file = tmp_path / "promptcache.toml"
    file.write_text('mode = "diagnose"')
    telemetry = observe(config_file=str(file))
    stream = clients.anthropic.messages.create(stream=True, **{**AM, "model": "claude-sonnet-4-6+hold"})
    next(iter(stream))
    file.write_text('mode = "off"')
    provider.release.set()
    list(stream)
    ask(clients)
    assert telemetry.span.attributes["gen_ai.usage.output_tokens"] == 50
    assert telemetry.total("promptcache.calls") == 1


def test_a_value_that_cannot_be_used(clients, observe, caplog):
    """One line names the setting and what it takes, and the default holds."""
    telemetry = observe(mode="sometimes", percent="many")
    ask(clients)
    assert all(stands(telemetry.span, DIAGNOSIS + MONEY))
    assert lines(caplog) == [
        "otel-promptcache: OTEL_PROMPTCACHE_MODE takes one of off, tokens, diagnose; using diagnose",
        "otel-promptcache: OTEL_PROMPTCACHE_PERCENT takes a number from 0 to 100; using 100.0",
    ]


# --- The breaker --------------------------------------------------------------------------------------------


def test_a_budget_that_is_exceeded(clients, observe, caplog):
    """Diagnosis pauses, one line says so, and tokens and money go on."""
    telemetry = observe(budget_ms="0.0001")
    ask(clients, 4)
    assert [all(stands(span, DIAGNOSIS)) for span in telemetry.spans] == [True, False, False, False]
    assert [all(stands(span, MONEY)) for span in telemetry.spans] == [True] * 4
    assert telemetry.total("promptcache.cost") == pytest.approx(4 * 0.010575)
    (line,) = lines(caplog)
    assert line.startswith("otel-promptcache: diagnosis pauses for 60 s (a call cost ")
    assert "OTEL_PROMPTCACHE_BUDGET_MS" in line


def test_a_pause_ends(clients, observe, caplog):
    """After a minute diagnosis is tried again; the next pause is not announced anew."""
    telemetry = observe(budget_ms="0.0001")
    now = [1000.0]
    runtime.running().observer.breaker = Breaker(clock=lambda: now[0])
    found = []
    for seconds in (0, 10, 51, 1, 60):
        now[0] += seconds
        ask(clients)
        found.append("promptcache.status" in telemetry.spans[-1].attributes)
    assert found == [True, False, True, False, True]
    assert len(lines(caplog)) == 1


def test_a_collection_of_garbage_is_not_our_doing(clients, observe, monkeypatch, quiet):
    """It begins wherever memory is asked for, and takes as long as the application has objects."""
    observe(budget_ms="40")
    sent = Memory.sent

    def interrupted(*args, **kwargs):
        gc.collect()
        return sent(*args, **kwargs)

    monkeypatch.setattr(Memory, "sent", interrupted)
    held = [[n] for n in range(1_500_000)]
    before = collected()
    ask(clients, 6)
    assert collected() - before > 6 * 0.04
    assert not runtime.running().observer.breaker.open
    assert held


def test_no_budget(clients, observe, quiet):
    """Zero is no limit."""
    telemetry = observe(budget_ms="0")
    ask(clients, 5)
    assert [all(stands(span, DIAGNOSIS)) for span in telemetry.spans] == [True] * 5


def test_overhead_is_measured(clients, telemetry, quiet):
    """Our own time on the caller's thread, by phase."""
    ask(clients, 20)
    phases = {labels["promptcache.phase"]: point for labels, point in telemetry.points("promptcache.overhead")}
    assert set(phases) == {"request", "response"}
    assert all(point.count > 0 and 0 < point.sum < 60 for point in phases.values())


# --- Errors of ours -----------------------------------------------------------------------------------------


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_errors_are_counted_and_said_once(clients, telemetry, monkeypatch, caplog):
    """Each kind of error in each room is one line, however often it happens; after five diagnosis pauses."""
    monkeypatch.setattr(runtime.running().observer.history, "sent", failing(ValueError("secret")))
    ask(clients, 8)
    assert telemetry.points("promptcache.internal.errors") == [({"promptcache.where": "fingerprint"}, 5)]
    said = lines(caplog)
    assert len(said) == 2
    assert said[0].startswith("otel-promptcache: ValueError in fingerprint (observer/")
    assert said[1].startswith("otel-promptcache: diagnosis pauses for 60 s (errors in fingerprint)")
    assert "secret" not in "".join(said)
    assert [all(stands(span, MONEY)) for span in telemetry.spans] == [True] * 8


def test_errors_of_another_kind_are_said_too(clients, telemetry, monkeypatch, caplog):
    """A second type in the same room is news."""
    history = runtime.running().observer.history
    for error in (ValueError(), KeyError(), ValueError()):
        monkeypatch.setattr(history, "sent", failing(error))
        ask(clients)
    assert [line.split()[1] for line in lines(caplog)] == ["ValueError", "KeyError"]
    assert telemetry.total("promptcache.internal.errors") == 3


@pytest.mark.usefixtures("_prices")
def test_nobody_listens(clients, caplog):
    """Without an SDK that takes anything, one line says so and what to do."""
    otel_promptcache.instrument(tracer_provider=trace.NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    ask(clients, 3)
    (line,) = lines(caplog)
    assert line.startswith("otel-promptcache: calls are observed, but nothing is exported: ")
    assert "opentelemetry-instrument" in line


# --- Prices -------------------------------------------------------------------------------------------------


def test_prices_off(clients, observe, quiet):
    """No cost anywhere, and nothing missing is reported: it was asked for."""
    telemetry = observe(prices="off", ledger="true")
    ask(clients)
    attributes = telemetry.span.attributes
    assert attributes["gen_ai.usage.input_tokens"] == 5100
    assert [name for name in attributes if "cost" in name or "price" in name or "usd" in name] == []
    assert telemetry.points("promptcache.cost") == telemetry.points("promptcache.unpriced.calls") == []
    assert [name for event in telemetry.events() for name in event if "cost" in name] == []


def test_an_unknown_price(clients, observe, caplog):
    """The cost is absent, not zero; the calls are counted by model, and it is said once a model."""
    telemetry = observe(ledger="true")
    ask(clients, 3, model="claude-of-tomorrow")
    ask(clients, 1, model="claude-of-next-week")
    ask(clients)
    unknown = telemetry.spans[:4]
    assert [name for span in unknown for name in span.attributes if "cost" in name or "usd" in name] == []
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in unknown] == [5100] * 4
    by_model = {labels["gen_ai.request.model"]: n for labels, n in telemetry.points("promptcache.unpriced.calls")}
    assert by_model == {"claude-of-tomorrow": 3, "claude-of-next-week": 1}
    assert telemetry.total("promptcache.cost") == pytest.approx(0.010575)
    assert [line.split(";")[0] for line in lines(caplog)] == [
        "otel-promptcache: no price is known for model 'claude-of-tomorrow' of provider 'anthropic'",
        "otel-promptcache: no price is known for model 'claude-of-next-week' of provider 'anthropic'",
    ]


# --- Many at once -------------------------------------------------------------------------------------------


def test_many_threads(connect, http, observe, caplog):
    """Two hundred calls from eight threads: every one is counted, priced and on a span of its own."""
    usage = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    answer = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": []}
    clients = connect(respond=lambda _: http.Response(200, json={**answer, "usage": usage}))
    telemetry = observe(budget_ms="0")
    client = clients.anthropic

    def calls(number):
        for turn in range(25):
            messages = [{"role": "user", "content": f"{number} says {said}"} for said in range(turn % 5 + 1)]
            client.messages.create(**{**AM, "messages": messages})

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 300
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    assert len(telemetry.spans) == 200
    assert telemetry.total("promptcache.calls") == 200
    assert telemetry.total("gen_ai.client.inference.usage.input_tokens") == 20_000
    # 100 x 3 + 1 x 15 a million
    assert telemetry.total("promptcache.cost") == pytest.approx(200 * 0.000315)
    assert telemetry.total("promptcache.internal.errors") == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
