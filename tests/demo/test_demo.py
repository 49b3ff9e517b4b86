"""The demo for real, as the command does it, and its parts where they can go wrong."""

from __future__ import annotations

import argparse
import base64
import gzip
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("uvicorn")

from otel_promptcache import demo, semconv
from otel_promptcache.demo import bar, screen, verdict
from otel_promptcache.demo.promptmap import Piece, PromptMap, maps
from otel_promptcache.demo.receiver import Arrived, Event, Point, receiver
from otel_promptcache.demo.script import Fault
from otel_promptcache.demo.stage import Run, playing
from otel_promptcache.demo.story import Act, sent_lines, told
from otel_promptcache.demo.terminal import terminal
from otel_promptcache.model import Section

pytestmark = pytest.mark.slow

COLUMNS = 110
ESCAPE = "\x1b"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_promptcache", "demo", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": str(COLUMNS), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def outputs() -> tuple[str, dict[str, Any]]:
    """What the command prints, as text and as JSON."""
    with ThreadPoolExecutor() as pool:
        text = pool.submit(command)
        document = pool.submit(command, "--format", "json")
    for done in (text.result(), document.result()):
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return text.result().stdout, json.loads(document.result().stdout)


@pytest.fixture(scope="module")
def text(outputs: tuple[str, dict[str, Any]]) -> str:
    return outputs[0]


