"""What ``doctor --fleet`` says of the shared history, and erasing a tenant."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import pytest
from servers import until
from servers.application import Clients, message, observed, provider, text
from servers.valkey import Running, valkey

from otel_promptcache.cli import _doctor_fleet, main
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.records import SCHEMA
from otel_promptcache.history.redis import ROSTER
from otel_promptcache.history.sharing import Realm
from otel_promptcache.settings import Settings

pytestmark = pytest.mark.server
OWN = HashKey("one").id


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with valkey() as one:
        yield one


@pytest.fixture
def server(running: Running) -> Running:
    running.client.flushall()
    return running


def said(server: Running, *members: str, **settings: str) -> list[tuple[str, str]]:
    """Level and subject of each finding, with these workers on the roster."""
    for member in members:
        server.client.zadd(ROSTER, {member: time.time()})
    given = Settings(**{"history_url": server.url, "hash_key": "one", **settings})  # type: ignore[arg-type]
    return [(one.level.value, one.subject) for one in _doctor_fleet.section(given, 60.0).findings]


@pytest.mark.parametrize(
    ("member", "finding"),
    [
        (f"{OWN} {SCHEMA} 0.1.0 host-a", ("ok", "keys")),
        (f"deadbeef {SCHEMA} 0.1.0 host-a", ("problem", "keys")),
        (f"{HashKey('two').id}+{OWN} {SCHEMA} 0.1.0 host-a", ("ok", "keys")),
        (f"{OWN} {SCHEMA + 1} 0.2.0 host-a", ("note", "schema")),
        (f"{OWN} {SCHEMA + 2} 0.3.0 host-a", ("problem", "schema")),
        (f"{OWN} {SCHEMA} 9.9.9 host-a", ("note", "versions")),
        (f"{OWN} {SCHEMA} 0.1.0 host-a -120s", ("note", "clocks")),
        (f"deadbeef {SCHEMA} 0.1.0 host-a +1s of what is to come", ("problem", "keys")),
        (f"{OWN} {SCHEMA} 0.1.0 host-a/shop/one", ("problem", "service.instance.id")),
        (f"{OWN} {SCHEMA} 0.1.0 host-a/shop/one +3s", ("problem", "service.instance.id")),
    ],
    ids=[
        "same",
        "other key",
        "changing keys",
        "next schema",
        "schema after next",
        "other version",
        "other time",
        "what a later version adds",
        "other host",
        "other host and time",
    ],
)
def test_workers_that_differ(server: Running, member: str, finding: tuple[str, str]) -> None:
    assert finding in said(server, f"{OWN} {SCHEMA} 0.1.0 host-b/shop/one", member)


@pytest.mark.parametrize("name", ["", "/shop/two", "/bot/one"])
def test_names_of_their_own(server: Running, name: str) -> None:
    """Two hosts that chose another, or the same for different services."""
    members = (f"{OWN} {SCHEMA} 0.1.0 host-{host}{chosen}" for host, chosen in (("a", name), ("b", "/shop/one")))
    assert "service.instance.id" not in [subject for _, subject in said(server, *members)]


def test_what_workers_say_is_understood(server: Running) -> None:
    """A worker whose name was chosen, and this one under another host's."""
    with (
        observed(service="shop", instance="one", hash_key="one", history_url=server.url, history_wait_ms="5000"),
        provider() as emulated,
    ):
        Clients(emulated.url).anthropic.messages.create(**message(text(2000), text(10)))
        (own,) = until(lambda: server.client.zrange(ROSTER, 0, -1))
    assert re.search(rf" {re.escape(socket.gethostname())}/shop/one( [+-]\d+s)?$", own.decode())
    assert ("problem", "service.instance.id") in said(server, f"{OWN} {SCHEMA} 0.1.0 host-b/shop/one")


def test_garbage_on_the_roster_is_passed_over(server: Running) -> None:
    assert ("note", "workers") in said(server, "garbage", "a b c d")


def test_a_server_that_does_not_answer_is_a_problem_without_its_password() -> None:
    settings = Settings(history_url="redis://user:secret@127.0.0.1:1", hash_key="one")
    (finding,) = _doctor_fleet.section(settings, 1.0).findings
    assert finding.level.value == "problem"
    assert "secret" not in finding.text
    assert "127.0.0.1:1" in finding.text


@pytest.mark.parametrize(("settings", "subject"), [({"history_url": ""}, "server"), ({"hash_key": ""}, "key")])
def test_what_is_missing_is_said(server: Running, settings: dict[str, str], subject: str) -> None:
    assert [one[1] for one in said(server, **settings)] == [subject]


def test_erasing_a_tenant(server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Under both keys while they are changed; nobody else's."""
    monkeypatch.setenv("OTEL_PROMPTCACHE_HISTORY_URL", server.url)
    monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", "one")
    monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY_BEFORE", "two")
    for key in ("one", "two"):
        for tenant in ("a", "b"):
            server.client.set(Realm(HashKey(key), tenant).name("p", b"x"), b"")
    assert main(["fleet", "erase", "--tenant", "a"]) == 0
    assert capsys.readouterr().out == "Erased 2 keys.\n"
    assert server.client.dbsize() == 2


def test_erasing_without_a_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("OTEL_PROMPTCACHE_HASH_KEY", raising=False)
    assert main(["fleet", "erase", "--tenant", "a"]) == 2
    assert "OTEL_PROMPTCACHE_HASH_KEY" in capsys.readouterr().err
