"""Several workers over one Valkey say what one process says that sees all the traffic."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import test_corpus
from history.workers import KEY, Worker

from otel_promptcache import diagnosis, providers
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Write, fleet, records
from otel_promptcache.history.memory import Memory
from otel_promptcache.history.records import SCHEMA
from otel_promptcache.history.redis import Server
from otel_promptcache.history.sharing import NAMESPACE
from otel_promptcache.model import Diagnosis, Link, Scope, Usage
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Cause, Reason, Status

if TYPE_CHECKING:
    from servers.valkey import Running

Case = dict[str, Any]
MODEL = "claude-sonnet-4-6"
LINE = "You are a careful assistant of the support team; answer briefly. "


def body(system: str, *turns: str) -> dict[str, Any]:
    """A conversation whose system prompt and newest message are marked."""
    mark = {"cache_control": {"type": "ephemeral"}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if at % 2 else "user", "content": turn} for at, turn in enumerate(turns)
    ]
    messages[-1]["content"] = [{"type": "text", "text": turns[-1], **mark}]
    return {"model": MODEL, "max_tokens": 9, "system": [{"type": "text", "text": system, **mark}], "messages": messages}


def wrote(tokens: int) -> Usage:
    return Usage(tokens, 0, tokens, 5)


def read(total: int, tokens: int) -> Usage:
    return Usage(total, tokens, total - tokens, 5)


def call(worker: Worker, request: dict[str, Any], usage: Usage, at: float, number: int = 0, **more: Any) -> Diagnosis:
    sent = worker.send("anthropic", request, at, link=Link(1, number), **more)
    worker.begin(sent, at + 0.5)
    return worker.end(sent, usage, at + 1)


QUESTION = "How do I change the address that my invoices are sent to, please? " * 20
ANSWER = "Open the settings, choose billing, and edit the address there. " * 20
SYSTEM = LINE * 100


# --- The same verdicts as one process -------------------------------------------------------------------------


def diagnosed_by_many(case: Case, url: str, *, named: bool, lines: bool) -> list[Diagnosis]:
    """What is said of each request of a case of the corpus, each sent by the next of three workers."""
    dialect = providers.BY_NAME[case["provider"]]
    workers = [Worker(url, (test_corpus.KEY,), lines=lines) for _ in range(3)]
    events = sorted(
        event
        for number, request in enumerate(case["requests"])
        for event in (
            (request["t"], test_corpus.SENT, number),
            (request["t"] + request["ttft"], test_corpus.BEGUN, number),
            (request["t"] + request["duration"], test_corpus.ENDED, number),
        )
    )
    on_the_way, said = {}, {}
    for moment, what, number in events:
        request, worker = case["requests"][number], workers[number % 3]
        if what == test_corpus.SENT:
            conversation = request.get("session", "") if named else ""
            on_the_way[number] = worker.send(
                case["provider"],
                request["body"],
                moment,
                link=Link(1, number),
                endpoint=request["endpoint"],
                conversation=conversation,
            )
        elif what == test_corpus.BEGUN:
            worker.begin(on_the_way[number], moment)
        else:
            usage = dialect.usage(request["usage"])
            said[number] = worker.end(on_the_way[number], usage, moment, request.get("response_id", ""))
        assert not worker.fleet.troubles
    return [said[number] for number in range(len(case["requests"]))]


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[Case]:
    with gzip.open(shared / "diagnosis" / "corpus-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


ALWAYS = ("status", "reason", "expected", "lost")
WITH_LINES = (*ALWAYS, "cause", "line", "confidence", "also")


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize(("lines", "fields"), [(False, ALWAYS), (True, WITH_LINES)], ids=["prefix", "lines"])
def test_the_corpus_spread_over_three_workers(
    cases: list[Case], shared_server: Running, named: bool, lines: bool, fields: tuple[str, ...]
) -> None:
    """Not one verdict of 545 differs; where the lines of messages may be shared, not one cause or line either."""
    differing, compared = [], 0
    for case in cases:
        shared_server.client.flushall()
        many = diagnosed_by_many(case, shared_server.url, named=named, lines=lines)
        for number, (one, other) in enumerate(zip(test_corpus.diagnosed(case, named=named), many, strict=True)):
            compared += 1
            differing += [
                (case["id"], number, name, getattr(one.diagnosis, name), getattr(other, name))
                for name in fields
                if getattr(one.diagnosis, name) != getattr(other, name)
            ]
    assert compared == 545
    assert differing == []


@pytest.mark.parametrize("seed", range(4))
def test_conversations_that_wander_between_workers(shared_server: Running, seed: int) -> None:
    """Forty conversations, each turn on any of four workers. Some pause, a new system prompt is rolled out under
    way, and now and then the provider loses what it held; else it reads what its rules say, at four bytes a token."""
    choose = random.Random(seed)
    workers = [Worker(shared_server.url, lines=True) for _ in range(4)]
    alone = Memory(KEY, 100_000)
    systems = [SYSTEM, SYSTEM.replace("briefly", "at length")]
    turns: dict[int, list[str]] = {}
    now, missed = 1000.0, 0
    for number in range(200):
        now += choose.choice([1.0, 3.0, 20.0, 200.0])
        name = choose.randrange(40)
        history = turns.setdefault(name, [words(choose, 200)])
        request = body(systems[number >= 100], *history)
        conversation = f"c{name}" if name % 2 else ""
        prompt = providers.BY_NAME["anthropic"].prompt(request)
        scope = Scope("anthropic", "api", KEY.token("k"), prompt.model, "")
        sight = alone.sent(prompt, scope, now=now, route="r", conversation=conversation, link=Link(1, number))
        alone.describe(prompt, sight)
        alone.begun(sight, now + 0.5)
        total = sight.nodes.size(len(sight.nodes)) // 4
        held = sight.nodes.size(sight.live) // 4 if sight.live and choose.random() < 0.9 else 0
        one = diagnosis.diagnose(prompt, sight, read(total, held), rules_for("anthropic", MODEL))
        alone.ended(sight, read(total, held), "", None)
        other = call(choose.choice(workers), request, read(total, held), now, number, conversation=conversation)
        assert told(other) == told(one), number
        missed += one.reason is not None
        history += [words(choose, 150), words(choose, 40)]
    assert missed > 20


def words(choose: random.Random, count: int) -> str:
    """A text that has nothing in common with another one."""
    return " ".join("".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count))


def told(said: Diagnosis) -> tuple[Any, ...]:
    return said.status, said.reason, said.cause, said.line, said.expected, said.lost, said.link


# --- What one worker knows of another -------------------------------------------------------------------------


def test_a_prefix_that_another_worker_sent_is_recognised(shared_server: Running) -> None:
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    call(one, body(SYSTEM, QUESTION), wrote(2000), 100.0, 1)
    missed = call(other, body(SYSTEM, QUESTION, ANSWER, QUESTION), wrote(2600), 700.0, 2)
    assert (missed.reason, missed.link) == (Reason.TTL_EXPIRED, Link(1, 1))
    assert missed.expected == 2000


def test_the_line_of_another_workers_system_prompt(shared_server: Running) -> None:
    """Lines of tools and system prompt are shared, as keyed hashes: the place is exact across workers."""
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    lines = [f"Rule {number}: {LINE}" for number in range(40)]
    call(one, body("\n".join([*lines, "It is 09:41."]), QUESTION), wrote(2000), 100.0, 1)
    missed = call(other, body("\n".join([*lines, "It is 09:42."]), QUESTION), wrote(2000), 110.0, 2)
    assert (missed.reason, missed.cause, missed.line) == (Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, 41)


def test_reading_keeps_an_entry_alive_for_all(shared_server: Running) -> None:
    """Another worker's read four minutes after the write, and this one four minutes later: it is no expiry."""
    workers = [Worker(shared_server.url) for _ in range(3)]
    call(workers[0], body(SYSTEM, QUESTION), wrote(2000), 0.0, 1)
    assert call(workers[1], body(SYSTEM, QUESTION), read(2000, 2000), 240.0, 2).status is Status.HIT
    missed = call(workers[2], body(SYSTEM, QUESTION), wrote(2000), 480.0, 3)
    assert missed.reason is Reason.PROVIDER_EVICTED


