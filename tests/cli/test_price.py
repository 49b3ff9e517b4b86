"""``otel-promptcache price``: one line in, one line out, whatever the line is."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from otel_promptcache.cli import main
from otel_promptcache.cli.price import price_lines

ROW = {
    "id": "one",
    "provider": "anthropic",
    "model": "claude-sonnet-4-6",
    "usage": {"input_tokens": 1000, "cache_read_input_tokens": 10_000, "output_tokens": 100},
}
COST = {
    # 1000 x 3 + 10000 x 0.30 + 100 x 15 USD a million; all 11000 at 3 without the cache.
    "id": "one",
    "cost_usd": 0.0075,
    "without_cache_usd": 0.0345,
    "saving_usd": 0.027,
    "price_version": f"genai-prices {genai_prices.__version__}",
}


def priced(row: object) -> dict[str, Any]:
    """What comes out for one line."""
    (found,) = price_lines([row if isinstance(row, str) else json.dumps(row)])
    return found


def shown(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class TestRows:
    """Lines that have a price."""

    def test_exact(self) -> None:
        """Read, fresh and output tokens at their own prices."""
        assert priced(ROW) == COST

    @pytest.mark.parametrize(
        ("usage", "provider", "model", "cost"),
        [
            ({"prompt_tokens": 1000, "completion_tokens": 100}, "openai", "gpt-5", 0.00225),
            ({"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {}}, "openai", "gpt-5", 0.00225),
            ({"promptTokenCount": 1000, "candidatesTokenCount": 100}, "google", "gemini-2.5-pro", 0.00225),
        ],
    )
    def test_the_api_is_told_by_its_fields(self, usage: dict[str, Any], provider: str, model: str, cost: float) -> None:
        """A row need not name it."""
        assert priced({"usage": usage, "provider": provider, "model": model})["cost_usd"] == cost

    def test_an_assumption_is_said(self) -> None:
        """Writes of which only a part has a known lifetime are priced, and marked."""
        split = {"ephemeral_5m_input_tokens": 400}
        usage = {"input_tokens": 10, "cache_creation_input_tokens": 1000, "cache_creation": split, "output_tokens": 1}
        assert priced(ROW | {"usage": usage})["estimated"] is True

    def test_without_an_id_the_line_has_its_number(self) -> None:
        """Counted from one; empty lines count and give no row."""
        nameless = json.dumps({name: value for name, value in ROW.items() if name != "id"})
        assert [found["id"] for found in price_lines([nameless, "\n", "  \n", nameless])] == [1, 4]


class TestFlavors:
    """Usage under other names."""

    def test_hits_and_misses(self) -> None:
        """DeepSeek's own fields, beside the sum or without it."""
        row = {"provider": "deepseek", "model": "deepseek-v4-pro", "request_time": "2026-11-20T12:00:00Z"}
        told = {"prompt_cache_hit_tokens": 50_000, "prompt_cache_miss_tokens": 1000, "completion_tokens": 1000}
        assert priced(row | {"usage": told})["cost_usd"] == 0.00374
        assert priced(row | {"usage": told | {"prompt_tokens": 51_000}})["cost_usd"] == 0.00374

    def test_interactions(self) -> None:
        """Thoughts are output that is counted apart."""
        usage = {
            "total_input_tokens": 1000,
            "total_cached_tokens": 500,
            "total_output_tokens": 60,
            "total_thought_tokens": 40,
        }
        row = {"provider": "google", "model": "gemini-2.5-pro", "usage": usage}
        assert priced(row)["cost_usd"] == 0.0016875

    def test_storage(self) -> None:
        """A cache that is kept costs, and saves nothing by itself."""
        row = {
            "provider": "google",
            "model": "gemini-2.5-pro",
            "api_flavor": "caches",
            "usage": {"totalTokenCount": 1_000_000},
            "context": {"hours": "2"},
        }
        found = priced(row)
        assert (found["cost_usd"], found["without_cache_usd"], found["saving_usd"]) == (9.0, 0.0, -9.0)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"context": {}}, "context: hours takes the hours for which the cache was kept"),
            ({"context": {"hours": "-1"}}, "context: hours takes"),
            ({"context": {"hours": "nan"}}, "context: hours takes"),
            ({"usage": {"totalTokenCount": -1}}, "usage: no totalTokenCount"),
            ({"model": "gemini-none"}, "no price for storage with gemini-none of google"),
        ],
    )
    def test_storage_without_a_price(self, change: dict[str, Any], reason: str) -> None:
        """As with calls."""
        row = {
            "provider": "google",
            "model": "gemini-2.5-pro",
            "api_flavor": "caches",
            "usage": {"totalTokenCount": 1_000_000},
            "context": {"hours": "2"},
        }
        assert reason in priced(row | change)["reason"]


