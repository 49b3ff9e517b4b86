"""Workers that share a history, with real SDKs, a real Valkey, and everything that happens to servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from servers import until
from servers.application import Clients, Observed, message, observed, text
from servers.valkey import Running, cluster, valkey

from otel_promptcache.cli import _doctor_fleet
from otel_promptcache.emulator import Emulator
from otel_promptcache.history.records import SCHEMA
from otel_promptcache.observer import shared
from otel_promptcache.semconv import Lookup
from otel_promptcache.settings import Settings

pytestmark = pytest.mark.server

UNREAD = "promptcache.write.unread.cost"
LOOKUPS, MISMATCH, ERRORS = "promptcache.history.lookups", "promptcache.key.mismatch", "promptcache.internal.errors"
OLD, NEW = text(3000) + "\nIt is 09:41.", text(3000) + "\nIt is 09:42."


@pytest.fixture
def server() -> Iterator[Running]:
    with valkey() as running:
        yield running


def worker(server: Running, **settings: str) -> Any:
    """A process of the fleet, as far as anybody can tell: it remembers nothing of those before it."""
    settings = {"hash_key": "fleet", "history_url": server.url, "history_wait_ms": "10000", **settings}
    return observed(**settings)


def shared_by(told: Observed) -> shared.Sharing:
    """A worker's side of the shared history, which has told everything that it had to tell."""
    sharing = told.observer.sharing
    assert sharing is not None
    assert sharing.flush(60)
    return sharing


def said(told: Observed) -> dict[str, Any]:
    shared_by(told)
    return dict(told.call)


def outcomes(told: Observed) -> dict[str, int]:
    return {dict(labels)["promptcache.history.outcome"]: count for labels, count in told.points(LOOKUPS).items()}


def answered(told: Observed) -> int:
    return outcomes(told).get(Lookup.ANSWERED, 0)


def plain(clients: Clients, system: str) -> None:
    clients.anthropic.messages.create(**message(system, "hello"))


def streamed(clients: Clients, system: str) -> None:
    with clients.anthropic.messages.stream(**message(system, "hello")) as stream:
        for _ in stream:
            pass


def asynchronous(clients: Clients, system: str) -> None:
    async def run() -> None:
        async with clients.async_anthropic as client:
            await client.messages.create(**message(system, "hello"))

    asyncio.run(run())


@pytest.mark.parametrize("ask", [plain, streamed, asynchronous])
def test_what_another_worker_sent_is_recognised(
    server: Running, emulated: Emulator, ask: Callable[[Clients, str], None]
) -> None:
    found = []
    emulated.reset()
    for system in (OLD, NEW):
        clients = Clients(emulated.url)
        with worker(server) as told:
            ask(clients, system)
            found.append((said(told), told.calls[0]))
            assert outcomes(told) == {Lookup.ANSWERED: 1}
        clients.close()
    (_, earlier), (missed, span) = found
    assert (missed["promptcache.reason"], missed["promptcache.cause"]) == ("system_changed", "timestamp")
    assert span.links[0].context.span_id == earlier.context.span_id


def test_a_conversation_keeps_its_lineage_on_any_worker(server: Running, emulated: Emulator) -> None:
    lineages = set()
    turns = ["hello " * 40]
    emulated.reset()
    for _ in range(3):
        clients = Clients(emulated.url)
        with worker(server) as told:
            clients.anthropic.messages.create(**message(OLD, *turns))
            lineages.add(said(told)["promptcache.lineage.id"])
        clients.close()
        turns += ["answer " * 40, f"question {len(turns)} " * 40]
    assert len(lineages) == 1


# --- What happens to servers ----------------------------------------------------------------------------------