def test_a_request_still_on_its_way_elsewhere(shared_server: Running) -> None:
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    one.send("anthropic", body(SYSTEM, QUESTION), 100.0)
    assert call(other, body(SYSTEM, QUESTION), wrote(2000), 101.0).reason is Reason.CONCURRENT_WRITE


# --- What was paid for, and read by another worker ------------------------------------------------------------


def paid(worker: Worker, request: dict[str, Any], at: float, usage: Usage | None = None) -> Write:
    """What a worker paid to write."""
    write = Write(300, at + 300, 0.01, ("row",))
    sent = worker.send("anthropic", request, at)
    worker.begin(sent, at + 0.5)
    worker.end(sent, usage or wrote(2000), at + 1, write=write)
    return write


def test_a_write_that_another_worker_reads_is_no_waste(shared_server: Running) -> None:
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    write = paid(one, body(SYSTEM, QUESTION), 100.0)
    assert one.fleet.were_read([write]) == [False]
    call(other, body(SYSTEM, QUESTION, ANSWER, QUESTION), read(2600, 2000), 200.0)
    assert one.fleet.were_read([write]) == [True]


def test_a_system_prompt_that_another_conversation_reads_elsewhere(shared_server: Running) -> None:
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    write = paid(one, body(SYSTEM, QUESTION), 100.0)
    call(other, body(SYSTEM, ANSWER), read(2600, 1600), 200.0)
    assert one.fleet.were_read([write]) == [True]


