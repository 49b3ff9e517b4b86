"""Settings from the environment and from a file: each checked, and a mistake is said aloud but stops nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from logged import ours

from otel_promptcache import settings as module
from otel_promptcache.settings import CONFIG_FILE, PREFIX, Live, Mode, Settings, Spans, meanings, parse


def read(**environment: str) -> tuple[Settings, list[str]]:
    """Settings from variables, named without their prefix."""
    return parse({PREFIX + name: value for name, value in environment.items()}, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MODE", "off", Mode.OFF),
        ("MODE", "tokens", Mode.TOKENS),
        ("MODE", " Diagnose ", Mode.DIAGNOSE),
        ("PERCENT", "0", 0.0),
        ("NATIVE_DIAGNOSTICS", "true", 1.0),
        ("NATIVE_DIAGNOSTICS", "off", 0.0),
        ("NATIVE_DIAGNOSTICS", "0.01", 0.01),
        ("NATIVE_DIAGNOSTICS", "1", 1.0),
        ("PERCENT", "12.5", 12.5),
        ("PERCENT", "100", 100.0),
        ("BUDGET_MS", "0", 0.0),
        ("BUDGET_MS", "2.5", 2.5),
        ("SPANS", "NEVER", Spans.NEVER),
        ("SPANS", "always", Spans.ALWAYS),
        ("LEDGER", "true", True),
        ("LEDGER", "1", True),
        ("LEDGER", "Yes", True),
        ("LEDGER", "on", True),
        ("LEDGER", "false", False),
        ("LEDGER", "0", False),
        ("LEDGER", "no", False),
        ("LEDGER", "OFF", False),
        ("PROMPT_MAP", "true", True),
        ("TOKEN_USAGE_METRIC", "true", True),
        ("AUTO", "true", True),
        ("HASH_KEY", " secret ", "secret"),
        ("METRIC_KEYS", "team, tenant,,", ("team", "tenant")),
        ("METRIC_KEYS", ",", ()),
        ("BAGGAGE_KEYS", "user.id", ("user.id",)),
        ("HISTORY_SEGMENTS", "100", 100),
        ("HISTORY_SEGMENTS", "1e6", 1_000_000),
        ("PRICES", "off", False),
        ("PRICES", "on", True),
    ],
)
def test_a_variable(name: str, text: str, value: object) -> None:
    """Upper and lower case, and blanks around it, make no difference to words."""
    found, problems = read(**{name: text})
    assert getattr(found, name.lower()) == value
    assert type(getattr(found, name.lower())) is type(value)
    assert problems == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("MODE", "full", "OTEL_PROMPTCACHE_MODE takes one of off, tokens, diagnose; using diagnose"),
        ("SPANS", "true", "OTEL_PROMPTCACHE_SPANS takes one of auto, always, never; using auto"),
        (
            "NATIVE_DIAGNOSTICS",
            "1.5",
            "OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS takes true, false, or a share from 0 to 1; using 0.0",
        ),
        ("PERCENT", "101", "OTEL_PROMPTCACHE_PERCENT takes a number from 0 to 100; using 100.0"),
        ("PERCENT", "-1", "OTEL_PROMPTCACHE_PERCENT takes a number from 0 to 100; using 100.0"),
        ("PERCENT", "nan", "OTEL_PROMPTCACHE_PERCENT takes a number from 0 to 100; using 100.0"),
        ("PERCENT", "all", "OTEL_PROMPTCACHE_PERCENT takes a number from 0 to 100; using 100.0"),
        ("BUDGET_MS", "inf", "OTEL_PROMPTCACHE_BUDGET_MS takes a number from 0 to 60000; using 10.0"),
        ("LEDGER", "maybe", "OTEL_PROMPTCACHE_LEDGER takes true or false; using False"),
        ("HISTORY_SEGMENTS", "99", "OTEL_PROMPTCACHE_HISTORY_SEGMENTS takes a number from 100 to 1e+08; using 100000"),
    ],
)
def test_a_variable_that_cannot_be_used(name: str, text: str, problem: str) -> None:
    """The default holds, and a sentence names the setting and what it takes."""
    assert read(**{name: text}) == (Settings(), [problem])


@pytest.mark.parametrize("name", [item.name.upper() for item in fields(Settings)])
@pytest.mark.parametrize("text", ["", "  "], ids=["empty", "blank"])
def test_an_empty_variable_is_an_unset_one(name: str, text: str) -> None:
    """As with every variable of OpenTelemetry."""
    assert read(**{name: text}) == (Settings(), [])


def test_one_mistake_spoils_no_other_setting() -> None:
    """Each on its own."""
    found, problems = read(MODE="nonsense", PERCENT="50", LEDGER="nonsense")
    assert (found.mode, found.percent, found.ledger, len(problems)) == (Mode.DIAGNOSE, 50.0, False, 2)


def test_a_secret_is_not_repeated() -> None:
    """A key pasted into the wrong variable must not reach a log."""
    _, problems = read(MODE="sk-secret", PERCENT="sk-secret", SPANS="sk-secret", LEDGER="sk-secret")
    assert len(problems) == 4
    assert not any("sk-secret" in problem for problem in problems)


def test_defaults() -> None:
    """Diagnosis of every call, no events, no text."""
    assert (Settings().mode, Settings().percent, Settings().spans, Settings().ledger) == (
        Mode.DIAGNOSE,
        100.0,
        Spans.AUTO,
        False,
    )
    assert parse({}, {}) == (Settings(), [])


def test_settings_do_not_change_under_way() -> None:
    """A call that has begun ends under the settings it began with."""
    with pytest.raises(FrozenInstanceError):
        Settings().mode = Mode.OFF  # type: ignore[misc]


class TestFile:
    """A TOML file whose values win over the environment."""

    @pytest.mark.parametrize(
        ("document", "name", "value"),
        [
            ({"mode": "tokens"}, "mode", Mode.TOKENS),
            ({"percent": 50}, "percent", 50.0),
            ({"percent": 12.5}, "percent", 12.5),
            ({"ledger": True}, "ledger", True),
            ({"ledger": False}, "ledger", False),
            ({"metric_keys": ["a", "b"]}, "metric_keys", ("a", "b")),
            ({"metric_keys": []}, "metric_keys", ()),
            ({"metric_keys": "a, b"}, "metric_keys", ("a", "b")),
            ({"history_segments": 500}, "history_segments", 500),
        ],
        ids=str,
    )
    def test_values(self, document: dict[str, Any], name: str, value: object) -> None:
        """In TOML's own types, or as they would be written in the environment."""
        found, problems = parse(
            {PREFIX + "MODE": "off", PREFIX + "PERCENT": "7", PREFIX + "METRIC_KEYS": "x"}, document
        )
        assert (getattr(found, name), problems) == (value, [])

    def test_mistakes(self) -> None:
        """Unknown keys are named with the known ones; unusable values with what they take."""
        found, problems = parse({}, {"mod": "off", "percent": "lots", "mode": {"a": 1}})
        assert found == Settings()
        assert len(problems) == 3
        assert problems[0].startswith(
            f"{CONFIG_FILE}: unknown key 'mod'; known are account, advice, auto, backends, baggage_keys, batch_spans, "
        )
        assert problems[1:] == [
            f"{CONFIG_FILE}: mode takes one of off, tokens, diagnose; using diagnose",
            f"{CONFIG_FILE}: percent takes a number from 0 to 100; using 100.0",
        ]

    def test_a_mistake_in_the_file_is_not_mended_by_the_environment(self) -> None:
        """The file was meant to win; the default holds."""
        found, problems = parse({PREFIX + "MODE": "off"}, {"mode": "full"})
        assert (found.mode, len(problems)) == (Mode.DIAGNOSE, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock by which the file is looked at."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


class TestLive:
    """The settings in force, and the file re-read while the process runs."""

    def live(self, file: Path, **environment: str) -> Live:
        named = {PREFIX + name: value for name, value in environment.items()}
        return Live(named | {CONFIG_FILE: str(file)})

    def test_environment_only(self) -> None:
        """Read once."""
        environment = {PREFIX + "MODE": "tokens"}
        live = Live(environment)
        environment[PREFIX + "MODE"] = "off"
        assert live.current().mode is Mode.TOKENS

    def test_the_process_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no other is given."""
        monkeypatch.setenv(PREFIX + "MODE", "off")
        assert Live().current().mode is Mode.OFF

    def test_re_read(self, tmp_path: Path, clock: Callable[[float], None]) -> None:
        """Looked at once a second at most."""
        file = tmp_path / "promptcache.toml"
        file.write_text('mode = "tokens"')
        live = self.live(file, LEDGER="true")
        assert (live.current().mode, live.current().ledger) == (Mode.TOKENS, True)
        file.write_text('mode = "off" # now')
        assert live.current().mode is Mode.TOKENS
        clock(1.0)
        assert (live.current().mode, live.current().ledger) == (Mode.OFF, True)

    def test_an_unchanged_file_is_not_read_again(
        self, tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its time and size say so; and the settings are the very same object."""
        file = tmp_path / "promptcache.toml"
        file.write_text('mode = "tokens"')
        live = self.live(file)
        first = live.current()
        monkeypatch.setattr(module.tomllib, "load", lambda _: pytest.fail("read again"))
        clock(10.0)
        assert live.current() is first

    def test_broken_while_running(
        self, tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Half-written, not UTF-8, gone: what was in force stays in force, said once."""
        file = tmp_path / "promptcache.toml"
        file.write_text('mode = "tokens"')
        live = self.live(file)
        for broken in (b"mode = ", b"mode = \xff", None, b"mode = ["):
            file.unlink() if broken is None else file.write_bytes(broken)
            clock(2.0)
            assert live.current().mode is Mode.TOKENS
        kinds = [record.getMessage().split(": ")[2] for record in ours(caplog)]
        assert kinds == ["TOMLDecodeError", "UnicodeDecodeError", "FileNotFoundError"]
        file.write_text('mode = "off"')
        clock(2.0)
        assert live.current().mode is Mode.OFF

    @pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, lambda file: file.write_bytes(b"[")])
    def test_unreadable_at_start(
        self,
        tmp_path: Path,
        clock: Callable[[float], None],
        caplog: pytest.LogCaptureFixture,
        make: Callable[[Path], object],
    ) -> None:
        """The environment holds; a file that comes later is read."""
        file = tmp_path / "promptcache.toml"
        make(file)
        live = self.live(file, MODE="tokens")
        assert live.current().mode is Mode.TOKENS
        assert len(ours(caplog)) == 1
        if file.is_dir():
            file.rmdir()
        file.write_text('mode = "off"')
        clock(2.0)
        assert live.current().mode is Mode.OFF

    def test_mistakes_are_said_once(
        self, tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        """However often the file is written."""
        file = tmp_path / "promptcache.toml"
        live = self.live(file, PERCENT="lots")
        caplog.clear()
        for number in range(3):
            file.write_text(f'mode = "full" # {"x" * number}')
            clock(2.0)
            assert live.current() == Settings()
        assert [(record.levelno, record.name) for record in ours(caplog)] == [(logging.WARNING, "otel_promptcache")]
        assert ours(caplog)[0].getMessage() == (
            f"otel-promptcache: {CONFIG_FILE}: mode takes one of off, tokens, diagnose; using diagnose"
        )

    def test_a_file_of_the_same_size(self, tmp_path: Path, clock: Callable[[float], None]) -> None:
        """Its time shows the change."""
        file = tmp_path / "promptcache.toml"
        file.write_text("percent = 10")
        live = self.live(file)
        file.write_text("percent = 20")
        os.utime(file, ns=(1, 1))
        clock(2.0)
        assert live.current().percent == 20.0


class TestMeanings:
    """The table that the documentation is made of."""

    def test_every_setting_has_a_row(self) -> None:
        """And the file has one."""
        names = [name for name, _, _ in meanings()]
        assert names == [CONFIG_FILE, *(PREFIX + item.name.upper() for item in fields(Settings))]

    def test_a_default_reads_as_it_would_be_written(self) -> None:
        """Put into the environment it is the default again."""
        written = {name: default for name, default, _ in meanings() if default}
        assert parse(written, {}) == (Settings(), [])
        assert written[PREFIX + "METRIC_KEYS"] == "team,feature"
        assert written[PREFIX + "LEDGER"] == "false"

    def test_every_row_has_a_meaning(self) -> None:
        """One line."""
        assert [name for name, _, meaning in meanings() if not meaning or "\n" in meaning] == []
