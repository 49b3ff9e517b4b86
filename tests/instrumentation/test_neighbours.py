"""Beside every other instrumentation, before it and after it: the application's results, and one count of tokens.

Each runs for real, in an environment of its own (``tests/neighbours``): ``make neighbours`` installs them.
"""

from __future__ import annotations

import pytest
from neighbours import BY_NAME, INPUT, NEW, TOKENS, bearers, interpreter, made, model_spans, role, total, wanted
from neighbours.calls import CALLS

NATIVE = [False, True]
ORDERS = ["after it", "before it"]


def expected(call):
    """Input tokens by the provider's own account."""
    return INPUT[call.partition("_")[0]]


def start(neighbour, order):
    """Names of those who are started, in order."""
    theirs = list(BY_NAME[neighbour].starts)
    return [*theirs, "ours"] if order == "after it" else ["ours", *theirs]


@pytest.fixture
def url(_provider):
    return _provider.url


# --- Alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", NATIVE, ids=["no span of the SDK", "native span"])
def test_alone(native, url):
    """Alone, or with the SDK's own span only, the sum over each trace is what the provider counted."""
    without_us = made(url, "", [], list(CALLS), native=native)["calls"]
    seen = made(url, "", ["ours"], list(CALLS), native=native)
    for name, call in seen["calls"].items():
        assert call["result"] == without_us[name]["result"]
        assert total(call) == expected(name), name
        assert (len(bearers(call)), call["unended"], call["log"], call["current"]) == (1, 0, [], True)
    assert seen["counted"]["otel_promptcache promptcache.calls"] == len(CALLS)


# --- Beside others ------------------------------------------------------------------------------------------

BESIDE = [
    pytest.param(name, order, native, id=f"{order.partition(' ')[0]} {name}{', native' if native else ''}")
    for name, one in BY_NAME.items()
    for order in ORDERS
    for native in (NATIVE if one.sdks == NEW else [False])
]


@pytest.mark.neighbours
@pytest.mark.parametrize(("neighbour", "order", "native"), BESIDE)
def test_beside(neighbour, order, native, url):
    """The sum of input tokens over a trace is what it is without us, and every call is observed once."""
    if not wanted(neighbour):
        pytest.skip(f"make neighbours PEERS={neighbour} runs it")
    interpreter(neighbour)
    one = BY_NAME[neighbour]
    without_us = made(url, neighbour, one.starts, list(CALLS), native=native)["calls"]
    seen = made(url, neighbour, start(neighbour, order), list(CALLS), native=native)
    first = next(iter(CALLS))
    for name, call in seen["calls"].items():
        alone = without_us[name]
        assert call["result"] == alone["result"], name
        assert call["unended"] <= alone["unended"], name
        found = model_spans(alone)
        only_native = all(span["scope"].startswith("com.anthropic") for span in found)
        assert total(call) == (expected(name) if only_native and works(alone) else total(alone)), name
        # A provider of tracers that comes after us, and suppresses what is in it, is met with the first call.
        unmet = (neighbour, order, name) == ("logfire", "before it", first)
        assert len(bearers(call)) == (0 if unmet and native else 1), name
        assert [line for line in call["log"] if "promptcache" in line] == [], name
    counted = seen["counted"].get("otel_promptcache promptcache.calls", len(CALLS))
    assert counted == len(CALLS)


def works(call):
    """Whether the neighbour let the application have its answer."""
    return "Error" not in str(call["result"])


@pytest.mark.neighbours
@pytest.mark.parametrize("neighbour", [name for name, one in BY_NAME.items() if one.opentelemetry])
def test_roles(neighbour, url):
    """A span that stands for the call is enriched while it records; ours is a companion only where that is too late."""
    if not wanted(neighbour):
        pytest.skip(f"make neighbours PEERS={neighbour} runs it")
    calls = made(url, neighbour, start(neighbour, "after it"), list(CALLS))["calls"]
    roles = {name: role(call) for name, call in calls.items()}
    late = LATE.get(neighbour, ())
    for name, found in roles.items():
        if name.startswith(late) if late else False:
            assert found in ("companion", "own"), name
        elif neighbour.startswith("http"):
            assert found == "own", name
        else:
            assert found.startswith(("enriched ", "companion")), name
            if found == "companion":
                assert "stream" in name or "helper" in name or "raw" in name, name


LATE = {
    # Whose spans cannot be told to stand for a call when it is made.
    "openllmetry": ("responses",),
    "traceai": ("messages", "chat", "responses"),
    "openlit": ("messages_helper", "responses"),
}


@pytest.mark.neighbours
def test_the_snippet_of_an_article(url):
    """traceAI's own: ``register``, ``FITracer``, and a manual span with the cache's tokens. Counted once, with us."""
    if not wanted("traceai"):
        pytest.skip("make neighbours PEERS=traceai runs it")
    without_us = made(url, "traceai", ["register"], ["manual_span"])["calls"]["manual_span"]
    for order in (["register", "ours"], ["ours", "register"]):
        seen = made(url, "traceai", order, ["manual_span"])["calls"]["manual_span"]
        assert seen["result"] == without_us["result"] == [3000, 2000]
        assert total(seen) == (total(without_us) or 5100)
        assert len([span for span in seen["spans"] if TOKENS in span["attributes"]]) == 1
        assert len(bearers(seen)) == 1
        (manual,) = [span for span in seen["spans"] if "cache_read_tokens" in span["attributes"]]
        assert (manual["attributes"]["cache_read_tokens"], manual["attributes"]["cache_write_tokens"]) == (3000, 2000)


@pytest.mark.neighbours
def test_doctor_names_the_doubled_owner_and_the_switch(url):
    """With the SDK's own spans beside another's the tokens are there twice, and doctor has tried what helps."""
    import json
    import os
    import subprocess

    if not wanted("opentelemetry"):
        pytest.skip("make neighbours PEERS=opentelemetry runs it")
    python = interpreter("opentelemetry")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    done = subprocess.run(
        [str(python), "-m", "otel_promptcache", "doctor", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    said = json.dumps(json.loads(done.stdout))
    assert "tokens counted 2 times" in said
    assert "com.anthropic.sdk.python" in said
    assert "opentelemetry.instrumentation.genai.anthropic" in said
    assert "ANTHROPIC_OPEN_TELEMETRY=false" in said