def test_a_read_of_an_earlier_entry_is_none_of_a_later_one(shared_server: Running) -> None:
    """The same prefix, written again when it had run out: that the first was read does not pay for the second."""
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    first = paid(one, body(SYSTEM, QUESTION), 100.0)
    call(other, body(SYSTEM, QUESTION), read(2000, 2000), 200.0)
    second = paid(one, body(SYSTEM, QUESTION), 1000.0)
    assert one.fleet.were_read([first, second]) == [True, False]
    call(other, body(SYSTEM, QUESTION), read(2000, 2000), 1100.0)
    assert one.fleet.were_read([second]) == [True]


def test_what_the_second_turn_wrote_is_not_read_by_reading_the_first(shared_server: Running) -> None:
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    paid(one, body(SYSTEM, QUESTION), 100.0)
    turn = paid(one, body(SYSTEM, QUESTION, ANSWER, QUESTION), 110.0, read(2600, 2000))
    call(other, body(SYSTEM, QUESTION, ANSWER, ANSWER), read(2600, 2000), 120.0)
    assert one.fleet.were_read([turn]) == [False]


def test_a_read_that_is_told_before_the_write_is(shared_server: Running) -> None:
    """A long answer: others have read the prompt before it is over."""
    one, other = Worker(shared_server.url), Worker(shared_server.url)
    write = Write(300, 400.0, 0.01, ("row",))
    sent = one.send("anthropic", body(SYSTEM, QUESTION), 100.0)
    one.begin(sent, 101.0)
    call(other, body(SYSTEM, QUESTION), read(2000, 2000), 110.0)
    one.end(sent, wrote(2000), 200.0, write=write)
    assert one.fleet.were_read([write]) == [True]


def test_what_a_server_has_forgotten_is_not_called_unread(shared_server: Running) -> None:
    """It was emptied, or had no room: who has read the entry cannot be told any more."""
    one = Worker(shared_server.url)
    write = paid(one, body(SYSTEM, QUESTION), 100.0)
    shared_server.client.flushall()
    assert one.fleet.were_read([write]) == [True]


def test_a_read_under_the_key_that_comes_next(shared_server: Running) -> None:
    old, new = HashKey("old"), HashKey("new")
    one, other = Worker(shared_server.url, (old,)), Worker(shared_server.url, (new, old))
    write = paid(one, body(SYSTEM, QUESTION), 100.0)
    call(other, body(SYSTEM, QUESTION), read(2000, 2000), 200.0)
    assert one.fleet.were_read([write]) == [True]


# --- Tenants and keys -----------------------------------------------------------------------------------------


def test_no_tenant_is_another_ones_predecessor(shared_server: Running) -> None:
    one, other = Worker(shared_server.url, tenant="a"), Worker(shared_server.url, tenant="b")
    call(one, body(SYSTEM, QUESTION), wrote(2000), 100.0, 1)
    met = call(other, body(SYSTEM, QUESTION), wrote(2000), 110.0, 2)
    assert (met.status, met.link) == (Status.COLD, None)


def test_equal_texts_of_two_tenants_have_nothing_in_common(shared_server: Running) -> None:
    """Not in the names of keys, nor in what stands under them."""
    held = []
    for tenant in ("a", "b"):
        shared_server.client.flushall()
        call(Worker(shared_server.url, tenant=tenant), body(SYSTEM, QUESTION), wrote(2000), 100.0)
        held.append({key.rpartition(b":")[2] for key in shared_server.client.keys(f"{NAMESPACE}:*")})
    assert len(held[0]) > 3
    assert not held[0] & held[1]


def test_a_tenant_is_erased(shared_server: Running) -> None:
    workers = {tenant: Worker(shared_server.url, tenant=tenant) for tenant in ("a", "b")}
    for worker in workers.values():
        call(worker, body(SYSTEM, QUESTION), wrote(2000), 100.0)
    prefixes = {tenant: worker.fleet.realm(KEY, tenant).prefix for tenant, worker in workers.items()}
    before = len(shared_server.client.keys(prefixes["b"] + "*"))
    server = Server(shared_server.url, timeout=60.0)
    assert server.erase(prefixes["a"]) > 3
    assert list(server.keys(prefixes["a"])) == []
    assert len(shared_server.client.keys(prefixes["b"] + "*")) == before
    server.close()