def test_a_server_that_is_frozen_costs_a_call_its_wait_and_no_more(
    server: Running, clients: Clients, emulated: Emulator
) -> None:
    """The verdicts are this worker's own then; when it goes on, so do we, without being told."""
    with worker(server, history_wait_ms="20") as told:

        def seconds(question: str) -> float:
            begun = time.perf_counter()
            clients.anthropic.messages.create(**message(OLD, question))
            return time.perf_counter() - begun

        answering = median(seconds(f"answered {number}") for number in range(12))
        before = answered(told)
        server.freeze()
        frozen = median(seconds(f"frozen {number}") for number in range(12))
        server.thaw()
        assert [(span.attributes or {})["promptcache.status"] for span in told.calls[1:]] == ["hit"] * 23
        assert answered(told) <= before + 1
        # Twenty milliseconds each at most, until it is left alone: far from the quarter second of a connection.
        assert frozen < answering + 0.2
        until(_heard_again(clients, told))


def test_a_server_that_takes_as_long_as_calls_may_wait(server: Running, clients: Clients) -> None:
    """Whoever lets calls wait longer gets answers that take longer."""
    with worker(server) as told:
        server.freeze()
        later = threading.Timer(0.7, server.thaw)
        later.start()
        plain(clients, OLD)
        later.join()
        assert (outcomes(told), told.total(ERRORS)) == ({Lookup.ANSWERED: 1}, 0)
        assert told.call["promptcache.status"] == "cold"


def test_a_server_that_is_killed_and_started_again(server: Running, clients: Clients) -> None:
    with worker(server) as told:
        plain(clients, OLD)
        server.kill()
        for _ in range(5):
            plain(clients, OLD)
        assert outcomes(told).get(Lookup.FAILED, 0) + outcomes(told).get(Lookup.SKIPPED, 0) == 5
        assert told.total(ERRORS) >= 3
        server.start()
        until(_heard_again(clients, told))
        assert {(span.attributes or {})["promptcache.status"] for span in told.calls[1:]} == {"hit"}


def test_nodes_of_a_cluster_that_are_frozen(clients: Clients) -> None:
    """Their slots are nobody's for a while. Calls and their verdicts are unaffected, and it goes on by itself."""
    with (
        cluster(3, **{"cluster-node-timeout": 1000}) as nodes,
        worker(nodes[0], history_url=nodes[0].url + "?cluster=true", history_wait_ms="500") as told,
    ):
        until(_heard_again(clients, told))
        for node in nodes[1:]:
            node.freeze()
        for _ in range(5):
            plain(clients, OLD)
        until(lambda: told.total(ERRORS) > 0)
        for node in nodes[1:]:
            node.thaw()
        until(_heard_again(clients, told))
        assert {(span.attributes or {})["promptcache.status"] for span in told.calls[1:]} == {"hit"}


def _heard_again(clients: Clients, told: Observed) -> Callable[[], bool]:
    """Whether a further call is answered in its time; the first one need not be, on a busy machine."""
    before = answered(told)

    def look() -> bool:
        plain(clients, OLD)
        shared_by(told)
        return answered(told) > before

    return look


@pytest.mark.parametrize("command", ["REPLICAOF 127.0.0.1 1", "CONFIG SET maxmemory 1"], ids=["read-only", "full"])
def test_a_server_that_takes_nothing(server: Running, emulated: Emulator, command: str) -> None:
    """What stands in it is still read; what is refused is counted."""
    emulated.reset()
    first, second = Clients(emulated.url), Clients(emulated.url)
    with worker(server) as told:
        plain(first, OLD)
        said(told)
    server.client.execute_command(*command.split())
    with worker(server) as told:
        plain(second, NEW)
        assert said(told)["promptcache.reason"] == "system_changed"
        assert outcomes(told) == {Lookup.ANSWERED: 1}
        assert told.total(ERRORS) > 0
    first.close()
    second.close()


def test_nothing_listens(clients: Clients) -> None:
    with observed(hash_key="fleet", history_url="redis://127.0.0.1:1", history_wait_ms="2000") as told:
        plain(clients, OLD)
        plain(clients, OLD)
        assert [(span.attributes or {})["promptcache.status"] for span in told.calls] == ["unknown", "hit"]


