"""``promptcache.prefix.changed``: the journal's event, as an exporter gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.application import Clients, fields, message, observed, text

from otel_promptcache import attribute, prompt, route

RULES = "".join(f"Rule {number}: be kind.\n" for number in range(20)) + text(2000)
TURN = text(20)


def ask(clients: Clients, system: str, times: int, **more: Any) -> None:
    for _ in range(times):
        clients.anthropic.messages.create(**message(system, TURN, **more))


def test_the_event(clients: Clients) -> None:
    """Once, in the trace of the first call that had the new prefix, with the time of that call; every field that it
    has."""
    with observed(hash_key="k") as seen:
        with route("/chat"), attribute(team="search"):
            with prompt("rules", version="7"):
                ask(clients, RULES, 3)
            with prompt("rules", version="8"):
                ask(clients, RULES.replace("Rule 7:", "RULE 7:"), 4)
        (record,) = seen.events("promptcache.prefix.changed")
        told = fields(record)
        assert told.pop("promptcache.change.old.fingerprint").startswith("system:")
        assert told.pop("promptcache.change.new.fingerprint").startswith("system:")
        assert told.pop("promptcache.key.id")
        assert told == {
            "promptcache.route": "/chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-6",
            "promptcache.change.pattern": "once",
            "promptcache.change.section": "system",
            "promptcache.change.calls_per_hour": 6,
            "promptcache.change.old.prompt.version": "7",
            "promptcache.change.new.prompt.version": "8",
            "gen_ai.prompt.name": "rules",
            "promptcache.reason": "system_changed",
            "promptcache.cause": "edited",
            "promptcache.path": "system[0]",
            "promptcache.line": 8,
            "promptcache.schema": 1,
        }
        first = seen.calls[3]
        assert (record.trace_id, record.span_id) == (first.context.trace_id, first.context.span_id)
        # A float of seconds is rounded.
        assert first.start_time - 10**6 <= record.timestamp <= first.end_time


def test_a_deploy(clients: Clients, tmp_path: Path) -> None:
    """Two processes of two versions, with a file between them."""
    file = str(tmp_path / "journal.json")
    told = []
    for version, system in (("1.4", RULES), ("1.5", RULES + "One more.")):
        with observed(hash_key="k", journal_file=file, service_version=version) as seen, route("/chat"):
            ask(clients, system, 3)
            told += [fields(record) for record in seen.events("promptcache.prefix.changed")]
    (change,) = told
    assert change["promptcache.change.old.service.version"] == "1.4"
    assert change["promptcache.change.new.service.version"] == "1.5"
    assert change["promptcache.change.pattern"] == "once"


def test_every_request(clients: Clients) -> None:
    """A time in the system prompt: one event, not one a call."""
    with observed() as seen, route("/chat"):
        for minute in range(10, 20):
            ask(clients, f"It is 09:{minute}.\n" + RULES, 1)
        (record,) = seen.events("promptcache.prefix.changed")
        told = fields(record)
        assert (told["promptcache.change.pattern"], told["promptcache.cause"], told["promptcache.line"]) == (
            "every_request",
            "timestamp",
            1,
        )


def test_conversations_change_nothing(clients: Clients) -> None:
    """Nor do cache keys, accounts or growing histories."""
    with observed() as seen, route("/chat"):
        for number in range(4):
            for turns in (1, 3, 5):
                said = [text(20, f"t{number}{turn}") for turn in range(turns)]
                clients.anthropic.messages.create(**message(RULES, *said))
            clients.openai.responses.create(
                model="gpt-5.6", instructions=RULES, input=text(20, "in "), prompt_cache_key=f"user {number}"
            )
        assert seen.events("promptcache.prefix.changed") == []


@pytest.mark.parametrize("settings", [{"journal": "false"}, {"mode": "tokens"}, {"percent": "0"}])
def test_switched_off(settings: dict[str, str], clients: Clients) -> None:
    with observed(**settings) as seen, route("/chat"):
        ask(clients, RULES, 2)
        ask(clients, RULES + "One more.", 4)
        assert seen.events("promptcache.prefix.changed") == []


def test_a_file_without_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Could compare nothing: it says what is missing, and writes none."""
    with observed(journal_file=str(tmp_path / "journal.json")):
        pass
    (said,) = [line for record in caplog.records if "JOURNAL_FILE" in (line := record.getMessage())]
    assert said.startswith(
        "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE is left alone without OTEL_PROMPTCACHE_HASH_KEY: "
    )
    assert list(tmp_path.iterdir()) == []
