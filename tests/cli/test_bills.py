"""Recorded bills of gateways, item by item: what was billed is what we work out from the token counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.cli import main

PRICES = Path(__file__).resolve().parents[2] / "examples" / "prices" / "gateways-2026-06.toml"
CENT = 2e-6
"""USD. One of the gateways rounds each item to a millionth."""


@pytest.fixture
def bills(recorded: Path) -> list[Path]:
    found = sorted((recorded / "billing").glob("*.jsonl"))
    assert found
    return found


def told(bill: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    assert main(["price", "--prices", str(PRICES), "--at", "2026-06-19", str(bill)]) == 0
    said = capsys.readouterr()
    return [json.loads(row) for row in said.out.splitlines()], said.err


def test_every_item(bills: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """With the gateways' prices for the provider that they chose; and the command says how far off it is."""
    for bill in bills:
        rows, summary = told(bill, capsys)
        assert len(rows) == len(bill.read_text().splitlines())
        assert [row for row in rows if row["cost_usd"] is None] == []
        assert max(abs(row["difference_usd"]) for row in rows) <= CENT
        assert summary.startswith(f"{len(rows)} bills: ")
        assert all(row["price_version"].endswith("gateways-2026-06.toml 2026-06") for row in rows)


def test_token_classes_matter(bills: list[Path]) -> None:
    """The test above would fail of a cost that takes no notice of what was read."""
    items = [json.loads(line) for line in bills[0].read_text().splitlines()]
    full = [row["prompt_tokens"] * 0.14e-6 + row["completion_tokens"] * 0.28e-6 for row in items]
    assert max(abs(usd - row["cost"]) for usd, row in zip(full, items, strict=True)) > 10 * CENT


def test_a_bill_without_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has no price is counted apart, and is in neither sum."""
    file = tmp_path / "bill.jsonl"
    rows = [
        {"provider": "anthropic", "model": "claude-opus-5", "usage": {"input_tokens": 1000}, "billed_usd": 0.006},
        {"provider": "anthropic", "model": "claude-none", "usage": {"input_tokens": 1000}, "cost": 1},
        {"provider": "anthropic", "model": "claude-opus-5", "usage": {"input_tokens": 1000}, "cost": "much"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["price", str(file)]) == 0
    said = capsys.readouterr()
    assert said.err == (
        "2 bills, 1 of them without a price: 0.006000 USD billed, 0.005000 USD by these prices; "
        "largest difference of one 0.001000000 USD\n"
    )
    first, second, third = map(json.loads, said.out.splitlines())
    assert first["difference_usd"] == -0.001
    assert (second["billed_usd"], second["cost_usd"]) == (1.0, None)
    assert "billed_usd" not in third


def test_the_price_data_alone(bills: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the gateway handed on to DeepSeek, the bill is DeepSeek's listed price of that day: no file is needed."""
    items = [json.loads(line) for line in bills[0].read_text().splitlines()]
    theirs = [
        {"provider": "deepseek", "model": "deepseek-v4-flash", "usage": row["usage"], "billed_usd": row["cost"]}
        for row in items
        if row["provider_name"] == "deepseek"
    ]
    assert len(theirs) > 200
    file = tmp_path / "deepseek.jsonl"
    file.write_text("\n".join(map(json.dumps, theirs)))
    assert main(["price", "--at", "2026-06-19", str(file)]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert max(abs(row["difference_usd"]) for row in rows) <= CENT
