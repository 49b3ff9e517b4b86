"""``otel-promptcache emulate``: it serves until it is told to end, and says what it cannot do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from servers.ports import free_ports

from otel_promptcache.cli import main

COMMAND = [sys.executable, "-m", "otel_promptcache", "emulate"]
CALL = {"model": "claude-sonnet-4-6", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the URL that it names."""
    with subprocess.Popen([*COMMAND, "--port", "0", *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[2]
        finally:
            process.terminate()


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
        return found


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What is said of a call that cannot be carried out."""
    try:
        status = main(["emulate", *options])
    except SystemExit as ended:
        status = ended.code  # type: ignore[assignment]
    assert status == 2
    return capsys.readouterr().err


class TestServing:
    """In the foreground."""

    def test_what_it_is_told_holds(self) -> None:
        """Tokenizer, seed and context window."""
        with serving("--tokenizer", "words", "--seed", "a", "--context-window", "3", "--batch-seconds", "60") as (
            _,
            url,
        ):
            first = posted(url + "/v1/messages", CALL)
            assert first["usage"]["input_tokens"] == 1
            said = [{"role": "user", "content": "one two three four"}]
            with pytest.raises(urllib.error.HTTPError, match="400"):
                posted(url + "/v1/messages", {**CALL, "messages": said})
            batch = {"requests": [{"custom_id": "a", "params": CALL}]}
            made = posted(url + "/v1/messages/batches", batch)
            assert made["processing_status"] == "in_progress"
        with serving("--seed", "a", "--machine-rate", "0", "--retry-after", "2", "--stall", "1") as (_, url):
            assert posted(url + "/v1/messages", CALL)["id"] == first["id"]

    def test_answers_where_it_says(self) -> None:
        """Once the address is printed it can be called, on loopback."""
        with serving() as (_, url):
            assert url.startswith("http://127.0.0.1:")
            assert posted(url + "/v1/messages", CALL)["type"] == "message"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_when_told(self, number: signal.Signals) -> None:
        """By either signal, and the port is free again."""
        with serving("--port", str(free_ports(1)[0])) as (process, url):
            process.send_signal(number)
            process.wait(60)
            with pytest.raises(OSError, match="refused"):
                posted(url + "/v1/messages", CALL)

    def test_the_clock_is_moved_from_outside(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Six minutes take no time."""
        with serving() as (_, url):
            port = url.rpartition(":")[2]
            times = []
            for seconds in ("0", "360"):
                assert main(["emulate", "--port", port, "--advance", seconds]) == 0
                times.append(json.loads(capsys.readouterr().out)["now"])
            assert 360 <= times[1] - times[0] < 420


class TestRefusals:
    """What cannot be done is said in a sentence, with status 2."""

    def test_a_port_in_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Names the address and the way out."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            said = refused(capsys, "--port", port)
        assert f"127.0.0.1:{port}" in said
        assert "in use" in said
        assert "or 0 for any" in said

    def test_an_address_that_is_not_ours(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It does not fall back to another."""
        assert "192.0.2.1" in refused(capsys, "--host", "192.0.2.1", "--port", "0")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--port", "70000"], "0 to 65535"),
            (["--port", "-1"], "0 to 65535"),
            (["--advance=-5"], "does not go backwards"),
            (["--advance", "soon"], "takes a number"),
            (["--ttft", "1,x"], "takes a number"),
            (["--ttft=-1"], "from 0 up"),
            (["--block", "0"], "from 1 up"),
            (["--cold", "2"], "0 to 1"),
            (["--personality", "nobody"], "known are"),
            (["--verify", "/nowhere"], "no recordings"),
        ],
    )
    def test_a_bad_option(self, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The message says what the option takes."""
        assert said in refused(capsys, *options)

    def test_no_emulator_to_move(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A clock that is not there cannot be moved."""
        (port,) = free_ports(1)
        assert "no emulator answers" in refused(capsys, "--port", str(port), "--advance", "5")
