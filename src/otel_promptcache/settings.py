"""Every ``OTEL_PROMPTCACHE_*`` setting: name, default, meaning, check.

Settings come from the environment and from the TOML file that ``OTEL_PROMPTCACHE_CONFIG_FILE`` names, whose values
win because it can be changed while the process runs (``mode = "tokens"``; keys are the names without the prefix,
in lower case). A value that cannot be used is reported once with the name of its setting, and the default holds:
a typing error in a configuration must not stop an application.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from time import monotonic
from typing import Any, Final

from otel_promptcache.vocabulary.backends import Backend

log = logging.getLogger("otel_promptcache")

PREFIX: Final = "OTEL_PROMPTCACHE_"
CONFIG_FILE: Final = PREFIX + "CONFIG_FILE"
RECHECK_SECONDS: Final = 1.0


class Mode(StrEnum):
    """How much is done for each call."""

    OFF = "off"
    TOKENS = "tokens"
    DIAGNOSE = "diagnose"


class Remember(StrEnum):
    """Whether the text of prompts is kept."""

    OFF = "off"
    MEMORY = "memory"


class Spans(StrEnum):
    """Where our span attributes go."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Privacy(StrEnum):
    """How much of prompts may be shown, each step more than the one before."""

    HASHES = "hashes"
    NAMES = "names"
    REDACTED = "redacted"
    FULL = "full"


class SettingError(ValueError):
    """A value that cannot be used; the message names the setting and what it takes."""


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("true", "1", "yes", "on"):
        return True
    if lowered in ("false", "0", "no", "off", ""):
        return False
    raise SettingError("takes true or false")


def _share(text: str) -> float:
    try:
        return float(_flag(text))
    except SettingError:
        pass
    try:
        return _number(0, 1)(text)
    except SettingError:
        raise SettingError("takes true, false, or a share from 0 to 1") from None


