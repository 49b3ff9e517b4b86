"""``diagnose``, ``diff`` and ``explain`` as they are typed, and nothing shown that may not be."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache import semconv
from otel_promptcache.cli import main
from otel_promptcache.semconv import Cause, Reason

SECRET = "sk-ant-api03-NeverShowThisKey42"
NAME = "lookup_invoice"
POLICY = "\n".join(f"{number}. Rückgaben innerhalb von dreißig Tagen, ohne Angabe von Gründen." for number in range(99))


def body(time: str) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-5",
        "max_tokens": 64,
        "tools": [{"name": NAME, "description": POLICY[:400], "input_schema": {"properties": {"iban": {}}}}],
        "system": [{"type": "text", "text": f"{POLICY}\nKey {SECRET}, {time}", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Hallo"}],
    }


def line(time: str, at: float) -> str:
    usage = {"input_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 2100, "output_tokens": 2}
    return json.dumps({"endpoint": "/v1/messages", "t": at, "body": body(time), "usage": usage})


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join((line("14:05 Uhr", 0), line("14:06 Uhr", 60), line("14:07 Uhr", 90))), encoding="utf-8")
    return str(path)


def test_text(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", log]) == 0
    said = capsys.readouterr().out
    assert "3 calls, 0.0% of 6,327 input tokens read from cache" in said
    assert "1  system_changed: timestamp" in said
    assert "2 calls" in said
    assert re.search(r"map +▼|map +.*▼ system\[0\]\.text, line 100|map +v|map .*line 100", said)
    assert "at    system[0].text, line 100, column" in said
    assert f"fix   {semconv.CAUSE_INFO[Cause.TIMESTAMP].fix}" in said
    assert "--privacy redacted shows the text" in said


@pytest.mark.parametrize(
    ("privacy", "text", "secret"), [("hashes", False, False), ("redacted", True, False), ("full", True, True)]
)
@pytest.mark.parametrize("page", [False, True])
def test_the_ladder(
    privacy: str, text: bool, secret: bool, page: bool, log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "page.html"
    assert main(["diagnose", log, "--privacy", privacy, "--html", str(html)]) == 0
    said = html.read_text(encoding="utf-8") if page else capsys.readouterr().out
    assert ("14:06 Uhr" in said) is text
    assert (SECRET in said) is secret


def test_the_setting_holds_where_no_option_is_given(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_PROMPTCACHE_PRIVACY", "redacted")
    assert main(["diagnose", log]) == 0
    assert "14:06 Uhr" in capsys.readouterr().out


def test_jsonl(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a call; nothing of the text in any of them."""
    assert main(["diagnose", log, "--format", "jsonl"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["cold", "miss", "miss"]
    text = body("14:06 Uhr")["system"][0]["text"]
    place = (rows[1]["id"], rows[1]["request_index"], rows[1]["path"], rows[1]["line"], rows[1]["offset"])
    assert place == (log, 1, "system[0].text", 100, text.index("14:06") + 4)
    assert (rows[1]["reason"], rows[1]["cause"], rows[0]["reason"]) == ("system_changed", "timestamp", None)
    assert "Rückgaben" not in json.dumps(rows, ensure_ascii=False)


PRICES = """
[[price]]
provider = "anthropic"
model = "claude-sonnet-5"
input = 100
read = 10
write = 125
output = 500

[[discount]]
provider = "anthropic"
account = "ours"
percent = 50
"""


@pytest.mark.parametrize("account", ["", "ours"])
@pytest.mark.parametrize("way", ["option", "setting"])
def test_prices_of_a_file(
    way: str,
    account: str,
    log: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was lost is worked out with one's own prices, of the account of the settings."""
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    monkeypatch.setenv("OTEL_PROMPTCACHE_ACCOUNT", account)
    if way == "setting":
        monkeypatch.setenv("OTEL_PROMPTCACHE_PRICE_FILE", str(file))
    given = ["--prices", str(file)] if way == "option" else []
    assert main(["diagnose", log, "--format", "jsonl", *given]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[1])
    # 2,100 tokens were written again at 125 USD a million, and would have been read at 10.
    assert row["lost_tokens"] == 2100
    assert row["lost_usd"] == pytest.approx(2100 * 115e-6 * (0.5 if account else 1))


@pytest.mark.parametrize(("text", "said"), [("[[prize]]\n", "prize is no table"), (None, "No such file")])
def test_prices_that_cannot_be_used(
    text: str | None, said: str, log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Are named with what is wrong, and nothing is said by others."""
    file = tmp_path / "prices.toml"
    if text is not None:
        file.write_text(text)
    assert main(["diagnose", log, "--prices", str(file)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_hashes_only(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", log, "--format", "jsonl", "--hashes-only", "--privacy", "full"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (row["line"], row["offset"]) == (100, None)


class Loads(HTMLParser):
    """Everything that a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe"):
            self.found.append(tag)
        self.found += [value for name, value in attributes if name in ("src", "href") and value]


def test_the_page_stands_alone(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "page.html"
    assert main(["diagnose", log, "--html", str(html)]) == 0
    page = html.read_text(encoding="utf-8")
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert "url(" not in page
    assert 'class="mark' in page
    assert "system_changed: timestamp" in page
    assert str(html) in capsys.readouterr().out


def test_text_of_prompts_cannot_write_the_page(tmp_path: Path) -> None:
    first, second = (f"{POLICY}\n<script>alert({number})</script>" for number in (1, 2))
    path, html = tmp_path / "log.jsonl", tmp_path / "page.html"
    rows = [json.loads(line("", at)) for at in (0, 9)]
    for row, text in zip(rows, (first, second), strict=True):
        row["body"]["system"][0]["text"] = text
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main(["diagnose", str(path), "--privacy", "full", "--html", str(html)]) == 0
    assert "<script" not in html.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["diagnose", "no such file"], "no such file: No such file or directory"),
        (["diff", "no such file", "nor this"], "No such file or directory"),
        (["explain", "nonsense"], "is no reason and no cause"),
        (["explain", "nonsense", "--ledger", "no such file"], "No such file or directory"),
    ],
)
def test_complaints(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_what_was_passed_over_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{json.dumps(body("9 Uhr"))}\n{{"url": "https://api.anthropic.com/v1/files"}}\n', encoding="utf-8")
    assert main(["diagnose", str(path)]) == 0
    said = capsys.readouterr().err
    assert "passed over 1 of: /v1/files" in said
    assert "1 requests have no time; nothing is said of lifetimes" in said


def test_half_a_character_is_no_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lone surrogate in a name, in the text that differs, and on the page."""
    rows = [json.loads(line(f"{half} Uhr", at)) | {"url": None} for half, at in (("\ud83d", 0), ("\udc4d", 60))]
    for row in rows:
        row["body"]["model"] = "claude-\ud800"
    path, html = tmp_path / "log.jsonl", tmp_path / "page.html"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main(["diagnose", str(path), "--privacy", "full", "--html", str(html)]) == 0
    assert "\\udc4d Uhr" in capsys.readouterr().out
    assert "\\udc4d Uhr" in html.read_text(encoding="utf-8")


def test_standard_input(log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(Path(log).read_text(encoding="utf-8")))
    assert main(["diagnose", "-"]) == 0
    assert "1  system_changed: timestamp" in capsys.readouterr().out
    assert not sys.stdin.closed


def test_nothing_heavy_is_imported(log: str) -> None:
    """A base install suffices: no OpenTelemetry SDK, no protobuf, no client."""
    code = (
        "import sys; from otel_promptcache.cli import main; main(['diagnose', sys.argv[1]]);"
        "print(sorted({'opentelemetry.sdk', 'google.protobuf', 'anthropic', 'openai', 'wrapt', 'starlette'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- diff ---------------------------------------------------------------------------------------------------


def bodies(folder: Path, *found: dict[str, Any]) -> list[str]:
    paths = [folder / f"{number}.json" for number in range(len(found))]
    for path, one in zip(paths, found, strict=True):
        path.write_text(json.dumps(one), encoding="utf-8")
    return list(map(str, paths))


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *bodies(tmp_path, body("14:05 Uhr"), body("14:06 Uhr"))]) == 1
    said = capsys.readouterr().out
    assert "system_changed: timestamp" in said
    assert "system[0].text, line 100" in said
    assert "14:0" not in said


def test_diff_of_a_continuation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *bodies(tmp_path, body("14:05 Uhr"), body("14:05 Uhr"))]) == 0
    assert "continues the earlier one" in capsys.readouterr().out


def test_diff_hides_names_of_the_application(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = body("14:05 Uhr")
    later["tools"][0]["input_schema"]["properties"] = {"iban": {"type": "string"}}
    paths = bodies(tmp_path, body("14:05 Uhr"), later)
    assert main(["diff", *paths]) == 1
    assert re.search(r"tools\[0\]\.input_schema\.properties\.\[key:[0-9a-f]{4}\]\.type", capsys.readouterr().out)
    assert main(["diff", *paths, "--privacy", "names"]) == 1
    assert "tools[0].input_schema.properties.iban.type" in capsys.readouterr().out


# --- explain ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [*Reason, *Cause])
def test_explain(what: Reason | Cause, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", what.value]) == 0
    said = capsys.readouterr().out
    for part in ("what happened", "how we know", "how to verify"):
        assert part in said


def test_explain_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    said = capsys.readouterr().out
    assert [name for name in (*Reason, *Cause) if f"  {name} " not in said] == []


TRACE, RESPONSE = "0af7651916cd43dd8448eb211c80319c", "msg_01AbC"


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    def record(call: str, trace: str, **fields: Any) -> dict[str, Any]:
        told = {semconv.CALL_ID: call, semconv.REQUEST_MODEL: "claude-sonnet-5", **fields}
        pairs = [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for key, value in told.items()
        ]
        return {"eventName": "promptcache.call", "traceId": trace, "timeUnixNano": "1", "attributes": pairs}

    miss = {semconv.STATUS: "miss", semconv.REASON: "tools_changed", semconv.CAUSE: "reordered",
            semconv.PATH: "tools[2]", semconv.EVIDENCE: "equal=2/9", semconv.LOST_TOKENS: 5120,
            semconv.RESPONSE_ID: RESPONSE}  # fmt: skip
    hit = {semconv.STATUS: "hit", semconv.RESPONSE_ID: "msg_02"}
    records = [record("1", TRACE, **miss), record("1", TRACE, **miss), record("2", "ff" * 16, **hit)]
    export = {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps(export) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("identity", [TRACE, TRACE.upper(), RESPONSE])
def test_explain_a_call(identity: str, ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", identity, "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert said.count("place") == 1  # exported twice, told once
    sentence = "The tool definitions differ from the earlier request's (`tools[2]`)."
    assert f"{sentence} By the look of it: the same elements in another order. 2 of 9" in " ".join(said.split())
    assert "5,120" in said
    assert "what happened" in said
    assert said.index("tools_changed") < said.index("The same parts in another order.")


def test_explain_draws_the_prompt_where_its_map_is_there(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two maps, the second a delta to the first: 300 bytes of tools, the third of which differs, and a message."""

    def packed(*pieces: tuple[int, int, int]) -> str:
        raw = (
            bytes([digest]) * 6 + size.to_bytes(3, "big") + bytes([section << 4, 0]) for digest, size, section in pieces
        )
        return base64.b64encode(b"".join(raw)).decode()

    def event(call: str, at: int, chain: str, segments: str, base: str, shared: int) -> dict[str, Any]:
        told = {
            semconv.CALL_ID: call, semconv.PREFIX_CHAIN: chain, semconv.MAP_SEGMENTS: segments,
            semconv.MAP_BASE: base, semconv.MAP_SHARED: shared,
        }  # fmt: skip
        pairs = [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for key, value in told.items()
        ]
        return {"eventName": "promptcache.prompt", "timeUnixNano": str(at), "attributes": pairs}

    export = json.loads(Path(ledger).read_text(encoding="utf-8"))
    records = export["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for record in records[:2]:
        for name, value in (
            (semconv.INPUT_TOKENS, 6000),
            (semconv.CACHE_READ_TOKENS, 0),
            (semconv.EXPECTED_TOKENS, 5120),
        ):
            record["attributes"].append({"key": name, "value": {"intValue": str(value)}})
    records.append(event("0", 1, "aa", packed((1, 100, 1), (2, 100, 1), (3, 100, 1), (4, 90, 4)), "", 0))
    records.append(event("1", 2, "bb", packed((5, 100, 1), (6, 90, 4)), "aa", 2))
    path = tmp_path / "with maps.jsonl"
    path.write_text(json.dumps(export), encoding="utf-8")
    assert main(["explain", RESPONSE, "--ledger", str(path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"(▼|v) tools\[2\]", said)
    assert re.search(r"(╵|\|)tools", said)


def test_explain_a_hit(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "msg_02", "--ledger", ledger]) == 0
    assert "there is nothing to explain" in capsys.readouterr().out


def test_explain_a_call_of_a_newer_version(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its words may mean something else: it is passed over, and that is said."""
    file = Path(ledger)
    newer = {"key": semconv.SCHEMA_VERSION, "value": {"intValue": str(semconv.SCHEMA + 1)}}
    export = json.loads(file.read_text(encoding="utf-8"))
    for record in export["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        record["attributes"].append(newer)
    file.write_text(json.dumps(export) + "\n", encoding="utf-8")
    assert main(["explain", RESPONSE, "--ledger", ledger]) == 2
    assert "3 of a version of otel-promptcache that this one cannot read" in capsys.readouterr().err


def test_explain_an_unknown_call(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "msg_99", "--ledger", ledger]) == 2
    assert "OTEL_PROMPTCACHE_LEDGER=true" in capsys.readouterr().err


def test_explain_a_call_that_another_key_made_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers, each with a key of its own, answer one conversation."""

    def record(call: str, at: str, key: str) -> dict[str, Any]:
        told = {
            semconv.CALL_ID: call, semconv.RESPONSE_ID: f"msg_{call}", semconv.CONVERSATION_ID: "talk",
            semconv.REQUEST_MODEL: "claude-sonnet-5", semconv.STATUS: "cold", semconv.KEY_ID: key,
        }  # fmt: skip
        pairs = [{"key": name, "value": {"stringValue": value}} for name, value in told.items()]
        return {"eventName": "promptcache.call", "traceId": call * 32, "timeUnixNano": at, "attributes": pairs}

    export = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record("1", "5", "aa"), record("2", "9", "bb")]}]}]}
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps(export) + "\n", encoding="utf-8")
    assert main(["explain", "msg_2", "--ledger", str(path)]) == 0
    said = capsys.readouterr().out
    assert Reason.KEY_MISMATCH in said
    assert "OTEL_PROMPTCACHE_HASH_KEY" in said
    assert main(["explain", "msg_1", "--ledger", str(path)]) == 0
    assert Reason.KEY_MISMATCH not in capsys.readouterr().out
