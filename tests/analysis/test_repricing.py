"""A ledger by other prices: the same cost from what the record says, and what a file of other prices changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from otel_promptcache import pricing
from otel_promptcache.analysis.repricing import Repricing, repriced, usage_of
from otel_promptcache.cli import main
from otel_promptcache.model import Observation, Part, Usage
from otel_promptcache.pricing import LISTED, Prices, pricefile
from otel_promptcache.providers._wire import in_context
from otel_promptcache.telemetry.ledger import ledger_attributes

AT = 1_795_262_400.0  # 2026-11-21 12:00 UTC
HALF = Prices(pricefile.parse(b'[[discount]]\nprovider = "anthropic"\npercent = 50', "half.toml"))


def pair(key: str, value: Any) -> dict[str, Any]:
    kind = {str: "stringValue", int: "intValue", float: "doubleValue", bool: "boolValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def line(*calls: dict[str, Any]) -> str:
    """An export of these calls, a line of the file, beside an event of somebody else."""
    records = [
        {
            "timeUnixNano": str(int((AT + 2) * 1e9)),
            "eventName": "promptcache.call",
            "attributes": [pair(*item) for item in call.items()],
        }
        for call in calls
    ]
    foreign = {"timeUnixNano": "1", "eventName": "somebody.else", "body": {"stringValue": "Grüße"}}
    return (
        json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [*records, foreign]}]}]}, ensure_ascii=False) + "\n"
    )


def call(identity: str = "one", **changes: Any) -> dict[str, Any]:
    """A call with a million fresh tokens of claude-opus-5: 5 USD."""
    said: dict[str, Any] = {
        "promptcache.call.id": identity,
        "promptcache.schema": 1,
        "promptcache.duration": 2.0,
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-opus-5",
        "gen_ai.usage.input_tokens": 1_000_000,
        "gen_ai.usage.output_tokens": 0,
        "promptcache.cost.total": 5.0,
        "promptcache.price.version": "genai-prices 0.0.1",
    }
    return {name: value for name, value in (said | changes).items() if value is not None}


def again(*lines: str, prices: Prices = LISTED) -> tuple[Repricing, list[str], list[Any]]:
    found = Repricing()
    out = list(repriced(lines, prices, found))
    return found, [written for written, _ in out], [change for _, changes in out for change in changes]


def attributes(written: str) -> dict[str, Any]:
    (resource,) = json.loads(written)["resourceLogs"]
    record = resource["scopeLogs"][0]["logRecords"][0]
    return {one["key"]: next(iter(one["value"].values())) for one in record["attributes"]}


# --- The record says enough ---------------------------------------------------------------------------------

_COUNTS = some.integers(0, 300_000)


@some.composite
def usages(draw: Any) -> Usage:
    def one() -> Usage:
        fresh, read, output = draw(_COUNTS), draw(_COUNTS), draw(_COUNTS)
        split = tuple((ttl, draw(_COUNTS)) for ttl in draw(some.sets(some.sampled_from([300, 1800, 3600, 43_200]))))
        write = sum(tokens for _, tokens in split) + draw(some.sampled_from([0, 0, 5000]))
        return Usage(fresh + read + write, read, write, output, write_by_ttl=split)

    models = some.sampled_from(["", "claude-haiku-4-5", "claude-haiku-5-5"])
    parts = tuple(Part(draw(models), one()) for _ in range(draw(some.integers(0, 3))))
    return in_context(
        one()._replace(parts=parts, web_searches=draw(some.integers(0, 5))),
        tier=draw(some.sampled_from(["", "standard", "priority", "flex"])),
        speed=draw(some.sampled_from(["", "standard", "fast"])),
        geo=draw(some.sampled_from(["", "us", "global"])),
        processing=draw(some.sampled_from(["", "batch"])),
        upstream=draw(some.sampled_from(["", "Fast"])),
    )


@example(Usage(0, parts=(Part("", Usage(5000, 0, 5000)),)), ("anthropic", "claude-opus-5"), (3600,), "")
@given(
    usages(),
    some.sampled_from([("anthropic", "claude-opus-5"), ("anthropic", "claude-haiku-5-5"), ("openai", "gpt-6.1-sol")]),
    some.sampled_from([(), (300,), (3600,), (3600, 300), None]),
    some.sampled_from(["", "blue"]),
)
def test_the_same_cost_from_the_ledger(
    usage: Usage, whose: tuple[str, str], ttls: tuple[int, ...] | None, account: str
) -> None:
    """Whatever a call used and however it ran, its record has all that its price depends on."""
    prices = Prices(
        pricefile.parse(
            b'[[discount]]\nprovider = "anthropic"\naccount = "blue"\npercent = 10\n'
            b'[[price]]\nprovider = "openai"\nmodel = "*"\nupstream = "Fast"\noutput = 1\nbatch = 1\n'
            b"flex = 1\npriority = 1",
            "prices.toml",
        )
    )
    provider, model = whose
    seen = Observation(
        call_id="one", dialect="", provider=provider, endpoint="", port=0, model=model, stream=False, at=AT
    )
    seen.usage, seen.write_ttls, seen.account, seen.duration = usage, ttls, account, 2.0
    seen.cost = pricing.cost(usage, provider, (model,), AT, ttls, account=account, prices=prices)
    said = ledger_attributes(seen)
    found, _, changes = again(line({name: value for name, value in said.items() if value is not None}), prices=prices)
    assert (changes, found.calls, found.reading.unreadable, found.unpriced) == ([], 1, 0, {})


def test_too_many_parts_are_nobody_s_guess() -> None:
    """The record says that it could not tell, and keeps its cost."""
    usage = Usage(17, parts=tuple(Part("", Usage(1)) for _ in range(17)))
    seen = Observation(
        call_id="one", dialect="", provider="anthropic", endpoint="", port=0, model="claude-opus-5", stream=False, at=AT
    )
    seen.usage = usage
    said = ledger_attributes(seen)
    assert said["promptcache.price.parts"] == "[]"
    with pytest.raises(ValueError, match="too many parts"):
        usage_of(said)


# --- What changes -------------------------------------------------------------------------------------------


def test_other_prices() -> None:
    """Half of everything, on the record and in the sums; what is not ours stays as it was."""
    found, (written,), (change,) = again(line(call(**{"promptcache.lost.tokens": 1000})), prices=HALF)
    said = attributes(written)
    assert (said["promptcache.cost.total"], said["promptcache.cost.uncached"]) == (2.5, 2.5)
    assert said["promptcache.lost.usd"] == pytest.approx(1000 * 4.5e-6 / 2)
    assert said["promptcache.price.version"].endswith(f" + {HALF.own.name if HALF.own else ''}")
    assert (change.before, change.after, change.version_before) == (5, 2.5, "genai-prices 0.0.1")
    (group,) = found.groups.values()
    assert (group.calls, group.changed, group.before, group.after) == (1, 1, 5, 2.5)
    assert json.loads(written)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][1]["body"] == {"stringValue": "Grüße"}


def test_the_hour_is_that_of_the_beginning() -> None:
    """DeepSeek's peak ends at ten; a call that began before has its price."""
    began = 1_795_168_799  # 2026-11-20 09:59:59 UTC, a Friday
    record = call(
        **{
            "gen_ai.provider.name": "deepseek",
            "gen_ai.request.model": "deepseek-flash",
            "promptcache.cost.total": 0.3,
        }
    )
    text = line(record).replace(str(int((AT + 2) * 1e9)), str((began + 2) * 10**9))
    assert again(text)[2] == []


