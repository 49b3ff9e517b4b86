"""What comes with a request beside its body as the application wrote it: headers, ``extra_body``, a client's own
preparations."""

from __future__ import annotations

import itertools
import json

import pytest

from otel_promptcache.observer import call

TEXT = " ".join(f"Rule {number}: a booking of kind {number} is kept for {number + 2} days." for number in range(400))
CONTROL = {"type": "ephemeral"}
MARKED = [{"type": "text", "text": TEXT, "cache_control": CONTROL}]
BARE = [{"type": "text", "text": TEXT}]
AM = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": MARKED,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
def answering(connect, http):
    """Clients of a provider that says these things, one after the other: (read, written) tokens."""

    def make(*counts, **options):
        numbers = itertools.count()
        left = iter(counts)

        def respond(request):
            read, written = next(left)
            usage = {
                "input_tokens": 6000 - read - written,
                "output_tokens": 5,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": written,
            }
            said = {"type": "message", "role": "assistant", "model": json.loads(request.content)["model"]}
            content = [{"type": "text", "text": "ok"}]
            return http.Response(
                200, json={**said, "id": f"msg_{next(numbers)}", "content": content, "stop_reason": "end_turn",
                           "stop_sequence": None, "usage": usage},
            )  # fmt: skip

        return connect(respond=respond, **options).anthropic

    return make


def verdicts(telemetry):
    names = ("promptcache.status", "promptcache.reason", "promptcache.cause", "promptcache.path")
    return [tuple(span.attributes.get(name) for name in names) for span in telemetry.token_spans]


def test_a_beta_feature_that_came_with_a_header(answering, observe, quiet):
    """The tools come first; what stands behind them is not where it was."""
    telemetry = observe()
    client = answering((0, 5900), (5900, 0), (0, 5900))
    for betas in (
        ["files-api-2025-04-14"],
        ["files-api-2025-04-14"],
        ["files-api-2025-04-14", "context-1m-2025-08-07"],
    ):
        client.beta.messages.create(**AM, betas=betas)
    assert verdicts(telemetry)[1][0] == "hit"
    assert verdicts(telemetry)[2] == ("miss", "parameters_changed", "beta_features", "betas")


def test_the_order_of_beta_features_says_nothing(answering, observe, quiet):
    telemetry = observe()
    client = answering((0, 5900), (5900, 0))
    for betas in (["b-2025-04-14", "a-2025-08-07"], ["a-2025-08-07", "b-2025-04-14"]):
        client.beta.messages.create(**AM, betas=betas)
    first, second = telemetry.token_spans
    assert first.attributes["promptcache.fingerprint"] == second.attributes["promptcache.fingerprint"]


def test_a_beta_feature_that_changes_nothing_is_no_miss(answering, observe, quiet):
    telemetry = observe()
    client = answering((0, 5900), (5900, 0))
    client.messages.create(**AM)
    client.messages.create(**AM, extra_headers={"anthropic-beta": "token-efficient-tools-2025-02-19"})
    assert verdicts(telemetry)[1] == ("hit", None, None, None)


def test_markers_that_extra_body_took_away(answering, observe, quiet):
    """The arguments mark the system prompt; what overrides them does not."""
    telemetry = observe()
    client = answering((0, 0), (0, 5900), (0, 0))
    client.messages.create(**AM, extra_body={"system": BARE})
    client.messages.create(**AM)
    client.messages.create(**AM, extra_body={"system": BARE})
    assert [one[:2] for one in verdicts(telemetry)] == [
        ("uncacheable", "marker_lost"),
        ("cold", None),
        ("miss", "marker_lost"),
    ]


def test_markers_that_a_client_of_somebodys_own_took_away(answering, observe, quiet):
    """A subclass that rewrites requests on their way: a gateway's client, an adapter."""
    telemetry = observe()
    client = answering((0, 0))
    prepare = client._prepare_options

    def without_marks(options):
        prepared = prepare(options)
        prepared = prepared if prepared is not None else options
        prepared.json_data = {**prepared.json_data, "system": BARE}
        return prepared

    client._prepare_options = without_marks
    client.messages.create(**AM)
    assert verdicts(telemetry)[0][:2] == ("uncacheable", "marker_lost")


@pytest.mark.parametrize(
    "extra", [None, {"metadata": {"user_id": "u"}}, {"system": MARKED}], ids=["none", "other", "marked"]
)
def test_markers_that_arrive(extra, answering, observe, quiet):
    telemetry = observe()
    client = answering((0, 5900))
    client.messages.create(**AM, extra_body=extra)
    assert verdicts(telemetry)[0][:2] == ("cold", None)


def test_nothing_was_marked(answering, observe, quiet):
    telemetry = observe()
    answering((0, 0)).messages.create(**{**AM, "system": BARE}, extra_body={"system": TEXT})
    assert verdicts(telemetry)[0][:2] == ("uncacheable", "breakpoint_missing")


def test_marks_are_looked_for_only_where_none_are_left(answering, observe, monkeypatch, quiet):
    looked = []
    monkeypatch.setattr(call, "marks", lambda body: looked.append(body) or False)
    observe()
    client = answering((0, 5900), (5900, 0))
    client.messages.create(**AM)
    client.messages.create(**AM, extra_body={"metadata": {"user_id": "u"}})
    assert looked == []
