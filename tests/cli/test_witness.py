"""``otel-promptcache witness``: the ledger of an application that the provider was asked about, as a table."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import anthropic
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from servers.application import message, observed, provider, text

from otel_promptcache.cli import main

TOOLS = [{"name": "find", "description": "Finds things in a store of things.", "input_schema": {"type": "object"}}]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two conversations. The first stays as it is, then its tools change, then the application asks about a message
    that nobody knows. The second is new, though not to the provider, and then it has expired."""
    with provider() as running, observed(ledger="true", native_diagnostics="true") as seen:
        client = anthropic.Anthropic(base_url=running.url, api_key="sk", max_retries=0)
        body = message(text(2000), text(20))
        for _ in range(3):
            client.messages.create(**body)
        client.messages.create(**body, tools=TOOLS)
        client.messages.create(**body, extra_body={"diagnostics": {"previous_message_id": "msg_gone"}})
        other = message("elsewhere\n" + text(2000, "xyz"), text(20, "xyz"))
        client.messages.create(**other)
        running.clock.advance(301)
        seen.observer.clock = lambda: time.time() + 301
        client.messages.create(**other)
        client.close()
        seen.settle()
        document = MessageToDict(encode_logs(seen.records.get_finished_logs()))
    for record in document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        for name in ("traceId", "spanId"):
            record[name] = base64.b64decode(record[name]).hex()  # as OTLP's own JSON has them
    file = tmp_path_factory.mktemp("ledger") / "calls.jsonl"
    file.write_text(json.dumps(document) + "\n")
    return file


def test_the_table(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours, theirs, the four outcomes, and the traces to look at."""
    assert main(["witness", str(ledger)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "6 of 7 calls have a verdict of the provider's own. Where both have one they agree in 100.0%."
    rows = [line.split() for line in said[3:]]
    assert ["hit", "null", "2", "0", "0", "0", "0"] in rows
    assert ["ttl_expired", "null", "1", "0", "0", "0", "0"] in rows
    assert ["tools_changed", "tools_changed", "1", "0", "0", "0", "0"] in rows
    silent = {tuple(row[:2]) for row in rows if row[6] == "1"}
    assert silent == {("hit", "previous_message_not_found"), ("cold", "system_changed")}


def test_as_json(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["witness", "--format", "json", str(ledger)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["calls"], document["asked"], document["agreement"]) == (7, 6, 1.0)
    assert {row["silent"] for row in document["rows"]} == {0, 1}


def _event(number: int, agreement: str, **more: str) -> str:
    told = {"promptcache.call.id": f"c{number}", "promptcache.native.agreement": agreement, **more}
    attributes: list[Any] = [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]
    record = {
        "timeUnixNano": "1",
        "eventName": "promptcache.call",
        "traceId": f"{number:032x}",
        "attributes": attributes,
    }
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}) + "\n"


def test_where_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest traces of a row are named; calls on which both agree need none."""
    told = {"promptcache.reason": "unknown", "promptcache.native.type": "system_changed"}
    lines = [_event(number, "theirs", **told) for number in range(1, 6)]
    lines += [_event(9, "agree", **{"promptcache.status": "hit", "promptcache.native.type": "null"})]
    (tmp_path / "calls.jsonl").write_text("".join([*lines, lines[0]]))  # one came twice
    assert main(["witness", str(tmp_path / "calls.jsonl")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("they agree in 16.7%.")
    assert said[3].split() == ["unknown", "system_changed", "0", "0", "5", "0", "0", *(f"{n:032x}" for n in (3, 4, 5))]
    assert said[4].split() == ["hit", "null", "1", "0", "0", "0", "0"]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [(None, "No such file or directory"), ("{}\n", "OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS=0.01")],
)
def test_nothing_to_compare(written: str | None, complaint: str, tmp_path: Path, capsys: Any) -> None:
    """It says what to do."""
    file = tmp_path / "calls.jsonl"
    if written is not None:
        file.write_text(written)
    assert main(["witness", str(file)]) == 2
    assert complaint in capsys.readouterr().err