def test_repeated_records_count_once() -> None:
    """An export is retried when its answer is lost; both copies get the new cost."""
    found, written, changes = again(line(call()), line(call()), prices=HALF)
    assert (found.calls, found.reading.repeated, len(changes)) == (1, 1, 1)
    assert [attributes(one)["promptcache.cost.total"] for one in written] == [2.5, 2.5]


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (call(**{"gen_ai.usage.input_tokens": None}), "without_usage"),
        (call(**{"gen_ai.usage.input_tokens": "many"}), "without_usage"),
    ],
)
def test_calls_that_stay(record: dict[str, Any], what: str) -> None:
    """Counted, and left as they are."""
    found, written, changes = again(line(record), prices=HALF)
    assert (getattr(found, what), written, changes) == (1, [line(record)], [])


def test_older_records() -> None:
    """The schema before this one, and one without a number, are read; calls without a cost get one."""
    found, _, changes = again(
        line(call("a", **{"promptcache.schema": 0})),
        line(call("b", **{"promptcache.schema": None})),
        line(call("c", **{"promptcache.cost.total": None})),
    )
    assert (found.calls, found.newly_priced, found.after_newly, len(changes)) == (3, 1, 5, 1)


def test_newer_records() -> None:
    """Whatever they mean is left to a version that knows."""
    record = line(call(**{"promptcache.schema": 2}))
    found, written, changes = again(record, prices=HALF)
    assert (found.reading.of_another_schema, written, changes) == (1, [record], [])


