"""The demo for real, as the command does it."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("uvicorn")

from otel_promptcache import demo

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

COLUMNS = 110
ESCAPE = "\x1b"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_promptcache", "demo", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": str(COLUMNS), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=400,
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
            deadline = time.monotonic() + 120
            while len(started) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
                started = children(process.pid)
            process.send_signal(number)
            _, said = process.communicate(timeout=300)
        finally:
            process.kill()
        assert len(started) == 2
        assert (process.returncode, said) == (status, b"")
        assert [child for child in started if Path(f"/proc/{child}").exists()] == []


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