@pytest.mark.parametrize("ask", [plain, streamed])
def test_what_is_not_told_in_time_is_not_made_up(
    server: Running, clients: Clients, ask: Callable[[Clients, str], None]
) -> None:
    """Another worker may have sent the new prompt before, and the old one until now: neither is for this one to say."""
    with worker(server, history_wait_ms="20", ledger="true") as told:
        server.freeze()
        ask(clients, OLD)
        ask(clients, NEW)
        first, second = (dict(span.attributes or {}) for span in told.calls)
        assert (first["promptcache.status"], first.get("promptcache.reason")) == ("unknown", None)
        assert [second[f"promptcache.{name}"] for name in ("status", "reason", "confidence")] == [
            "miss",
            "unknown",
            "possible",
        ]
        assert "promptcache.cause" not in second
        assert [one["promptcache.evidence"].endswith(";alone") for one in told.ledger] == [True, True]
        assert told.ledger[1]["promptcache.also"] == "system_changed"
        server.thaw()


def test_a_password_and_a_user(clients: Clients) -> None:
    """As the documentation says that a user should be made: nothing but our keys, nothing but our commands."""
    from otel_promptcache.history.redis import ACL

    with valkey() as server:
        server.client.execute_command("ACL", "SETUSER", "cache", "on", ">secret", *ACL)
        server.client.execute_command("ACL", "SETUSER", "default", "off")
        url = server.url.replace("redis://", "redis://cache:secret@")
        with observed(hash_key="fleet", history_url=url, history_wait_ms="10000") as told:
            plain(clients, OLD)
            assert outcomes(told) == {Lookup.ANSWERED: 1}
            said(told)
            assert told.total(ERRORS) == 0


# --- Settings -------------------------------------------------------------------------------------------------


def test_without_a_shared_key_nothing_is_shared(
    server: Running, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    with observed(history_url=server.url) as told:
        plain(clients, OLD)
        assert told.observer.sharing is None
    assert "OTEL_PROMPTCACHE_HASH_KEY" in caplog.text
    assert server.client.dbsize() == 0


def test_a_worker_with_another_key_is_noticed(server: Running, clients: Clients) -> None:
    for key, mismatches in (("one", 0), ("two", 1)):
        with worker(server, hash_key=key) as told:
            plain(clients, OLD)
            shared_by(told)
            assert told.total(MISMATCH) == mismatches


def test_doctor_names_the_worker_with_another_key_and_the_one_of_another_version(
    server: Running, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they said themselves, with their first call."""
    workers = [("one", SCHEMA, "1.0"), ("two", SCHEMA, "1.0"), ("one", SCHEMA + 2, "9.0")]
    for number, (key, schema, version) in enumerate(workers):
        with monkeypatch.context() as patch, worker(server, hash_key=key) as told:
            patch.setattr(shared, "SCHEMA", schema)
            patch.setattr(shared, "__version__", version)
            patch.setattr("socket.gethostname", lambda number=number: f"host-{number}")
            plain(clients, OLD)
            said(told)
    findings = _doctor_fleet.section(Settings(history_url=server.url, hash_key="one"), 60.0).findings
    said_of = {one.subject: (one.level.value, one.text) for one in findings}
    assert said_of["keys"][0] == said_of["schema"][0] == "problem"
    assert "host-1" in said_of["keys"][1]
    assert "host-0" not in said_of["keys"][1]
    assert str(SCHEMA + 2) in said_of["schema"][1]
    assert "9.0" in said_of["versions"][1]


def test_tenants_know_nothing_of_each_other_in_one_process_either(server: Running, clients: Clients) -> None:
    from otel_promptcache import attribute

    with worker(server) as told:
        for tenant, system in (("a", OLD), ("b", NEW), ("a", NEW)):
            with attribute(tenant=tenant):
                plain(clients, system)
        reasons = [(span.attributes or {}).get("promptcache.reason") for span in told.calls]
        assert reasons[1] is None
        spans = told.calls
        linked = {link.context.span_id for span in spans[2:] for link in span.links}
        assert linked <= {spans[0].context.span_id}


# --- Processes ------------------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import json, os, sys, time
    wrong, right = next((float(one[5:]) for one in sys.argv if one.startswith("skew=")), 0.0), time.time
    time.time = lambda: right() + wrong
    import anthropic
    from servers.application import OUTPUT, message, observed
    from otel_promptcache import conversation

    url, store, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

    def calls(told, jobs):
        client = anthropic.Anthropic(base_url=url, api_key="sk-test", max_retries=0)
        for system, turns in jobs:
            client.messages.create(**message(system, *turns))
        assert told.observer.sharing.flush(60)
        found = [(span.attributes.get("promptcache.status"), span.attributes.get("promptcache.reason"))
                 for span in told.calls]
        told.exporter.clear()
        return found

    with observed(hash_key="fleet", history_url=store, history_wait_ms="10000") as told:
        found = calls(told, jobs[:1])
        if "fork" in sys.argv:
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.write(writer, json.dumps(calls(told, jobs[1:])).encode())
                os._exit(0)
            os.wait()
            found += json.loads(os.read(reader, 65536))
            found += calls(told, jobs[1:])
        else:
            found += calls(told, jobs[1:])
        print(json.dumps(found))
    """
)


def run(emulated: Emulator, server: Running, jobs: list[Any], *more: str) -> list[tuple[str, str | None]]:
    """The verdicts of a process that makes these calls."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, emulated.url, server.url, json.dumps(jobs), *more],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


@pytest.mark.slow
def test_processes_of_their_own(server: Running, emulated: Emulator) -> None:
    """The interpreter's own hashes differ from process to process; ours do not."""
    emulated.reset()
    assert run(emulated, server, [[OLD, ["hello"]]]) == [("cold", None)]
    assert run(emulated, server, [[NEW, ["hello"]], [NEW, ["hello"]]]) == [("miss", "system_changed"), ("hit", None)]


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [True, False], ids=["read elsewhere", "read by nobody"])
def test_a_write_is_unread_when_no_worker_has_read_it(
    server: Running, clients: Clients, emulated: Emulator, elsewhere: bool
) -> None:
    with worker(server) as told:
        plain(clients, OLD)
        shared_by(told)
        if elsewhere:
            assert run(emulated, server, [[OLD, ["hello"]]]) == [("hit", None)]
        told.observer.clock = lambda: time.time() + 365.0
        told.total(UNREAD)
        shared_by(told)
        assert (told.total(UNREAD) > 0) is not elsewhere