def test_no_price() -> None:
    """The cost of before stands."""
    record = line(call(**{"gen_ai.request.model": "claude-none"}))
    found, written, changes = again(record)
    assert (dict(found.unpriced), written, changes) == ({("anthropic", "claude-none"): 1}, [record], [])


@pytest.mark.parametrize(
    "bad",
    [
        line(call())[:-20],
        line(call())[:-20] + "\n",
        "promptcache.call\n",
        '{"resourceLogs": 5, "x": "promptcache.call"}\n',
        "promptcache.call" + "[" * 100_000 + "\n",
        line(call(**{"promptcache.price.parts": "[[1]]"})),
        line(call(**{"promptcache.price.parts": "no JSON"})),
        line(call(**{"promptcache.price.ttls": "x"})),
        line(call(**{"promptcache.duration": "long"})),
        line(call(**{"promptcache.write.tokens.soon": 5})),
    ],
)
def test_bad_lines(bad: str) -> None:
    """Counted, copied as they are, and the next one is read."""
    found, written, changes = again(bad, line(call("next")), prices=HALF)
    assert (found.reading.unreadable, written[0], len(changes)) == (1, bad, 1)


@given(some.text(max_size=50), some.recursive(some.none() | some.integers() | some.text(max_size=5), some.lists))
def test_any_line(text: str, value: Any) -> None:
    """Nothing is raised, whatever stands in a file."""
    again(text, json.dumps({"resourceLogs": value, "e": "promptcache.call"}))


# --- The command --------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.jsonl"
    file.write_text(line(call("a"), call("b")) + '{"resourceSpans": []}\n' + line(call("c"))[:-30])
    return file


@pytest.fixture
def half(tmp_path: Path) -> str:
    file = tmp_path / "half.toml"
    file.write_text('version = "H"\n[[discount]]\nprovider = "anthropic"\npercent = 50')
    return str(file)


def test_the_table(ledger: Path, half: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What changed, by model, what the prices were, and what could not be read."""
    assert main(["price", "--reprice", "--prices", half, str(ledger)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "provider model calls changed before USD after USD change USD"
    assert lines[1].split() == ["anthropic", "claude-opus-5", "2", "2", "10.000000", "5.000000", "-5.000000"]
    assert lines[2].split() == ["all", "2", "2", "10.000000", "5.000000", "-5.000000"]
    assert lines[4].startswith("2 calls by genai-prices ")
    assert lines[4].endswith(" + half.toml H")
    assert lines[5:] == ["1 lines or records cannot be read"]


def test_changes_as_json(ledger: Path, half: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; the table goes to the other stream."""
    assert main(["price", "--reprice", "--format", "json", "--prices", half, str(ledger)]) == 0
    said = capsys.readouterr()
    rows = [json.loads(row) for row in said.out.splitlines()]
    assert [(row["id"], row["before_usd"], row["after_usd"]) for row in rows] == [("a", 5.0, 2.5), ("b", 5.0, 2.5)]
    assert "claude-opus-5" in said.err


def test_a_copy(ledger: Path, half: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the whole ledger with the new costs, plain or gz; nothing is written over."""
    copy = tmp_path / "new.jsonl.gz"
    assert main(["price", "--reprice", "--prices", half, "--write", str(copy), str(ledger)]) == 0
    capsys.readouterr()
    with gzip.open(copy, "rt") as lines:
        before, after = ledger.read_text().splitlines()[1:], lines.read().splitlines()[1:]
    assert after == before
    assert main(["price", "--reprice", "--prices", half, str(copy)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2:4] == ["2", "0"]
    assert main(["price", "--reprice", "--write", str(ledger), str(ledger)]) == 2
    assert capsys.readouterr().err == f"otel-promptcache price: {ledger}: File exists\n"


def test_no_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says so."""
    file = tmp_path / "some.jsonl"
    file.write_text('{"resourceSpans": []}\n')
    assert main(["price", "--reprice", str(file)]) == 2
    assert "no promptcache.call in 1 lines; is it a ledger?" in capsys.readouterr().err
    assert main(["price", "--reprice", str(tmp_path / "none")]) == 2