def test_a_key_is_changed_under_way(shared_server: Running) -> None:
    """First all read the new key too, then write under it, then forget the old one: nobody is ever a stranger."""
    old, new = HashKey("old"), HashKey("new")
    first = Worker(shared_server.url, (old,))
    second, third = Worker(shared_server.url, (new, old)), Worker(shared_server.url, (old, new))
    turns = [QUESTION]
    call(first, body(SYSTEM, *turns), wrote(2000), 0.0, 1)
    for number, worker in enumerate((second, third), 2):
        turns += [ANSWER, f"{number} " + QUESTION]
        missed = call(worker, body(SYSTEM, *turns), wrote(2000 + number), 600.0 * number, number)
        assert (missed.reason, missed.link) == (Reason.TTL_EXPIRED, Link(1, number - 1))


# --- Two versions of us ---------------------------------------------------------------------------------------


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Has everything in the block be done by the version after this one, which says the same with another number."""

    @contextmanager
    def version() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for module in (records, fleet):
                patch.setattr(module, "SCHEMA", SCHEMA + 1)
                patch.setattr(module, "READABLE", (SCHEMA + 1, SCHEMA))
            yield

    return version


def test_the_newer_version_reads_what_the_older_one_left(
    shared_server: Running, next_version: Callable[[], AbstractContextManager[None]]
) -> None:
    lines = [f"Rule {number}: {LINE}" for number in range(40)]
    call(Worker(shared_server.url), body("\n".join([*lines, "It is 09:41."]), QUESTION), wrote(2000), 100.0, 1)
    with next_version():
        newer = Worker(shared_server.url)
        missed = call(newer, body("\n".join([*lines, "It is 09:42."]), QUESTION), wrote(2000), 110.0, 2)
        assert not newer.fleet.troubles
    assert (missed.reason, missed.cause, missed.line) == (Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, 41)


def test_the_older_version_passes_over_what_the_newer_one_left(
    shared_server: Running, next_version: Callable[[], AbstractContextManager[None]]
) -> None:
    """It is counted, no call fails, and nothing of the newer one's is taken away."""
    versions = [f"{number} {SYSTEM}" for number in range(3)]
    with next_version():
        for number, system in enumerate(versions):
            call(Worker(shared_server.url), body(system, QUESTION), wrote(2000), 100.0 + number, number)
    older = Worker(shared_server.url)
    for number in range(6):
        assert call(older, body(f"{number} of old {SYSTEM}", QUESTION), wrote(2000), 110.0).link != Link(1, 2)
    assert older.fleet.troubles["Newer"] > 0
    (site,) = shared_server.client.keys(f"{NAMESPACE}:*:s:*")
    kept = [data[0] for data in shared_server.client.hvals(site)]
    assert kept.count(SCHEMA + 1) == 3
    assert kept.count(SCHEMA) <= 4
    with next_version():
        missed = call(Worker(shared_server.url), body(versions[2], QUESTION), wrote(2000), 500.0, 9)
    assert (missed.reason, missed.link) == (Reason.TTL_EXPIRED, Link(1, 2))


# --- What else may stand in a server --------------------------------------------------------------------------


def test_garbage_under_our_keys(shared_server: Running) -> None:
    """Other types, other people's bytes, a newer schema: counted, and no look-up fails."""
    worker = Worker(shared_server.url)
    call(worker, body(SYSTEM, QUESTION), wrote(2000), 100.0)
    client = shared_server.client
    for number, key in enumerate(client.keys(f"{NAMESPACE}:*")):
        if number % 3 == 0:
            client.delete(key)
            client.lpush(key, "no record")
        elif client.type(key) == b"hash":
            for field in client.hkeys(key):
                client.hset(key, field, (b"\xff\x00garbage", bytes([SCHEMA + 1]) + b"{}\0")[number % 2])
        else:
            client.set(key, b"garbage")
    met = call(Worker(shared_server.url), body(SYSTEM, QUESTION), wrote(2000), 110.0)
    assert met.status is Status.COLD
    other = Worker(shared_server.url)
    call(other, body(SYSTEM, QUESTION), wrote(2000), 120.0)
    assert other.fleet.troubles


def test_everything_expires(shared_server: Running) -> None:
    """Nothing of ours is left in a server that nobody asks any more."""
    call(Worker(shared_server.url), body(SYSTEM, QUESTION), wrote(2000), 100.0)
    keys = shared_server.client.keys("*")
    assert len(keys) > 3
    assert all(0 < shared_server.client.ttl(key) <= 3600 for key in keys)


def test_no_text_is_in_the_server(shared_server: Running) -> None:
    worker = Worker(shared_server.url, lines=True)
    call(worker, body(SYSTEM, QUESTION), wrote(2000), 100.0, conversation="of Ms Smith", route="secret-route")
    client = shared_server.client
    held = b"".join(key + client.dump(key) for key in client.keys("*"))
    for word in (b"careful", b"invoices", b"Smith", b"secret", LINE.encode()[:8]):
        assert word not in held