def test_a_write_is_not_called_a_waste_while_nobody_can_say(server: Running, clients: Clients) -> None:
    """Asked again when the server is back."""
    with worker(server) as told:
        plain(clients, OLD)
        sharing = shared_by(told)
        sharing._server.close()
        sharing._server._timeout = 0.5  # from the next connection on
        server.freeze()
        told.observer.clock = lambda: time.time() + 365.0
        told.total(UNREAD)
        shared_by(told)
        assert told.total(UNREAD) == 0
        server.thaw()

        def counted() -> bool:
            shared_by(told)
            return told.total(UNREAD) > 0

        until(counted)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [400, -400])
def test_machines_whose_clocks_differ_by_minutes(server: Running, emulated: Emulator, ahead: int) -> None:
    """Nothing has run out for the one that is ahead, and for the one behind nothing comes from the future."""
    emulated.reset()
    assert run(emulated, server, [[OLD, ["hello"]]], f"skew={ahead}") == [("cold", None)]
    assert run(emulated, server, [[NEW, ["hello"]]], f"skew={-ahead}") == [("miss", "system_changed")]
    findings = _doctor_fleet.section(Settings(history_url=server.url, hash_key="fleet"), 60.0).findings
    (clocks,) = (finding for finding in findings if finding.subject == "clocks")
    assert clocks.level.value == "note"
    assert "(+400 s)" in clocks.text
    assert "(-400 s)" in clocks.text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_that_forks(server: Running, emulated: Emulator) -> None:
    """Parent and child each have a connection of their own, and recognise what the other sent."""
    emulated.reset()
    found = run(emulated, server, [[OLD, ["hello"]], [NEW, ["hello"]]], "fork")
    assert found == [("cold", None), ("miss", "system_changed"), ("hit", None)]
