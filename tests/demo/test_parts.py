"""The parts of the demo on what really came in, and on what might: other terminals, gaps, wrong counters, leaks."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import re
import sys
import urllib.parse
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("uvicorn")

from otel_promptcache import semconv
from otel_promptcache.demo import bar, screen, verdict
from otel_promptcache.demo.promptmap import Piece, PromptMap, maps
from otel_promptcache.demo.receiver import Arrived, Event, Point, receiver
from otel_promptcache.demo.script import Fault
from otel_promptcache.demo.stage import Run, playing
from otel_promptcache.demo.story import Act, sent_lines, told
from otel_promptcache.demo.terminal import terminal
from otel_promptcache.model import Section

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parts")]

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def run() -> Run:
    """The first run of the demo: what really came in."""
    with playing(tuple(Fault), "a shared key") as agent:
        return agent.finish()


@pytest.fixture(scope="module")
def act(run: Run) -> Act:
    return told(run)


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
        assert 80 <= shown.width <= 110

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
            client = http.client.HTTPConnection(str(address.hostname), int(address.port or 0), timeout=60)

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
