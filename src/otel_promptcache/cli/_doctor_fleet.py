"""The shared history: whether it answers, and whether all workers have one key and one schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from otel_promptcache._version import __version__
from otel_promptcache.cli._doctor_report import NAMES_OF_THEIR_OWN, Finding, Section, note, ok, problem, some
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.records import SCHEMA
from otel_promptcache.history.redis import ROSTER_SECONDS, Member, Server
from otel_promptcache.settings import PREFIX, Settings
from otel_promptcache.telemetry.identity import INSTANCE

_TITLE: Final = "Shared history"
_ASKED: Final = 5
_CLOCKS: Final = 1.0
"""Seconds by which clocks may differ before it is worth a word."""


def section(settings: Settings, timeout: float) -> Section:
    """What the server and its roster of workers say."""
    return Section(_TITLE, list(_findings(settings, timeout)))


def _findings(settings: Settings, timeout: float) -> Iterator[Finding]:
    if not settings.history_url:
        yield note("server", "none: each worker knows what it sent itself", f"{PREFIX}HISTORY_URL names one")
        return
    if not settings.hash_key:
        yield problem("key", "none, so nothing is shared", f"{PREFIX}HASH_KEY, the same secret for all workers")
        return
    keys = [HashKey(one).id for one in (settings.hash_key, settings.hash_key_before) if one]
    server = Server(settings.history_url, timeout)
    where = _where(settings.history_url)
    try:
        yield _answer(server, where, settings)
        yield from _roster(server.roster(), keys, server.now)
    except ImportError:
        yield problem("redis", "the library is not installed", "pip install 'otel-promptcache[redis]'")
    except Exception as error:
        yield problem(
            "server",
            f"{where}: {type(error).__name__}: {error}",
            f"{PREFIX}HISTORY_URL; a user needs the rights in docs/fleet.md",
        )
    finally:
        server.close()


def _where(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _answer(server: Server, where: str, settings: Settings) -> Finding:
    times = []
    for _ in range(_ASKED):
        begun = perf_counter()
        (reply,) = server.run([("GET", "promptcache:doctor")])
        times.append((perf_counter() - begun) * 1000)
        if isinstance(reply, Exception):
            raise reply
    took, wait = sorted(times)[_ASKED // 2], settings.history_wait_ms
    if took > wait:
        return problem(
            "server",
            f"{where} answers in {took:.1f} ms, calls wait {wait:g} ms",
            f"{PREFIX}HISTORY_WAIT_MS, or a nearer one",
        )
    if abs(server.ahead()) > _CLOCKS:
        return note(
            "server",
            f"{where} answers in {took:.1f} ms; its clock is {server.ahead():+.1f} s from this machine's",
            "times are taken from the server's clock: nothing need be done for the history",
        )
    return ok("server", f"{where} answers in {took:.1f} ms")


def _roster(said: Sequence[tuple[str, float]], keys: Sequence[str], now: float) -> Iterator[Finding]:
    oldest = now - ROSTER_SECONDS - 60
    members = [member for name, at in said if at > oldest and (member := Member.of(name)) is not None]
    if not members:
        yield note("workers", "none has said anything in the last hour", "they do with their first call")
        return
    hosts = {member.host for member in members}
    yield ok("workers", f"on {len(hosts)} host{'s' if len(hosts) > 1 else ''} in the last hour: {some(hosts)}")
    strangers = [member for member in members if not (member.keys[0] in keys or keys[0] in member.keys)]
    if strangers:
        yield problem(
            "keys",
            f"another one ({some({one.keys[0] for one in strangers})}, here {keys[0]}) on "
            f"{some({one.host for one in strangers})}",
            f"{PREFIX}HASH_KEY must be one secret for all; while it is changed, {PREFIX}HASH_KEY_BEFORE is the other",
        )
    else:
        yield ok("keys", f"one for all: {keys[0]}")
    apart = {f"{member.host} ({member.clock:+d} s)" for member in members if abs(member.clock) > _CLOCKS}
    if apart:
        yield note(
            "clocks",
            f"not the server's: {some(apart)}",
            "set them: spans and ledger events bear the times of their worker; the shared history goes by the server's",
        )
    for name in sorted({member.name for member in members if member.name}):
        named = {member.host for member in members if member.name == name}
        if len(named) > 1:
            yield problem(
                INSTANCE,
                f"{name} on {some(named)}: they overwrite one another's counters",
                NAMES_OF_THEIR_OWN,
            )
    far = {member.schema for member in members if abs(member.schema - SCHEMA) > 1}
    near = {member.schema for member in members} - far - {SCHEMA}
    versions = {member.version for member in members}
    if far:
        yield problem(
            "schema", f"{some(far)} beside {SCHEMA}: these workers do not read each other", "bring them to one version"
        )
    elif near:
        yield note("schema", f"{some(near)} beside {SCHEMA}: the newer version reads both, the older one its own")
    if versions != {__version__}:
        yield note("versions", f"{some(versions)}; here {__version__}")