class TestBadLines:
    """A line without a price says why, and the next one is priced all the same."""

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("{", "Expecting property name"),
            ("[]", "usage: missing, or no JSON object"),
            ("null", "usage: missing, or no JSON object"),
            ({}, "usage: missing, or no JSON object"),
            (ROW | {"usage": 5}, "usage: missing, or no JSON object"),
            (ROW | {"usage": {"tokens": 5}}, "is none of messages, chat, responses, generate_content"),
            (ROW | {"api_flavor": "telex"}, "api_flavor: 'telex' is none of messages, chat, responses"),
            (ROW | {"api_flavor": "chat"}, "usage: no token counts as the chat API reports them"),
            (ROW | {"usage": {"input_tokens": "many"}}, "usage: no token counts as the messages API reports them"),
            (ROW | {"usage": {"input_tokens": -5}}, "usage: no token counts as the messages API reports them"),
            (
                ROW | {"usage": {"input_tokens": float("nan")}},
                "usage: no token counts as the messages API reports them",
            ),
            (ROW | {"model": "unheard-of"}, "no price for unheard-of of anthropic"),
            (ROW | {"model": None}, "no price for a call that names no model of anthropic"),
            (ROW | {"provider": "nobody"}, "no price for claude-sonnet-4-6 of nobody"),
            (ROW | {"request_time": "yesterday"}, "'yesterday'"),
        ],
    )
    def test_reason(self, row: object, reason: str) -> None:
        """No number where there is no price: null, not zero."""
        found = priced(row)
        assert reason in found.pop("reason")
        found.pop("id")
        assert found == {"cost_usd": None, "without_cache_usd": None, "saving_usd": None}

    @pytest.mark.parametrize(
        "row", ["[" * 100_000, ROW | {"usage": {"input_tokens": 10**40, "output_tokens": 1}}], ids=["depth", "size"]
    )
    def test_beyond_all_measure(self, row: object) -> None:
        """Neither depth nor size ends the run."""
        found = priced(row)
        assert found["cost_usd"] is None
        assert found["reason"]

    def test_the_id_of_a_bad_line_is_kept(self) -> None:
        """So that it can be found."""
        assert priced(ROW | {"model": "unheard-of"})["id"] == "one"


class TestFiles:
    """Where lines come from."""

    def test_plain(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A good and a bad line are two rows, and the status is 0."""
        file = tmp_path / "usage.jsonl"
        file.write_text(json.dumps(ROW) + "\n{\n")
        assert main(["price", str(file)]) == 0
        good, bad = shown(capsys)
        assert good == COST
        assert bad["id"] == 2

    def test_gzip(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """By the ending of the name."""
        file = tmp_path / "usage.jsonl.gz"
        file.write_bytes(gzip.compress(json.dumps(ROW).encode()))
        assert main(["price", str(file)]) == 0
        assert shown(capsys) == [COST]

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """As ``-``."""
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(ROW) + "\n"))
        assert main(["price", "-"]) == 0
        assert shown(capsys) == [COST]

    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 2, and one line."""
        file = tmp_path / "nowhere.jsonl"
        assert main(["price", str(file)]) == 2
        assert capsys.readouterr().err == f"otel-promptcache price: {file}: No such file or directory\n"

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            pytest.param("plain.gz", b"no archive", id="no archive"),
            pytest.param("half.gz", gzip.compress(json.dumps(ROW).encode() * 1000)[:60], id="half an archive"),
            pytest.param("other.jsonl", b"\xff\xfe{}\n", id="another encoding"),
        ],
    )
    def test_unreadable(self, name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Neither a broken archive nor another encoding ends in a traceback."""
        file = tmp_path / name
        file.write_bytes(content)
        assert main(["price", str(file)]) == 2
        assert capsys.readouterr().err.startswith(f"otel-promptcache price: {file}: ")
