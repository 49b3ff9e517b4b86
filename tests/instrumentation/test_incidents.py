"""What went wrong with other instrumentations, as their users reported it: right with us, and still wrong there.

Each judge names what is wrong with a call. It finds nothing with us alone, over the real SDK and HTTP; it finds
something with the neighbours named beside it, each in an environment of its own (``make neighbours``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from neighbours import BY_NAME, TOKENS, bearers, made, total, wanted
from neighbours.incidents import INCIDENTS

OUTPUT = "gen_ai.usage.output_tokens"
READ, WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"
COST = "promptcache.cost.total"
PRICE = 0.010575
"""USD: 100 at 3, 3000 read at 0.3, 1500 written at 3.75 and 500 at 6, 50 out at 15, a million."""


def said(call, *names):
    """The values of attributes on the spans of a call, whichever of the names is used."""
    return [span["attributes"][name] for span in call["spans"] for name in names if name in span["attributes"]]


def no_span(call):
    return [] if call["spans"] else ["no span"]


def application(expected):
    """The application gets what it would get without anybody."""

    def judge(call):
        return [] if call["result"] == expected else [f"the application gets {call['result']}"]

    return judge


def output_of_fifty(call):
    return [] if said(call, OUTPUT) == [50] else [f"output tokens {said(call, OUTPUT)}"]


def all_ended(call):
    leaked = [f"{call['unended']} spans never end"] if call["unended"] else []
    return leaked + ([] if len(call["spans"]) == 20 else [f"{len(call['spans'])} spans for 20 calls"])


def nothing_logged(call):
    return [*call["log"], *([] if call["current"] else ["another span is current afterwards"])]


def one_span(call):
    wrong = [f"{len(call['spans'])} spans"] if len(call["spans"]) != 1 or call["unended"] else []
    return wrong + ([] if all(span["parent"] == call["root"] for span in call["spans"]) else ["another parent"])


def an_error(call):
    return [f"status {span['status']}" for span in call["spans"] if span["status"] != "ERROR"] or no_span(call)


def whole(call):
    few = [f"{span['dropped']} attributes dropped" for span in call["spans"] if span["dropped"]]
    many = [f"{len(span['attributes'])} attributes" for span in call["spans"] if len(span["attributes"]) > 64]
    models = [] if said(call, "gen_ai.request.model", "llm.model_name") else ["no model"]
    return few + many + models


def all_input(call):
    return [] if total(call) == 5100 else [f"input tokens {total(call)}"]


def by_class(call):
    found = said(call, READ), said(call, WRITE)
    return [] if found == ([3000], [2000]) else [f"read and written {found}"]


def exact_cost(call):
    found = said(call, COST, "gen_ai.usage.cost", "operation.cost")
    return [] if found == [pytest.approx(PRICE, abs=1e-9)] else [f"cost {found}"]


def once(tokens):
    def judge(call):
        return [] if total(call) == tokens else [f"{total(call)} tokens in the trace of one call of {tokens}"]

    return judge


def cached(read, write=None):
    def judge(call):
        found = said(call, READ), said(call, WRITE, "gen_ai.usage.cache_creation.input_tokens")
        return [] if found == ([read], [] if write is None else [write]) else [f"read and written {found}"]

    return judge


class Incident(NamedTuple):
    """A call, what is right of it, and who gets it wrong still."""

    number: str
    call: str
    judges: tuple[Callable[[Any], list[str]], ...]
    wrong: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    """Who had it wrong, and has mended it in the version that is run."""
    native: bool = False


TEXT = '{"answer": "ok"}'
REPORTED = [
    # The number is that of the report: repository and issue, or pull request.
    Incident("openllmetry#3701", "beta_async_helper", (application(50), output_of_fifty), ("openllmetry",)),
    Incident(
        "openinference#2467",
        "helper_keeps_its_methods",
        (application(["MessageStream", TEXT, True]),),
        ("openlit",),
        ("openinference",),
    ),
    Incident("openllmetry#4377", "stream_output_once", (output_of_fifty,), ("openllmetry",)),
    Incident(
        "opentelemetry-python-genai#380",
        "raw_response",
        (application([200, 50]), output_of_fifty),
        ("traceai",),
        ("opentelemetry",),
    ),
    Incident("opentelemetry-python-genai#491", "abandoned_streams", (all_ended,), ("openllmetry",)),
    Incident("openlit#1369", "stream_of_another_task", (nothing_logged,), ("opentelemetry",), ("openlit",)),
    Incident("openlit#1454", "chat_streams_closed_early", (all_ended,), ("openlit",)),
    Incident("openlit#1460", "one_span_a_stream", (one_span,), ("logfire",), ("openlit",)),
    Incident(
        "opentelemetry-python-genai#397",
        "error_in_streaming_response",
        (application("APIError"), an_error),
        ("traceai", "opentelemetry"),
    ),
    Incident("openllmetry#4429", "error_in_a_stream", (application("APIStatusError"), an_error), ("openllmetry",)),
    Incident("openinference#3527", "long_conversation", (whole,), ("openinference", "traceai")),
    Incident("logfire#1812", "cached_input_is_input", (all_input,), ("traceai", "openlit"), ("logfire",)),
    Incident("openinference#2381", "cached_input_is_input", (by_class,), ("traceai", "openlit")),
    Incident("otari#357", "cached_input_is_input", (exact_cost,), ("openlit", "traceai")),
    Incident("openinference#2101", "inside_an_agent", (once(5000),), (), ("opentelemetry",)),
    Incident("openinference#2101", "cached_input_is_input", (once(5100),), ("opentelemetry",), (), native=True),
    Incident("software-agent-sdk#4491", "deepseek", (cached(64),), ("opentelemetry", "openllmetry", "openlit")),
    Incident("openllmetry#3395", "responses_stream_has_a_span", (one_span,), (), ("openllmetry",)),
    Incident("haystack#8507", "no_chunk_is_added", (application([True] * 4),), (), ("opentelemetry", "openllmetry")),
]


def complaints(incident, call):
    return [complaint for judge in incident.judges for complaint in judge(call)]


@pytest.fixture
def url(_provider):
    return _provider.url


@pytest.mark.parametrize("incident", REPORTED, ids=lambda one: f"{one.number} {one.call}")
def test_right_with_us(incident, url):
    """Nothing is wrong."""
    calls = list(dict.fromkeys(one.call for one in REPORTED))
    call = made(url, "", ["ours"], calls, native=incident.native)["calls"][incident.call]
    assert complaints(incident, call) == []
    assert bearers(call)


def _pairs(field):
    return [
        pytest.param(incident, name, id=f"{incident.number} {incident.call} {name}")
        for incident in REPORTED
        for name in getattr(incident, field)
    ]


@pytest.mark.neighbours
@pytest.mark.parametrize(("incident", "neighbour"), _pairs("wrong"))
def test_still_wrong_there(incident, neighbour, url):
    """The judge can fail: it does so with the neighbour."""
    assert complaints(incident, beside(incident, neighbour, url))


@pytest.mark.neighbours
@pytest.mark.parametrize(("incident", "neighbour"), _pairs("mended"))
def test_mended_there(incident, neighbour, url):
    """What was reported is so no longer; the table says the truth."""
    assert complaints(incident, beside(incident, neighbour, url)) == []


def beside(incident, neighbour, url):
    """The call with the neighbour and without us."""
    if not wanted(neighbour):
        pytest.skip(f"make neighbours PEERS={neighbour} runs it")
    calls = [one for one in INCIDENTS if one != "manual_span"]
    return made(url, neighbour, BY_NAME[neighbour].starts, calls, native=incident.native)["calls"][incident.call]


def test_every_report_is_here():
    """The fifteen that were collected, and more."""
    assert len({incident.number for incident in REPORTED}) >= 15
    assert {incident.call for incident in REPORTED} == INCIDENTS.keys() - {"manual_span", "openrouter"}
    assert TOKENS == "gen_ai.usage.input_tokens"
