"""What is set, whether it can be used, how many values a label can take, and how the process is started."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple

from otel_promptcache import autoload, journal, pricing, semconv
from otel_promptcache.cli import auto
from otel_promptcache.cli._doctor_child import LAUNCHER_PATH
from otel_promptcache.cli._doctor_peers import DISABLED
from otel_promptcache.cli._doctor_report import Finding, Section, note, ok, problem
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.providers import native
from otel_promptcache.semconv import Reason
from otel_promptcache.settings import CONFIG_FILE, PREFIX, Settings, parse
from otel_promptcache.telemetry.counters import MAX_LABEL_VALUES

_ENTRY_POINTS: Final = ("promptcache-anthropic", "promptcache-openai")
_WITHOUT_COMMON: Final = tuple(
    metric.name for metric in (semconv.M_ERRORS, semconv.M_OVERHEAD, semconv.M_LOOKUPS, semconv.M_KEY_MISMATCH)
)
_BOUNDLESS: Final = frozenset({"user", "conversation", "session", "request", "trace"})


class Current(NamedTuple):
    """The settings in force, where they come from, and what could not be used."""

    settings: Settings
    document: Mapping[str, Any]
    path: str
    unreadable: str
    problems: list[str]


def current(environment: Mapping[str, str] | None = None) -> Current:
    """Settings as an application with this environment has them."""
    known = os.environ if environment is None else environment
    path, document, unreadable = known.get(CONFIG_FILE, ""), {}, ""
    if path:
        try:
            with open(path, "rb") as handle:
                document = tomllib.load(handle)
        except OSError as error:
            unreadable = error.strerror or type(error).__name__
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            # Not the parser's own words: they may quote the line.
            unreadable = f"{type(error).__name__}: it is no TOML"
    settings, problems = parse(known, document)
    return Current(settings, document, path, unreadable, problems)


# --- settings -----------------------------------------------------------------------------------------------


def settings_section(found: Current) -> Section:
    """Every setting that is set."""
    return Section("Settings", list(_settings(found)))


def _settings(found: Current) -> Iterator[Finding]:
    if found.path:
        if found.unreadable:
            yield problem(CONFIG_FILE, f"{found.path} cannot be read: {found.unreadable}")
        else:
            yield ok(CONFIG_FILE, f"{found.path}, {len(found.document)} settings")
    names = {item.name for item in fields(Settings)}
    for name in sorted(names):
        source = _source(name, found)
        is_set = name in found.document or PREFIX + name.upper() in os.environ
        if is_set and not any(said.startswith(f"{source} ") for said in found.problems):
            yield ok(source, _shown(name, getattr(found.settings, name)))
    for said in found.problems:
        source, _, sentence = said.partition(" ")
        yield problem(source.rstrip(":"), sentence)
    yield from _unknown(names)
    yield from _price_file(found)
    yield _comparable(found.settings)
    yield _asked(found.settings)
    yield from _journal(found.settings)
    yield _advice(found.settings)
    if found.settings.mode == "off":
        yield note(PREFIX + "MODE", "off: nothing is observed")


def _source(name: str, found: Current) -> str:
    return f"{CONFIG_FILE}: {name}" if name in found.document else PREFIX + name.upper()


_SECRET: Final = frozenset({"hash_key", "hash_key_before", "history_url"})  # the URL may have a password in it


def _shown(name: str, value: object) -> str:
    if name in _SECRET:
        return "set, not shown" if value else "empty"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(names: set[str]) -> Iterator[Finding]:
    """Variables with our prefix that nothing reads: usually a slip of the pen."""
    variables = [CONFIG_FILE, *(PREFIX + name.upper() for name in names)]
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in variables:
            close = difflib.get_close_matches(variable, variables, 1)
            yield problem(variable, "no such setting: nothing reads it", f"{close[0]}?" if close else "")


def _price_file(found: Current) -> Iterator[Finding]:
    """What is wrong with the price file, all of it: an application that runs says no more than the beginning."""
    path = found.settings.price_file
    if not path:
        return
    source = f"{_source('price_file', found)}: {os.path.basename(path)}"
    try:
        rows = pricing.read(path).rows
    except pricing.PriceFileError as error:
        for sentence in error.problems:
            yield problem(source, f"not used: {sentence}")
    except OSError as error:
        yield problem(source, f"cannot be read: {error.strerror or type(error).__name__}")
    else:
        yield ok(source, f"{len(rows)} rows")


def _comparable(settings: Settings) -> Finding:
    if settings.hash_key:
        return ok(
            "fingerprints", f"compare wherever the key is the same; this key's id is {HashKey(settings.hash_key).id}"
        )
    return note(
        "fingerprints",
        "compare within one process only: each makes a key of its own",
        f"{PREFIX}HASH_KEY, the same secret for all, lets fingerprints of different processes be compared",
    )


def _asked(settings: Settings) -> Finding:
    """Who is asked for a verdict of their own, and about how much."""
    subject, further = "native diagnostics", ", ".join(settings.native_hosts)
    if settings.native_diagnostics:
        hosts = [host for asking in native.ASKING.values() for host in asking.hosts]
        return ok(
            subject,
            f"asked about {settings.native_diagnostics:.4g} of all conversations at {', '.join(hosts)}, loopback"
            f"{f', {further}' if further else ''}; a host that refuses (HTTP 400) is not asked again by that process, "
            "which logs it",
        )
    if further:
        return note(
            subject,
            f"off: {PREFIX}NATIVE_HOSTS names {further}, and nobody is asked",
            f"{PREFIX}NATIVE_DIAGNOSTICS=0.01 asks about one conversation in a hundred",
        )
    return ok(subject, "off: requests leave as the application made them")


def _journal(settings: Settings) -> Iterator[Finding]:
    """Whether changes of a prefix are told, and whether they are seen across a deploy."""
    subject, file = "change journal", settings.journal_file
    if not settings.journal:
        text = f"off: {file} is not used" if file else "off: changes of a stable prefix are not told"
        yield note(subject, text, f"{PREFIX}JOURNAL=true")
        return
    if not file:
        yield ok(subject, "on, in memory: what a deploy changed is seen with OTEL_PROMPTCACHE_JOURNAL_FILE")
        return
    if not settings.hash_key:
        yield problem(
            subject,
            f"{file} cannot be read by the next process: each has a key of its own",
            f"{PREFIX}HASH_KEY, the same secret for all",
        )
        return
    folder = os.path.dirname(os.path.abspath(file))
    if not os.access(folder, os.W_OK):
        yield problem(subject, f"{folder} cannot be written to", "its files are replaced as a whole: the folder counts")
        return
    try:
        key = journal.key_of(file)
    except FileNotFoundError:
        yield ok(subject, f"on; {file} is not there yet")
    except (OSError, ValueError) as error:
        yield problem(subject, f"{file} cannot be read ({type(error).__name__}): it begins anew", "")
    else:
        if key == HashKey(settings.hash_key).id:
            yield ok(subject, f"on; {file} goes on under key {key}")
        else:
            text = f"{Reason.KEY_MISMATCH}: {file} was written under key {key}, and begins anew"
            yield problem(subject, text, f"the {PREFIX}HASH_KEY that it was written under, or another file")


def _advice(settings: Settings) -> Finding:
    """Whether it is said that writes do not pay."""
    if not settings.advice:
        return note("advice", "off: of writes that do not pay only the counter tells", f"{PREFIX}ADVICE=true")
    if not settings.prices:
        return note("advice", "on, but without prices there is nothing to weigh", f"{PREFIX}PRICES=true")
    return ok("advice", "on: a log event for a route whose cache writes do not pay")


# --- cardinality --------------------------------------------------------------------------------------------


def labels(settings: Settings) -> tuple[str, ...]:
    """The labels that all counters share."""
    return (*semconv.COMMON_LABELS, *(f"{semconv.ATTRIBUTION}.{name}" for name in settings.metric_keys))


def cardinality(settings: Settings) -> list[Finding]:
    """Which labels each metric has, and their bound."""
    bound = f"at most {MAX_LABEL_VALUES} values each in a process, then {semconv.OVERFLOW}"
    found = [ok("common labels", f"{', '.join(labels(settings))}: {bound}")]
    found += [
        note(
            f"{semconv.ATTRIBUTION}.{name}",
            f"likely to have more than {MAX_LABEL_VALUES} values, of which the first {MAX_LABEL_VALUES} are kept apart",
            f"leave it out of {PREFIX}METRIC_KEYS: spans and ledger carry it anyway",
        )
        for name in settings.metric_keys
        if _BOUNDLESS & set(name.lower().replace(".", "_").split("_"))
    ]
    groups: dict[str, list[str]] = {}
    for metric in semconv.METRICS:
        if metric is not semconv.M_TOKEN_USAGE or settings.token_usage_metric:
            alone = metric.name in _WITHOUT_COMMON
            own = ("only " if alone else "+ ") + ", ".join(metric.labels) if metric.labels else "no more than these"
            groups.setdefault(own, []).append(metric.name)
    return [*found, *(ok(own, ", ".join(names)) for own, names in groups.items())]


# --- start --------------------------------------------------------------------------------------------------


def start_section(settings: Settings) -> Section:
    """Whether and how the instrumentation starts without a line of code."""
    return Section("Automatic start", list(_start(settings)))


def _start(settings: Settings) -> Iterator[Finding]:
    launcher = shutil.which("opentelemetry-instrument", path=_scripts())
    if launcher:
        yield ok("opentelemetry-instrument", "installed; it finds us by our entry points")
    else:
        yield note("opentelemetry-instrument", "not installed", "pip install 'otel-promptcache[otlp]'")
    excluded = [name.strip() for name in os.environ.get(DISABLED, "").split(",")]
    for name in _ENTRY_POINTS:
        if name in excluded or "*" in excluded:
            yield note(DISABLED, f"opentelemetry-instrument leaves {name} out")
    ways = list(_ways())
    yield from ways
    path = os.environ.get("PYTHONPATH", "")
    if settings.auto and not any("not there" not in finding.text for finding in ways) and LAUNCHER_PATH not in path:
        yield problem(
            PREFIX + "AUTO",
            "set, but nothing here looks at it",
            "otel-promptcache auto enable, or PYTHONPATH=$(otel-promptcache auto path)",
        )
    elif settings.auto:
        yield ok(PREFIX + "AUTO", "set: processes of this environment start observed")
    else:
        yield ok(PREFIX + "AUTO", "not set: nothing starts by itself")


def _scripts() -> str:
    """Where commands of this environment are, then where the shell would look."""
    here = [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]
    return os.pathsep.join([*here, os.environ.get("PATH", os.defpath)])


def _ways() -> Iterator[Finding]:
    """The two ways in which an interpreter comes to look at the switch."""
    file = auto.pth_path()
    try:
        with open(file, encoding="utf-8") as handle:
            written = handle.read()
    except OSError:
        yield ok(auto.FILE, "not there; `otel-promptcache auto enable` writes it")
    else:
        if autoload.__name__ in written:
            yield ok(auto.FILE, "enabled in this environment")
        else:
            yield problem(auto.FILE, "does not start us", "otel-promptcache auto enable writes it anew")
    here = os.path.realpath(auto.directory())
    if any(os.path.realpath(entry) == here for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry):
        yield ok("PYTHONPATH", "names the directory of otel-promptcache auto path")
