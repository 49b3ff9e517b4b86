"""A price file beside calls that are made: whose prices they have, and what a file that is wrong does not do."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from servers.application import Clients, Observed, message, observed, text
from servers.canned import always

from otel_promptcache import attribute, pricing
from otel_promptcache.analysis.repricing import usage_of
from otel_promptcache.cli import main

HALF = '[[discount]]\nprovider = "anthropic"\npercent = 50\n'
BLUE = '[[discount]]\nprovider = "anthropic"\naccount = "blue"\npercent = 100\n'
COLD = 2000 * 3.75e-6 + 10 * 3e-6 + 50 * 15e-6
"""USD of the call that every test makes, by the price data."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prices.toml"


def ask(clients: Clients, number: int = 0) -> None:
    clients.anthropic.messages.create(**message(f"{number}---" + text(1999), text(10)))


def written_later(file: Path, content: str) -> None:
    """Writes a file as somebody would after a while, so that its time is another."""
    file.write_text(content)
    later = file.stat().st_mtime + 10
    os.utime(file, (later, later))


def looked_again(seen: Observed) -> None:
    """As if a second had passed."""
    seen.observer.prices._next_check = 0.0
    seen.observer.prices.current(seen.observer.live.value)
    seen.settle()


def cost(call: Any) -> float:
    return float(call["promptcache.cost.total"])


def test_a_discount(clients: Clients, file: Path) -> None:
    """On span, ledger and counter, each of which says what the price came from."""
    file.write_text(HALF)
    with observed(price_file=str(file), ledger="true") as seen:
        ask(clients)
        assert cost(seen.call) == pytest.approx(COLD / 2)
        assert cost(seen.ledger[0]) == pytest.approx(COLD / 2)
        assert seen.total("promptcache.cost") == pytest.approx(COLD / 2)
        assert " + prices.toml " in seen.call["promptcache.price.version"]


@pytest.mark.parametrize(
    ("named", "said", "usd"),
    [("", "", COLD), ("blue", "", 0.0), ("", "blue", 0.0), ("blue", "red", COLD)],
    ids=["nobody's", "by the setting", "by the application", "the application wins"],
)
def test_accounts(clients: Clients, file: Path, named: str, said: str, usd: float) -> None:
    """Whose prices hold says a setting, or the application where it knows better."""
    file.write_text(BLUE)
    with observed(price_file=str(file), account=named, ledger="true") as seen:
        if said:
            with attribute(account=said):
                ask(clients)
        else:
            ask(clients)
        assert cost(seen.call) == pytest.approx(usd)
        assert seen.ledger[0].get("promptcache.price.account", "") == (said or named)


