"""The command itself: help, version, calls that cannot be carried out, a reader that has seen enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from otel_promptcache import __version__
from otel_promptcache.cli import COMMANDS, main

MODULE = [sys.executable, "-m", "otel_promptcache"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def ended(arguments: Sequence[str]) -> int:
    """The exit status of a call that the parser ends."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


class TestHelp:
    """What is said of the commands."""

    def test_lists_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Each with its line."""
        assert ended(["--help"]) == 0
        shown = capsys.readouterr().out
        assert all(command.name in shown for command in COMMANDS)

    @pytest.mark.parametrize("name", [command.name for command in COMMANDS])
    def test_every_command_has_its_own(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Its module exists, and its options are explained."""
        assert ended([name, "--help"]) == 0
        assert f"usage: otel-promptcache {name}" in capsys.readouterr().out

    def test_a_command_loads_its_own_module_only(self) -> None:
        """The list of commands costs no import of what they need."""
        script = "import sys; from otel_promptcache.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        script += "print(sorted({'wrapt', 'genai_prices', 'opentelemetry', 'starlette'} & set(sys.modules)))"
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert shown.endswith("[]\n")


class TestVersion:
    """``--version``."""

    def test_prints_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The one of the package."""
        assert ended(["--version"]) == 0
        assert capsys.readouterr().out == f"otel-promptcache {__version__}\n"

    def test_as_a_module(self) -> None:
        """``python -m otel_promptcache`` is the same command."""
        shown = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True).stdout
        assert shown == f"otel-promptcache {__version__}\n"


class TestWrongCalls:
    """Status 2, and a line that says what is wrong."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "the following arguments are required: COMMAND"),
            (["nothing"], "invalid choice: 'nothing'"),
            (["price"], "the following arguments are required: file"),
            (["doctor", "--timeout", "0"], "takes a number of seconds, more than 0 and at most 600"),
            (["doctor", "--timeout", "soon"], "takes a number of seconds, more than 0 and at most 600"),
            (["doctor", "--format", "xml"], "invalid choice: 'xml'"),
        ],
    )
    def test_are_refused(self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Before anything is done."""
        assert ended(arguments) == 2
        assert said in capsys.readouterr().err


class TestBrokenPipe:
    """``otel-promptcache ... | head -1``: the reader has seen enough, and nothing is to be said of it."""

    def broken(self, arguments: Sequence[str], lines: int) -> tuple[int, str]:
        """Status and messages of a command whose output is read for so many lines."""
        with subprocess.Popen(
            [*MODULE, *arguments], env=BUFFERED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for _ in range(lines):
                process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
        return process.returncode, said

    def test_in_the_middle(self, tmp_path: Path) -> None:
        """Of rows that are written one by one."""
        row = {"usage": {"input_tokens": 5, "output_tokens": 1}, "model": "claude-sonnet-5", "provider": "anthropic"}
        file = tmp_path / "many.jsonl"
        file.write_text(f"{json.dumps(row)}\n" * 20_000)
        assert self.broken(["price", str(file)], 1) == (0, "")

    def test_at_the_end(self) -> None:
        """Of output so short that it is written only when the process ends."""
        assert self.broken(["auto", "path"], 0) == (0, "")