def _choice(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        try:
            return kind(text.strip().lower())
        except ValueError:
            raise SettingError("takes one of " + ", ".join(kind)) from None

    return parse


def _choices(kind: type[StrEnum]) -> Callable[[str], tuple[StrEnum, ...]]:
    def parse(text: str) -> tuple[StrEnum, ...]:
        try:
            return tuple(dict.fromkeys(kind(name.lower()) for name in _names(text)))
        except ValueError:
            raise SettingError("takes some of " + ", ".join(kind) + ", comma separated") from None

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise SettingError(f"takes a number from {least:g} to {most:g}")
        return value

    return parse


def _count(least: int, most: int) -> Callable[[str], int]:
    number = _number(least, most)
    return lambda text: int(number(text))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``llm.internal=vllm, localhost:30000=sglang`` as pairs."""
    pairs = [(name.strip(), value.strip()) for name, _, value in (part.partition("=") for part in _names(text))]
    if not all(name and value for name, value in pairs):
        raise SettingError("takes host=provider or host:port=provider, comma separated")
    return tuple(pairs)


def _text(text: str) -> str:
    return text.strip()


def _setting(default: object, parse: Callable[[str], object], meaning: str) -> Any:
    return field(default=default, metadata={"parse": parse, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. Field ``mode`` is ``OTEL_PROMPTCACHE_MODE``, and so on."""

    mode: Mode = _setting(
        Mode.DIAGNOSE,
        _choice(Mode),
        "`off`, `tokens` (usage and cost only) or `diagnose` (fingerprints and reasons too)",
    )
    percent: float = _setting(100.0, _number(0, 100), "Share of calls that are diagnosed; the others as in `tokens`")
    budget_ms: float = _setting(
        10.0,
        _number(0, 60_000),
        "CPU time of the diagnosis of a call on the caller's thread, beyond which it pauses; 0 = no limit",
    )
    spans: Spans = _setting(
        Spans.AUTO,
        _choice(Spans),
        "`auto` (enrich the span that already stands for the call, else make one), `always` (make one), `never`",
    )
    batch_spans: bool = _setting(
        False,
        _flag,
        "A span for each item of a batch, instead of their sums on the span of reading the results",
    )
    backends: tuple[Backend, ...] = _setting(
        (),
        _choices(Backend),
        "Backends whose own keys spans carry too (`phoenix`, `arize`, `langfuse`, `langsmith`, `datadog`, `honeycomb`, "
        "`grafana`), comma separated; see backends.md",
    )
    ledger: bool = _setting(False, _flag, "One log event `promptcache.call` a call, unsampled")
    prompt_map: bool = _setting(False, _flag, "One log event `promptcache.prompt` a call: packed segment digests")
    journal: bool = _setting(
        True,
        _flag,
        "One log event `promptcache.prefix.changed` when tools, system prompt or parameters of a route change",
    )
    advice: bool = _setting(True, _flag, "One log event `promptcache.advice` for a route whose cache writes do not pay")
    journal_file: str = _setting(
        "",
        _text,
        "File in which the journal remembers prefixes (hashes) across restarts, and so sees deploys; needs "
        "OTEL_PROMPTCACHE_HASH_KEY (read at the start)",
    )
    hash_key: str = _setting(
        "", _text, "Key of all exported digests; share it to compare across processes (read at the start)"
    )
    hash_key_before: str = _setting(
        "",
        _text,
        "While keys are changed, the other one: the shared history is read under it too (read at the start)",
    )
    history_url: str = _setting(
        "",
        _text,
        "Redis or Valkey in which workers share their history: `redis://`, `rediss://`, `unix://`, with user and "
        "password, `?cluster=true` for a cluster; needs OTEL_PROMPTCACHE_HASH_KEY (read at the start)",
    )
    history_wait_ms: float = _setting(
        20.0, _number(0, 10_000), "Milliseconds that the end of a call waits for the shared history, at most"
    )
    history_lines: bool = _setting(
        False,
        _flag,
        "Share keyed line hashes of messages too, not only of tools and system prompt: the cause and the line of a "
        "changed message are then told across workers (read at the start)",
    )
    metric_keys: tuple[str, ...] = _setting(
        ("team", "feature"), _names, "Attribution keys that become metric labels, comma separated"
    )
    baggage_keys: tuple[str, ...] = _setting((), _names, "W3C baggage members taken over as attribution")
    carry: bool = _setting(
        True,
        _flag,
        "Take route and attribution along into threads, executors and Celery tasks (read at the start)",
    )
    flush_at_end: bool = _setting(
        True,
        _flag,
        "Have everything exported before a process ends that runs no exit handlers: children of multiprocessing and "
        "Celery, uvicorn (read at the start)",
    )
    flush_on_sigterm: bool = _setting(
        False,
        _flag,
        "The same where SIGTERM would end the process, unless it is a child of multiprocessing; its main thread has to "
        "come back to Python now and then (read at the start)",
    )
    native_diagnostics: float = _setting(
        0.0,
        _share,
        "Share of conversations (`true`: all) whose requests ask the provider for its own cache verdict; beside "
        "OTEL_PROMPTCACHE_STREAM_USAGE the only setting by which a request is changed",
    )
    native_hosts: tuple[str, ...] = _setting(
        (), _names, "Further hosts that take this question: gateways in front of Anthropic or OpenAI, comma separated"
    )
    stream_usage: bool = _setting(
        False,
        _flag,
        "Ask streams of Chat Completions for their usage (`stream_options.include_usage`) where the application does "
        "not; the chunk it comes in is kept from the application, also where the server would have sent it unasked "
        "(Mistral and OpenRouter, which do, are not asked)",
    )
    provider_hosts: tuple[tuple[str, str], ...] = _setting(
        (),
        _pairs,
        "Who answers at private hosts, `host=provider` or `host:port=provider`, comma separated: "
        "`llm.internal=vllm,localhost:30000=sglang`",
    )
    token_usage_metric: bool = _setting(False, _flag, "Also record the older histogram `gen_ai.client.token.usage`")
    history_segments: int = _setting(
        100_000, _count(100, 100_000_000), "Prompt segments remembered in this process, at most (read at the start)"
    )
    privacy: Privacy = _setting(
        Privacy.HASHES,
        _choice(Privacy),
        "`hashes` (tool names and the application's own keys in paths are hashed), `names` (they are readable), "
        "`redacted` (reports show the differing text, secrets and personal data masked), `full`",
    )
    remember_text: Remember = _setting(
        Remember.OFF,
        _choice(Remember),
        "`off` (hashes only) or `memory`: prompts of late stay in memory, 64 MiB of them at most, never "
        "exported, so that a diagnosis tells the very character (read at the start)",
    )
    prices: bool = _setting(True, _flag, "`off` leaves out cost, and never imports the price data")
    price_file: str = _setting(
        "",
        _text,
        "TOML file of prices that win over the price data: private models, corrections, discounts; re-read when it "
        "changes",
    )
    account: str = _setting(
        "", _text, "Account whose prices hold, where the price file tells accounts apart; `attribute(account=…)` wins"
    )
    auto: bool = _setting(False, _flag, "Start with the interpreter (needs `otel-promptcache auto`; environment only)")


REMEMBERED_BYTES: Final = 64 * 2**20
"""Of prompts, in the process that sent them, where they may be remembered."""


def meanings() -> list[tuple[str, str, str]]:
    """(variable, default as written, meaning) of each setting, for the documentation."""
    defaults = Settings()
    rows = [(CONFIG_FILE, "", "TOML file with any of these, re-read while running; its values win")]
    for item in fields(Settings):
        value = getattr(defaults, item.name)
        shown = (
            ",".join(value)
            if isinstance(value, tuple)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )
        rows.append((PREFIX + item.name.upper(), shown, item.metadata["meaning"]))
    return rows


def parse(environment: Mapping[str, str], document: Mapping[str, object]) -> tuple[Settings, list[str]]:
    """Settings from an environment and a parsed configuration file, with a sentence for each value left out."""
    values: dict[str, Any] = {}
    known = {item.name: item for item in fields(Settings)}
    problems = [
        f"{CONFIG_FILE}: unknown key '{name}'; known are {', '.join(sorted(known))}"
        for name in document
        if name not in known
    ]
    for name, item in known.items():
        variable = PREFIX + name.upper()
        source, raw = (
            (CONFIG_FILE + f": {name}", document[name])
            if name in document
            else (variable, environment.get(variable, "").strip() or None)  # empty is unset, says OpenTelemetry
        )
        if raw is None:
            continue
        text = ",".join(map(str, raw)) if isinstance(raw, list) else str(raw)
        try:
            values[name] = item.metadata["parse"](text)
        except SettingError as error:
            # The value itself is not repeated: a hash key pasted into the wrong variable must not reach a log.
            problems.append(f"{source} {error}; using {'none' if item.default == () else item.default!s}")
    return Settings(**values), problems


class Live:
    """The current settings, and the configuration file re-read when its modification time changes."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._path = self._environment.get(CONFIG_FILE, "")
        self._stamp: tuple[int, int] | None = None
        self._said: set[str] = set()
        self._next_check = 0.0
        self._loaded = False
        self.value = Settings()
        self._load()

    def current(self) -> Settings:
        """The settings in force now. Looks at the file at most once a second."""
        if self._path:
            now = monotonic()
            if now >= self._next_check:
                self._next_check = now + RECHECK_SECONDS
                if self._stamp_of_file() != self._stamp:
                    self._load()
        return self.value

    def _stamp_of_file(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _load(self) -> None:
        document: Mapping[str, object] = {}
        if self._path:
            self._stamp = self._stamp_of_file()
            try:
                with open(self._path, "rb") as handle:
                    document = tomllib.load(handle)
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                self._say(f"{CONFIG_FILE}: {type(error).__name__}: the file cannot be read as TOML; nothing is changed")
                if self._loaded:
                    return
        self._loaded = True
        self.value, problems = parse(self._environment, document)
        for problem in problems:
            self._say(problem)

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            log.warning("otel-promptcache: %s", problem)