@pytest.mark.parametrize("content", ["[[discount]]\npercent = -1", "[[", None], ids=["wrong", "no TOML", "not there"])
def test_a_file_that_is_wrong(
    clients: Clients, file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls have the prices of the price data; it is said once and counted."""
    if content is not None:
        file.write_text(content)
    with caplog.at_level(logging.WARNING), observed(price_file=str(file)) as seen:
        for number in range(3):
            ask(clients, number)
        assert [cost(call.attributes) for call in seen.calls] == pytest.approx([COLD] * 3)
        errors = seen.points("promptcache.internal.errors")
        assert errors == {frozenset({("promptcache.where", "prices")}): 1}
    (said,) = [record.getMessage() for record in caplog.records if "PRICE_FILE" in record.getMessage()]
    assert "OTEL_PROMPTCACHE_PRICE_FILE is not used: prices.toml" in said
    assert said.endswith("Costs are those of the price data")


def test_a_file_that_changes(clients: Clients, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is read again; a change for the worse leaves what was in force, and mending it helps."""
    file.write_text(HALF)
    with caplog.at_level(logging.WARNING), observed(price_file=str(file)) as seen:
        ask(clients, 1)
        assert seen.observer.worker.flush(60)  # the first call may still wait for prices to be loaded
        for number, content in enumerate((HALF.replace("50", "25"), "[[nonsense", HALF), 2):
            written_later(file, content)
            looked_again(seen)
            ask(clients, number)
        found = [cost(call.attributes) / COLD for call in seen.calls]
    assert found == pytest.approx([0.5, 0.75, 0.75, 0.5])
    (said,) = [record.getMessage() for record in caplog.records if "PRICE_FILE" in record.getMessage()]
    assert said.endswith("Costs are those of the file as it was before")


def test_doctor_names_everything(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line that is wrong, where the log says but the first few."""
    from otel_promptcache.cli import _doctor_settings

    def findings() -> list[tuple[str, str]]:
        found = _doctor_settings.settings_section(_doctor_settings.current()).findings
        return [(one.level, one.text) for one in found if one.subject.endswith(": prices.toml")]

    monkeypatch.setenv("OTEL_PROMPTCACHE_PRICE_FILE", str(file))
    assert findings() == [("problem", "cannot be read: No such file or directory")]
    file.write_text(HALF)
    assert findings() == [("ok", "1 rows")]
    file.write_text('[[discount]]\nprovider = "a"\npercent = 101\n' * 5)
    wrong = findings()
    assert [level for level, _ in wrong] == ["problem"] * 5
    assert wrong[4][1] == "not used: prices.toml:15: [[discount]] percent takes a percentage from 0 to 100"


def test_the_command_uses_it(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the setting, or as it is told; a file that is wrong ends it."""
    usage = file.parent / "usage.jsonl"
    usage.write_text(
        '{"id": 1, "provider": "anthropic", "model": "claude-opus-5", "account": "blue", '
        '"usage": {"input_tokens": 1000000}}'
    )
    file.write_text(HALF)
    monkeypatch.setenv("OTEL_PROMPTCACHE_PRICE_FILE", str(file))
    assert main(["price", str(usage)]) == 0
    assert '"cost_usd": 2.5,' in capsys.readouterr().out
    other = file.parent / "other.toml"
    other.write_text(BLUE)
    assert main(["price", "--prices", str(other), str(usage)]) == 0
    assert '"cost_usd": 0.0,' in capsys.readouterr().out
    other.write_text("[[discount]]\npercent = 5")
    assert main(["price", "--prices", str(other), str(usage)]) == 2
    assert capsys.readouterr().err == "otel-promptcache price: other.toml:1: [[discount]] provider is missing\n"


def test_compaction_is_paid_and_not_counted() -> None:
    """Span and counters have the response's own token counts; the cost has the summary, too; the ledger knows why."""
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1000,
        "iterations": [
            {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
            {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
        ],
    }
    with observed(ledger="true") as seen, always(usage, model="claude-opus-5") as client:
        client.beta.messages.create(**message(text(20), text(10), model="claude-opus-5"))
        assert seen.call["gen_ai.usage.input_tokens"] == 23_000
        assert seen.total("gen_ai.client.inference.usage.input_tokens") == 23_000
        usd = (203_000 * 5 + 4500 * 25) / 1e6
        assert cost(seen.call) == pytest.approx(usd)
        (said,) = seen.ledger
    again = usage_of(said)
    assert again is not None
    assert float(pricing.cost(again, "anthropic", ("claude-opus-5",), time.time()).total) == pytest.approx(usd)


def test_what_runs_elsewhere_or_faster() -> None:
    """The response says how it ran; the ledger says so where it is not the ordinary."""
    usage = {
        "input_tokens": 1000,
        "output_tokens": 0,
        "inference_geo": "us",
        "speed": "fast",
        "service_tier": "standard",
    }
    with observed(ledger="true") as seen, always(usage, model="claude-opus-5") as client:
        client.messages.create(**message(text(20), text(10), model="claude-opus-5"))
        assert cost(seen.call) == pytest.approx(1000 * 10e-6 * 1.1)
        said = {name: value for name, value in seen.ledger[0].items() if name.startswith("promptcache.price.")}
    assert said.pop("promptcache.price.version").startswith("genai-prices ")
    assert said == {"promptcache.price.geo": "us", "promptcache.price.speed": "fast"}