@pytest.fixture(scope="module")
def document(outputs: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return outputs[1]


@pytest.fixture(scope="module")
def run() -> Run:
    """The first run of the demo: what really came in."""
    with playing(tuple(Fault), "a shared key") as agent:
        return agent.finish()


@pytest.fixture(scope="module")
def act(run: Run) -> Act:
    return told(run)


class TestStory:
    def test_every_call_before(self, document: dict[str, Any]) -> None:
        """Each fault is named, with its place, where it was made, and nothing else is."""
        found = [
            (call["route"], call["status"], call["reason"], call["cause"], call["path"], call["line"])
            for call in document["before"]["calls"]
        ]
        moved = ("/support/answer", "miss", "system_changed", "timestamp", "system[0]", 3)
        tidied = ("/support/returns", "partial", "messages_changed", "whitespace")
        shuffled = ("/support/classify", "miss", "tools_changed", "reordered", "tools[0]", None)
        assert found == [
            ("/support/answer", "cold", None, None, "", None),
            *[moved] * 5,
            ("/support/returns", "cold", None, None, "", None),
            ("/support/returns", "hit", None, None, "", None),
            (*tidied, "messages[0].content[0]", 4),
            (*tidied, "messages[4].content[0]", 1),
            ("/support/classify", "cold", None, None, "", None),
            *[shuffled] * 3,
        ]

    def test_every_call_after(self, document: dict[str, Any]) -> None:
        """Put right, only first requests read nothing."""
        found = [call["status"] for call in document["after"]["calls"]]
        assert found == ["cold", *["hit"] * 5, "cold", *["hit"] * 3, "cold", *["hit"] * 3]

    def test_it_pays(self, document: dict[str, Any]) -> None:
        before, after = document["before"]["totals"], document["after"]["totals"]
        assert before["hit_rate"] == pytest.approx(before["read_tokens"] / before["input_tokens"])
        assert before["hit_rate"] < 0.2 < 0.7 < after["hit_rate"]
        assert after["cost_usd"] < before["cost_usd"] / 2
        assert after["lost_usd"] == 0
        assert document["factors"]["cost_usd"] == pytest.approx(before["cost_usd"] / after["cost_usd"])

    def test_worth(self, document: dict[str, Any]) -> None:
        """What a fix is worth is what its cause lost a call, at the traffic that is stated."""
        causes = document["before"]["causes"]
        lost = {cause["route"]: cause["lost_usd"] for cause in causes}
        calls = document["before"]["calls"]
        for route, usd in lost.items():
            assert usd == pytest.approx(sum(call["lost_usd"] for call in calls if call["route"] == route))
        assert document["calls_a_day"] == 10_000
        assert [cause["month_usd"] for cause in causes] == [
            pytest.approx(usd / len(calls) * 10_000 * 30) for usd in lost.values()
        ]

    def test_everything_agrees(self, document: dict[str, Any]) -> None:
        assert document["holds"] is True
        assert document["problems"] == []
        assert document["before"]["disagreements"] == document["after"]["disagreements"] == []
        assert document["checked"]["calls"] == 28
        assert document["checked"]["prompt_lines"] > 300
        assert document["checked"]["prompt_lines_found"] == 0

    def test_every_prompt_has_a_map(self, document: dict[str, Any]) -> None:
        for call in document["before"]["calls"] + document["after"]["calls"]:
            assert [section["name"] for section in call["map"]["sections"]] == ["tools", "system", "messages"]
            # A token of the local provider is four bytes, but for what JSON writes around structures.
            assert call["map"]["bytes"] == pytest.approx(call["tokens"]["input"] * 4, rel=0.05)


class TestText:
    def test_plain_where_nobody_looks(self, text: str) -> None:
        """No escape codes in a pipe, and no line is too long."""
        assert ESCAPE not in text
        assert max(map(len, text.splitlines())) <= COLUMNS

    def test_every_figure_is_in_the_json(self, text: str, document: dict[str, Any]) -> None:
        shown = text.partition("3  Your own application")[0]
        for name in sorted(strings(document), key=len, reverse=True):
            shown = shown.replace(name, " ").replace(name.removeprefix("claude-"), " ")
        shown = re.sub(r"^  \d  ", "", shown, flags=re.MULTILINE)  # numbers of headings
        figures = set(re.findall(r"\$?\d[\d,]*(?:\.\d+)?%?", shown))
        known = {figure for number in numbers(document) for figure in written(number)}
        assert len(figures) > 50
        assert figures <= known

    def test_explains_once(self, text: str) -> None:
        """The second time there is one line, with what it has cost so far."""
        assert [text.count(f"    {key}   ") for key in ("why", "map", "fix")] == [3, 3, 3]
        assert text.count("same  as above") == 7
        assert "same  as above, at messages[4].content[0], line 1; $" in text

    def test_the_bar_is_to_scale(self, text: str, document: dict[str, Any]) -> None:
        call = document["before"]["calls"][8]
        line = next(line for line in text.splitlines() if line.strip().startswith("██"))
        share = call["tokens"]["read"] / call["tokens"]["input"]
        assert line.count("█") / len(line.strip()) == pytest.approx(share, abs=0.01)

    def test_says_what_to_do_next(self, text: str) -> None:
        ending = text.partition("3  Your own application")[2]
        for words in ("pip install 'otel-promptcache[otlp]'", "opentelemetry-instrument python app.py", "doctor"):
            assert words in ending


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


def written(number: float) -> tuple[str, ...]:
    """The ways in which the text writes a number."""
    return f"{number:,}", f"${number:,.4f}", f"${number:,.0f}", f"{number:.1%}", f"{number:.1f}"


class TestScreen:
    """The same acts on other terminals."""

    @pytest.mark.parametrize(
        ("columns", "encoding", "environment"),
        [(60, "utf-8", {}), (80, "ascii", {}), (200, "utf-8", {"FORCE_COLOR": "1"})],
    )
    def test_fits(
        self, act: Act, monkeypatch: pytest.MonkeyPatch, columns: int, encoding: str, environment: dict[str, str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = terminal(io.TextIOWrapper(io.BytesIO(), encoding=encoding), environment)
        lines = [
            *screen.introduction(shown),
            *screen.before(act, 10_000, shown),
            *screen.after(act, act, 10_000, shown),
            *screen.closing(act, act, shown),
        ]
        for line in lines:
            line.encode(encoding)
            assert len(re.sub(r"\x1b\[[\d;]*m", "", line)) <= shown.width
        assert any(ESCAPE in line for line in lines) == bool(environment)
        assert 80 <= shown.width <= COLUMNS

    def test_no_color_overrules(self) -> None:
        class Tty(io.StringIO):
            encoding = "utf-8"

            def isatty(self) -> bool:
                return True

        assert terminal(Tty(), {}).colours
        assert not terminal(Tty(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}).colours
        assert not terminal(Tty(), {"TERM": "dumb"}).colours


class TestSignals:
    def test_no_prompt_in_the_telemetry(self, run: Run) -> None:
        """Not a line of any request is in what went over OTLP; a line that is there would be found."""
        lines = sent_lines(run)
        assert any(b"Never promise a day" in line for line in lines)
        assert any(b"The rug is too dark" in line for line in lines)
        wire = b"".join(run.arrived.payloads)
        assert [line for line in lines if line in wire] == []
        leaking = replace(run.arrived, payloads=[*run.arrived.payloads, b"..." + min(lines) + b"..."])
        assert told(run._replace(arrived=leaking)).shown == 1

    def test_attribution(self, run: Run) -> None:
        """What the application said about its calls is on their ledger records."""
        found = {
            (record.attributes[semconv.ROUTE], record.attributes["promptcache.attr.team"])
            for record in run.arrived.events
            if record.name == semconv.EVENT_CALL
        }
        assert found == {
            ("/support/answer", "support"),
            ("/support/returns", "support"),
            ("/support/classify", "operations"),
        }

    def test_a_wrong_counter_is_noticed(self, run: Run) -> None:
        key, point = next(
            (key, point) for key, point in run.arrived.series.items() if point.metric == "promptcache.calls"
        )
        wrong = replace(run.arrived, series={**run.arrived.series, key: Point(*point[:2], point.value + 1)})
        act = told(run._replace(arrived=wrong))
        assert len(act.disagreements) == 1
        assert act.disagreements[0].startswith("promptcache.calls ")
        assert any("promptcache.calls" in problem for problem in verdict.problems(act, act))

    def test_a_story_that_does_not_hold(self, act: Act) -> None:
        """The same run twice: nothing was put right."""
        problems = verdict.problems(act, act)
        assert any("the hit rate did not rise" in problem for problem in problems)
        assert any("after: call 2 (/support/answer) is a miss" in problem for problem in problems)

    def test_without_maps(self, act: Act) -> None:
        """The place is told in words where no map arrived."""
        calls = [replace(call, map=None) for call in act.calls]
        lines = screen.before(act._replace(calls=calls), 10_000, terminal(io.StringIO(), {}))
        assert any(line.strip() == "at    system[0], line 3" for line in lines)


class TestReceiver:
    def test_answers(self) -> None:
        """Empty requests are good OTLP, packed or not; other paths and no protobuf are not."""
        with receiver() as collector:
            address = urllib.parse.urlsplit(collector.endpoint)
            client = http.client.HTTPConnection(str(address.hostname), int(address.port or 0), timeout=5)

            def post(path: str, body: bytes, headers: dict[str, str]) -> int:
                client.request("POST", path, body, headers)
                response = client.getresponse()
                response.read()
                return response.status

            packed = {"content-encoding": "gzip"}
            assert post("/v1/traces", b"", {}) == 200
            assert post("/v1/metrics", gzip.compress(b""), packed) == 200
            assert post("/v1/logs", b"no protobuf", {}) == 400
            assert post("/v1/logs", b"not packed", packed) == 400
            assert post("/v1/profiles", b"", {}) == 404
            client.close()
            assert address.hostname == "127.0.0.1"
            assert len(collector.take().payloads) == 2
            assert collector.take() == Arrived()


class TestPromptMap:
    def event(self, call: str, chain: str, packed: bytes, **more: Any) -> Event:
        text = base64.b64encode(packed).decode()
        fields = {semconv.CALL_ID: call, semconv.PREFIX_CHAIN: chain, semconv.MAP_SEGMENTS: text}
        return Event(semconv.SCOPE, semconv.EVENT_PROMPT, "", int(call), fields | more)

    def packed(self, digest: bytes, size: int, section: Section) -> bytes:
        return digest * 6 + size.to_bytes(3, "big") + bytes((section << 4, 0))

    def test_delta(self) -> None:
        """A map stands on its base; what is the same is known also where it was sent again."""
        tool, manual = self.packed(b"t", 10, Section.TOOLS), self.packed(b"m", 20, Section.SYSTEM)
        question = self.packed(b"q", 5, Section.MESSAGES)
        base = {semconv.MAP_BASE: "c1", semconv.MAP_SHARED: 1}
        found = maps([self.event("1", "c1", tool + manual), self.event("2", "c2", manual + question, **base)])
        assert found["2"].shared == 2
        assert found["2"].shared_size == 30
        assert found["2"].sections() == [("tools", 10), ("system", 20), ("messages", 5)]

    def test_base_that_did_not_arrive(self) -> None:
        lost = {semconv.MAP_BASE: "c9", semconv.MAP_SHARED: 1}
        assert maps([self.event("1", "c1", b"", **lost)]) == {}

    def test_parameters_take_no_room(self, act: Act) -> None:
        pieces = (
            Piece(Section.PARAMETERS, 50, b"p"),
            Piece(Section.TOOLS, 100, b"t"),
            Piece(Section.MESSAGES, 100, b"m"),
        )
        call = replace(act.calls[0], input=50, read=25, expected=40, path="messages[0].content", line=2)
        plain = terminal(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), {})
        assert bar.bar(call, PromptMap(pieces, 2), 40, plain) == [
            "messages[0].content, line 2 v",
            "####################xxxxxxxxxxxx........",
            "|tools              |messages",
        ]


class TestCommand:
    def test_something_is_missing(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(demo, "_installed", lambda module: module != "starlette")
        assert demo.run(argparse.Namespace(format="text", calls_a_day=1)) == 2
        assert capsys.readouterr().err == (
            "otel-promptcache demo: not installed: starlette. pip install 'otel-promptcache[all]'\n"
        )

    @pytest.mark.parametrize("traffic", ["0", "-5", "many"])
    def test_impossible_traffic(self, traffic: str) -> None:
        done = command("--calls-a-day", traffic)
        assert done.returncode == 2
        assert "--calls-a-day" in done.stderr

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_stopping(self, number: signal.Signals, status: int) -> None:
        """Ctrl-C ends everything that was started, without a word."""
        process = subprocess.Popen(
            [sys.executable, "-m", "otel_promptcache", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started = children(process.pid)
        try:
            deadline = time.monotonic() + 30
            while len(started) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
                started = children(process.pid)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
        assert len(started) == 2
        assert (process.returncode, said) == (status, b"")
        assert [child for child in started if Path(f"/proc/{child}").exists()] == []


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()


class TestPicture:
    def test_drawn(self) -> None:
        """Runs of blocks become rectangles, words keep their columns."""
        path = Path(__file__).parents[2] / "scripts" / "demo-picture.py"
        spec = spec_from_file_location("demo_picture", path)
        assert spec is not None
        assert spec.loader is not None
        script = module_from_spec(spec)
        sys.modules["demo_picture"] = script
        spec.loader.exec_module(script)
        svg = script.picture("  \x1b[1mhit & miss\x1b[0m\n  \x1b[32m███\x1b[0m\x1b[31m▓\x1b[0m\n")
        root = ET.fromstring(svg)
        space = "{http://www.w3.org/2000/svg}"
        assert [text.text for text in root.iter(f"{space}text")] == ["make demo", "hit & miss"]
        widths = [float(one.get("width", "0")) for one in root.iter(f"{space}rect")][1:]
        assert widths == pytest.approx([3 * script.CELL, script.CELL], abs=0.1)
