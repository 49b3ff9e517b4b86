"""The history of one process: what it shares, what it forgets, what it says of the next request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from itertools import accumulate
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.history import info as known
from otel_promptcache.history.memory import MAX_IDS, MAX_SCOPES, Memory
from otel_promptcache.history.trie import Stem
from otel_promptcache.model import Link, Scope, Segment, Usage
from otel_promptcache.providers import _wire, anthropic, openai_chat, openai_responses

Body = dict[str, Any]

KEY = HashKey("test")
CLAUDE = Scope("anthropic", "api.anthropic.com", "ours", "claude-opus-5", "")
GPT = Scope("openai", "api.openai.com", "ours", "gpt-4.1", "")
HERE = "/chat"


class Bench:
    """A memory, and requests to it at moments that the test names."""

    def __init__(self, limit: int = 100_000) -> None:
        self.memory = Memory(KEY, limit)
        self.sent = 0

    def send(
        self,
        body: Body,
        at: float = 0.0,
        *,
        scope: Scope = CLAUDE,
        usage: Usage | None = None,
        response_id: str = "",
        write: Write | None = None,
        conversation: str = "",
        route: str = HERE,
    ) -> Sight:
        """A whole call: looked up, begun, ended."""
        sight = self.start(body, at, scope=scope, conversation=conversation, route=route)
        self.memory.begun(sight)
        self.memory.ended(sight, usage or Usage(1000, 0, 1000), response_id, write)
        return sight

    def start(
        self, body: Body, at: float = 0.0, *, scope: Scope = CLAUDE, conversation: str = "", route: str = HERE
    ) -> Sight:
        """A call on its way."""
        self.sent += 1
        dialect = anthropic if scope.provider == "anthropic" else openai_responses if "input" in body else openai_chat
        return self.memory.sent(
            dialect.prompt(body), scope, now=at, route=route, conversation=conversation, link=Link(1, self.sent)
        )


def talk(*texts: str, mark: bool = True, **fields: Any) -> Body:
    """User and assistant in turn; the last block is marked."""
    body: Body = {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}
    if mark:
        body["cache_control"] = {"type": "ephemeral"}
    return body | fields


def words(count: int, topic: str = "cats") -> list[str]:
    """So many messages, no two alike, each long enough to tell one conversation from another."""
    return [f"Message number {n} of a long and winding conversation about {topic}." for n in range(count)]


def stems(memory: Memory) -> list[Stem]:
    """Everything that is remembered."""
    found = [branch.root for branch in memory._branches.values()]
    for stem in found:
        found += stem.forks.values()
    return found


def check(memory: Memory) -> None:
    """Everything that is counted is there, and nothing else is."""
    known = stems(memory)
    scopes = memory._branches.values()
    leaves = [sent.leaf for branch in scopes for sent in branch.sent if sent.leaf is not None]
    pins = Counter(map(id, (*leaves, *(stem.parent for stem in known if stem.parent is not None))))
    for stem in known:
        assert all(node.stem is stem and node is stem.nodes[at] for at, node in stem.nodes.items())
        assert {at: node.refs for at, node in stem.nodes.items() if node.refs} == {
            at: pins[id(node)] for at, node in stem.nodes.items() if pins[id(node)]
        }
        assert len(stem) == stem.pinned == max((at for at, node in stem.nodes.items() if node.refs), default=0)
        assert len(stem) or stem.parent is None
        assert all(node.info is (stem.rows.infos[at - 1] if at else None) for at, node in stem.nodes.items())
        assert [at for at, _ in stem.steps] == sorted({at for at, _ in stem.steps}, reverse=True)
        assert len(stem.rows.infos) == len(stem.rows.elements) == len(stem.rows.sizes)
        for (at, key), fork in stem.forks.items():
            assert (fork.parent, fork.start, fork.rows.infos[0].key) == (stem.nodes[at], stem.start + at, key)
        sizes = [info.size for info in stem.rows.infos]
        assert list(stem.rows.sizes) == list(accumulate(sizes, initial=stem.size))[1:]
    assert sum(branch.segments for branch in scopes) == sum(map(len, known)) == len(memory)
    uses = Counter(id(info) for stem in known for info in stem.rows.infos)
    assert {id(info): info.refs for info in memory._infos.known.values()} == dict(uses)


class TestSharing:
    """Equal prefixes of one scope share their nodes."""

    def test_a_turn_adds_its_own_nodes_only(self) -> None:
        """A conversation of n messages takes n nodes, not n squared."""
        bench = Bench()
        for turns in range(1, 200, 2):
            bench.send(talk(*words(turns)))
            assert len(bench.memory) == turns

    def test_what_is_shared_is_counted(self) -> None:
        """And is the newest request's that has it."""
        bench = Bench()
        first = bench.send(talk(*words(3)))
        second = bench.send(talk(*words(5)))
        assert (first.shared, second.shared, len(second.nodes)) == (0, 3, 5)
        assert second.previous is first.sent
        assert second.infos[:3] == first.infos
        assert second.sent.path().infos() == second.infos

    def test_branches_share_their_trunk(self) -> None:
        """Two answers to one question."""
        bench = Bench()
        bench.send(talk(*words(3)))
        fork = bench.send(talk(*words(2), "Something else altogether, which nobody had asked before."))
        assert (fork.shared, len(bench.memory)) == (2, 4)

    def test_scopes_share_nothing(self) -> None:
        """Another model, account, key or host has its own nodes."""
        bench = Bench()
        bench.send(talk(*words(3)))
        for other in (
            CLAUDE._replace(model="claude-sonnet-5"),
            CLAUDE._replace(credential="theirs"),
            CLAUDE._replace(endpoint="eu.example.com"),
            CLAUDE._replace(cache_key="k"),
        ):
            assert bench.send(talk(*words(3)), scope=other).shared == 0
        assert len(bench.memory) == 15

    def test_a_digest_that_is_made_meanwhile_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A verdict makes line hashes of a segment while the worker, which makes those and the digest, gets to it."""
        bench = Bench()
        body = talk("one\ntwo")
        sight, prompt = bench.start(body), anthropic.prompt(body)
        make = known.packed

        def interrupted(segment: Segment) -> bytes:
            monkeypatch.setattr(known, "packed", make)
            bench.memory.describe(prompt, sight)
            return make(segment)

        monkeypatch.setattr(known, "packed", interrupted)
        detail = sight.infos[0].detailed(prompt.segments[0])
        assert detail == sight.infos[0].detail
        assert sight.infos[0].digest is not None

    def test_a_segment_is_described_once(self) -> None:
        """Wherever it stands, in whatever scope: its description is shared, and new only once."""
        bench = Bench()
        one = bench.send(talk(*words(3)))
        a, b, c = words(3)
        other = bench.send(talk(b, a, c), scope=CLAUDE._replace(model="claude-sonnet-5"))
        assert one.fresh == 3
        assert other.fresh == 2  # said by the other side
        assert one.infos[2] is other.infos[2]

    def test_an_empty_prompt(self) -> None:
        """Is looked up like any other."""
        bench = Bench()
        sight = bench.send({"messages": []})
        assert (sight.shared, sight.infos, sight.previous, len(bench.memory)) == (0, [], None, 0)
        bench.send({"messages": []})
        check(bench.memory)


class TestResending:
    """Messages sent again in a row are recognised at one glance, and nothing else about them is different."""

    def test_they_need_not_be_looked_at(self) -> None:
        """Of a conversation that goes on nothing is made into a segment but what tells where it goes on."""
        bench = Bench()
        bench.send(talk(*words(40)))
        body = talk(*words(42), mark=False)
        prompt = anthropic.prompt(body)
        sight = bench.memory.sent(prompt, CLAUDE, now=1.0, route=HERE, conversation="", link=None)
        made = [index for index, segment in enumerate(prompt.segments._made) if segment is not None]
        assert (sight.shared, made) == (40, [40])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["go on", "again", "cut", "edit", "other"]), st.integers(0, 30), st.integers(0, 2)
            ),
            max_size=14,
        ),
        st.sampled_from([30, 60, 100_000]),
    )
    def test_it_makes_no_difference(self, steps: list[tuple[str, int, int]], limit: int) -> None:
        """Against the same history looked up one by one: continued, repeated, cut, edited, forgotten."""
        runs, singly = Bench(limit), Bench(limit)
        talks = {scope: [f"{scope} {n}" for n in range(6)] for scope in range(3)}
        for number, (step, amount, who) in enumerate(steps):
            texts = talks[0 if step == "other" else who]
            if step == "go on":
                texts += [f"{number} {n}" for n in range(amount)]
            elif step == "cut":
                del texts[max(1, amount) :]
            elif step == "edit":
                texts[amount % len(texts)] = f"edited in step {number}"
            scope = CLAUDE._replace(credential=str(who))
            found = []
            for bench, length in ((runs, 2), (singly, 10**9)):
                with mock.patch.object(_wire, "_RUN", length):
                    sight = bench.send(talk(*texts), float(number), scope=scope)
                previous = sight.previous.link if sight.previous is not None else None
                bench.memory.describe(anthropic.prompt(talk(*texts)), sight)
                chain = KEY.root(*scope[:5])
                for info in sight.infos:
                    assert info.digest is not None
                    chain = KEY.chain(chain, info.digest)
                assert sight.nodes.chain(KEY) == chain
                found.append((sight.shared, sight.live, previous, chain, len(bench.memory)))
                check(bench.memory)
            assert found[0] == found[1]


class TestForgetting:
    """Memory is bounded as a whole and for each scope; the oldest requests go first."""

    def test_as_a_whole(self) -> None:
        """However many scopes there are."""
        bench = Bench(limit=1000)
        for number in range(500):
            bench.send(talk(*words(20, str(number))), scope=CLAUDE._replace(credential=str(number % 50)))
            assert len(bench.memory) <= 1000
        assert len(bench.memory) > 700
        check(bench.memory)

    def test_one_scope(self) -> None:
        """It never has more than half."""
        bench = Bench(limit=1000)
        for number in range(200):
            bench.send(talk(*words(20, str(number))))
        assert 400 < len(bench.memory) <= 500
        check(bench.memory)

    def test_a_noisy_scope_evicts_no_other(self) -> None:
        """A quiet conversation is still known after a neighbour's thousand."""
        bench = Bench(limit=1000)
        bench.send(talk(*words(30, "quiet")), scope=CLAUDE._replace(credential="quiet"))
        for number in range(1000):
            bench.send(talk(*words(20, str(number))), scope=CLAUDE._replace(credential="noisy"))
        assert bench.send(talk(*words(31, "quiet")), scope=CLAUDE._replace(credential="quiet")).shared == 30

    def test_two_noisy_scopes_evict_no_quiet_one(self) -> None:
        """Who holds most gives way first, whoever came last."""
        bench = Bench(limit=1000)
        bench.send(talk(*words(30, "quiet")), scope=CLAUDE._replace(credential="quiet"))
        for number in range(1000):
            bench.send(talk(*words(20, str(number))), scope=CLAUDE._replace(credential=f"noisy {number % 3}"))
        assert bench.send(talk(*words(31, "quiet")), scope=CLAUDE._replace(credential="quiet")).shared == 30

    def test_the_newest_is_kept(self) -> None:
        """What was sent last is what will be continued."""
        bench = Bench(limit=1000)
        for number in range(200):
            bench.send(talk(*words(20, str(number))))
        assert bench.send(talk(*words(21, "199"))).shared == 20
        assert bench.send(talk(*words(21, "0"))).shared == 0

    def test_identical_requests_take_no_more(self) -> None:
        """Neither nodes nor requests pile up."""
        bench = Bench(limit=1000)
        for moment in range(2000):
            bench.send(talk(*words(3)), float(moment))
        assert len(bench.memory) == 3
        assert sum(len(branch.sent) for branch in bench.memory._branches.values()) <= 125
        check(bench.memory)

    def test_a_prompt_beyond_all_limits(self) -> None:
        """Is looked at and forgotten; the call itself is told what was known."""
        bench = Bench(limit=100)
        sight = bench.send(talk(*words(200)))
        assert (len(sight.nodes), sight.sent.leaf, len(bench.memory)) == (200, None, 0)
        assert bench.send(talk(*words(10, "dogs"))).shared == 0
        check(bench.memory)

    def test_a_forgotten_request_is_no_predecessor(self) -> None:
        """It has no prompt any more that could be compared."""
        bench = Bench(limit=100)
        first = bench.send(talk(*words(20)), response_id="r1", conversation="c1")
        for number in range(20):
            bench.send(talk(*words(20, str(number))))
        assert (first.sent.leaf, list(first.sent.path()), first.sent.breakpoints) == (None, [], ())
        assert bench.start(talk("x"), conversation="c1").holder is None

    def test_scopes_ids_and_places_are_bounded(self) -> None:
        """An application that makes a new key or conversation for every call does no harm."""
        bench = Bench()
        for number in range(MAX_SCOPES + 100):
            bench.send(
                talk("x"), scope=CLAUDE._replace(cache_key=str(number)), conversation=str(number), route=str(number)
            )
        memory = bench.memory
        assert len(memory._branches) == MAX_SCOPES
        assert len(memory._by_site) == MAX_SCOPES
        assert len(memory) == MAX_SCOPES
        memory._by_id.update((str(number), bench.start(talk("x")).sent) for number in range(2))
        assert len(memory._by_id) <= MAX_IDS
        check(memory)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3), st.lists(st.sampled_from("abcd"), max_size=8), st.sampled_from(["ok", "fail", "fly"])
            ),
            max_size=40,
        )
    )
    def test_whatever_comes(self, calls: list[tuple[int, list[str], str]]) -> None:
        """Limits hold, and every node is there for a reason."""
        bench = Bench(limit=20)
        for scope, texts, fate in calls:
            sight = bench.start(talk(*texts), scope=CLAUDE._replace(credential=str(scope)))
            if fate == "ok":
                bench.memory.begun(sight)
            if fate != "fly":
                bench.memory.ended(sight, Usage(9, 0, 9) if fate == "ok" else None, "", None)
            assert len(bench.memory) <= 20
            check(bench.memory)


class TestAccidents:
    """Half of something is worse than nothing."""

    @pytest.mark.parametrize("method", ["keep", "pin", "reached"])
    def test_a_failure_in_the_middle(self, method: str) -> None:
        """What was known is lost; what comes is as if nothing had been."""
        bench = Bench()
        bench.send(talk(*words(9)))
        with mock.patch.object(Stem, method, side_effect=MemoryError), pytest.raises(MemoryError):
            bench.start(talk(*words(4), "Something else."), conversation="c")
        assert len(bench.memory) == 0
        assert bench.send(talk(*words(9)), conversation="c").shared == 0
        assert bench.send(talk(*words(11))).shared == 9
        check(bench.memory)

    def test_a_call_in_the_middle_of_another(self) -> None:
        """A signal handler's, say: it is told nothing and leaves nothing, and the other does not notice."""
        bench = Bench()
        bench.send(talk(*words(3)))
        inner: list[Sight] = []
        waiting = [talk(*words(7))]
        reached = Stem.reached

        def interrupted(stem: Stem, at: int, sent: Any) -> None:
            if waiting:
                inner.append(bench.start(waiting.pop()))
            reached(stem, at, sent)

        with mock.patch.object(Stem, "reached", interrupted):
            outer = bench.send(talk(*words(5)))
        assert (outer.shared, inner[0].shared, len(inner[0].infos)) == (3, 0, 7)
        assert len(bench.memory) == 5
        check(bench.memory)


class TestEntries:
    """What a request may read, by the rules, from what earlier ones left: where breakpoints store entries."""

    def test_the_marked_prefix(self) -> None:
        """Up to the place that was marked."""
        bench = Bench()
        bench.send(talk(*words(3)))
        sight = bench.send(talk(*words(5)))
        assert (sight.live, sight.expired, sight.pending, sight.beyond) == (3, 0, 0, 0)

    def test_nothing_marked_nothing_stored(self) -> None:
        """An unmarked request leaves nothing, and looks for nothing."""
        bench = Bench()
        bench.send(talk(*words(3), mark=False))
        assert bench.send(talk(*words(5))).live == 0
        assert bench.send(talk(*words(7), mark=False)).live == 0

    def test_nothing_reported_nothing_stored(self) -> None:
        """Zero read and zero written: the provider has no entry, whatever was marked."""
        bench = Bench()
        bench.send(talk(*words(3)), usage=Usage(100, 0, 0))
        assert bench.send(talk(*words(5))).live == 0

    @pytest.mark.parametrize(("pause", "live", "expired"), [(300.0, 3, 0), (300.5, 0, 3)])
    def test_expiry(self, pause: float, live: int, expired: int) -> None:
        """Five minutes after its last use an entry is gone."""
        bench = Bench()
        bench.send(talk(*words(3)), 1000.0)
        sight = bench.send(talk(*words(5)), 1000.0 + pause)
        assert (sight.live, sight.expired) == (live, expired)

    def test_reading_keeps_alive(self) -> None:
        """Every read begins the lifetime anew, counted from the start of the request."""
        bench = Bench()
        bench.send(talk(*words(3)), 0.0)
        bench.send(talk(*words(3)), 290.0, usage=Usage(1000, 1000, 0))
        assert bench.send(talk(*words(3)), 580.0).live == 3
        assert bench.send(talk(*words(3)), 1200.0).expired == 3

    def test_a_miss_keeps_nothing_alive(self) -> None:
        """The entry was there, and was not read."""
        bench = Bench()
        bench.send(talk(*words(3)), 0.0)
        bench.send(talk(*words(5)), 290.0, usage=Usage(1000, 0, 0))
        assert bench.send(talk(*words(3)), 580.0).expired == 3

    def test_an_hour(self) -> None:
        """Where it was asked for."""
        bench = Bench()
        hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        bench.send(talk(*words(3), **hour), 0.0)
        assert bench.send(talk(*words(3), **hour), 3600.0, usage=Usage(1000, 0, 1000)).live == 3
        assert bench.send(talk(*words(3), **hour), 7200.5).expired == 3

    @pytest.mark.parametrize(("more", "live", "beyond"), [(18, 3, 0), (19, 3, 0), (20, 0, 3), (30, 0, 3)])
    def test_twenty_positions(self, more: int, live: int, beyond: int) -> None:
        """The breakpoint is the first of them."""
        bench = Bench()
        bench.send(talk(*words(3)))
        sight = bench.send(talk(*words(3 + more)))
        assert (sight.live, sight.beyond) == (live, beyond)

    @pytest.mark.parametrize(
        ("kinds", "live"),
        [
            (["tool_use"] * 40 + ["tool_result"] * 40, 3),
            (["tool_use", "tool_result"] * 9 + ["tool_use"], 3),
            (["tool_use", "tool_result"] * 10, 0),
            ((["tool_use"] * 5 + ["tool_result"] * 5) * 9 + ["tool_use"] * 30, 3),
            ((["tool_use"] * 5 + ["tool_result"] * 5) * 10, 0),
            (["tool_use", "text"] * 10, 0),
        ],
        ids=["one run of each", "19 runs", "20 runs", "19 long runs", "20 long runs", "text between"],
    )
    def test_a_run_of_calls_is_one_position(self, kinds: list[str], live: int) -> None:
        """And a run of results; what stands between two calls parts them."""
        blocks = [{"type": kind, "id": str(n), "text": f"Note {n}"} for n, kind in enumerate(kinds)]
        bench = Bench()
        bench.send(talk(*words(3)))
        longer = talk(*words(3))
        longer["messages"].append({"role": "assistant", "content": blocks})
        assert bench.send(longer).live == live

    def test_another_breakpoint_has_its_own_window(self) -> None:
        """The farther one finds what the nearer one does not."""
        bench = Bench()
        bench.send(talk(*words(3)))
        far = talk(*words(40))
        far["messages"][10]["content"] = [
            {"type": "text", "text": words(40)[10], "cache_control": {"type": "ephemeral"}}
        ]
        assert bench.send(far).live == 3

    def test_an_entry_is_readable_when_its_response_begins(self) -> None:
        """Not when it was asked for, and not only when it is over."""
        bench = Bench()
        writer = bench.start(talk(*words(3)), 0.0)
        assert bench.start(talk(*words(5)), 0.1).pending == 3
        bench.memory.begun(writer)
        assert bench.start(talk(*words(5)), 0.2).live == 3

    def test_a_call_that_failed_left_nothing(self) -> None:
        """Its entry is not waited for."""
        bench = Bench()
        bench.memory.ended(bench.start(talk(*words(3))), None, "", None)
        sight = bench.start(talk(*words(5)), 1.0)
        assert (sight.live, sight.pending) == (0, 0)

    def test_a_call_that_failed_after_it_began(self) -> None:
        """The stream broke; what was written is there."""
        bench = Bench()
        sight = bench.start(talk(*words(3)))
        bench.memory.begun(sight)
        bench.memory.ended(sight, None, "", None)
        assert bench.start(talk(*words(5)), 1.0).live == 3


class TestPrefixes:
    """What a request may read where any common prefix counts."""

    def body(self, count: int) -> Body:
        return talk(*words(count), mark=False, model="gpt-4.1")

    def test_any_prefix(self) -> None:
        """Also of a request that parts from the earlier one in the middle."""
        bench = Bench()
        bench.send(self.body(5), scope=GPT)
        assert bench.send(self.body(7), scope=GPT).live == 5
        fork = self.body(5)
        fork["messages"][3]["content"] = "Something else altogether, which nobody had asked before."
        assert bench.send(fork, scope=GPT).live == 3

    def test_expiry_and_use(self) -> None:
        """Ten minutes, anew with every use of that prefix."""
        bench = Bench()
        bench.send(self.body(3), 0.0, scope=GPT)
        assert bench.send(self.body(3), 600.0, scope=GPT).live == 3
        assert bench.send(self.body(3), 1200.0, scope=GPT).live == 3
        sight = bench.send(self.body(5), 1800.5, scope=GPT)
        assert (sight.live, sight.expired) == (0, 3)

    def test_lifetime_of_the_request(self) -> None:
        """A day, where it was asked for."""
        bench = Bench()
        day = self.body(3) | {"prompt_cache_retention": "24h"}
        bench.send(day, 0.0, scope=GPT)
        assert bench.send(day, 86_400.0, scope=GPT).live == 3

    def test_on_its_way(self) -> None:
        """Readable when the response begins."""
        bench = Bench()
        writer = bench.start(self.body(3), 0.0, scope=GPT)
        assert bench.start(self.body(3), 0.1, scope=GPT).pending == 3
        bench.memory.begun(writer)
        assert bench.start(self.body(3), 0.2, scope=GPT).live == 3
        assert bench.start(self.body(3), 0.3, scope=GPT).live == 3

    def test_only_a_part_on_its_way(self) -> None:
        """What a finished request stored is there, what a longer one will store is not."""
        bench = Bench()
        bench.send(self.body(3), 0.0, scope=GPT)
        for moment in (0.1, 0.2, 0.3):
            bench.start(self.body(5), moment, scope=GPT)
        sight = bench.start(self.body(7), 0.4, scope=GPT)
        assert (sight.live, sight.pending) == (3, 5)


class TestPredecessors:
    """Which earlier requests a new one may have been meant to match."""

    def test_by_response(self) -> None:
        """The one that the server was told to continue."""
        bench = Bench()
        first = bench.send({"input": "One", "model": "m"}, scope=GPT, response_id="r1")
        bench.send({"input": "Two", "model": "m", "previous_response_id": "r1"}, scope=GPT, response_id="r2")
        branch = bench.start({"input": "Three", "model": "m", "previous_response_id": "r1"}, scope=GPT)
        assert branch.holder is first.sent
        assert branch.held is True
        assert bench.start({"input": "Four", "previous_response_id": "r9"}, scope=GPT).holder is None

    def test_by_conversation(self) -> None:
        """The newest of it, by the request's name for it or the application's."""
        bench = Bench()
        bench.send({"input": "One", "conversation": "c1"}, scope=GPT)
        newest = bench.send({"input": "Two", "conversation": "c1"}, scope=GPT)
        assert bench.start({"input": "Three", "conversation": "c1"}, scope=GPT).holder is newest.sent
        named = bench.send(talk("One"), conversation="ticket-17")
        found = bench.start(talk("Two"), conversation="ticket-17")
        assert (found.holder, found.held) == (named.sent, False)

    def test_by_place(self) -> None:
        """The newest from the same part of the application, whatever its prompt."""
        bench = Bench()
        bench.send(talk("One"), route="/a")
        second = bench.send(talk("Two"), route="/a")
        bench.send(talk("Three"), route="/b")
        assert bench.start(talk("Four"), route="/a").sites[0] is second.sent

    def test_by_content(self) -> None:
        """Those that have most in common behind the place where they part, in any scope."""
        bench = Bench()
        little = bench.send(talk("Hello", *words(2)))
        much = bench.send(talk("Howdy", *words(9, "dogs")), scope=CLAUDE._replace(model="claude-sonnet-5"))
        sight = bench.start(talk("Good day", *words(2), *words(9, "dogs")[2:]))
        assert sight.kin == (much.sent, little.sent)
        assert sight.relative is much.sent

    def test_everybody_says_yes(self) -> None:
        """A short message shows no kinship."""
        bench = Bench()
        bench.send(talk("One", "ok", "yes"))
        sight = bench.start(talk("Two", "ok", "yes"))
        assert sight.relative is None


class TestLineage:
    """A conversation, as far as prompts show it."""

    def test_continued(self) -> None:
        """One id from the first turn to the last; another conversation has another."""
        bench = Bench()
        first = bench.send(talk(*words(1))).sent.lineage
        assert bench.send(talk(*words(3))).sent.lineage == first
        assert bench.send(talk(*words(5))).sent.lineage == first
        assert bench.send(talk(*words(1, "dogs"))).sent.lineage != first
        assert len(first) == 16

    def test_an_equal_system_prompt_is_no_conversation(self) -> None:
        """Every user has it."""
        bench = Bench()
        one, other = (bench.send(talk(*words(1, topic), system="Be brief. " * 20)) for topic in ("cats", "dogs"))
        assert one.sent.lineage != other.sent.lineage

    def test_rewritten(self) -> None:
        """A changed system prompt, a cut front: what was said shows that it is the same."""
        bench = Bench()
        first = bench.send(talk(*words(5), system="Be brief.")).sent.lineage
        assert bench.send(talk(*words(7), system="Be kind.")).sent.lineage == first
        assert bench.send(talk(*words(9)[2:], system="Be kind.")).sent.lineage == first

    def test_held_by_the_server(self) -> None:
        """Known by the id."""
        bench = Bench()
        first = bench.send({"input": "One"}, scope=GPT, response_id="r1").sent.lineage
        assert bench.send({"input": "Two", "previous_response_id": "r1"}, scope=GPT).sent.lineage == first


class TestUnreadWrites:
    """What was paid to store and ran out before anybody read it."""

    def write(self, expires: float = 300.0) -> Write:
        return Write(ttl=300, expires=expires, premium=0.01, labels=("a",))

    def test_reported_once(self) -> None:
        """When it has run out, not before, and not again."""
        bench = Bench()
        write = self.write()
        bench.send(talk(*words(3)), 0.0, write=write)
        assert bench.memory.expired_writes(300.0) == []
        assert bench.memory.expired_writes(300.1) == [write]
        assert bench.memory.expired_writes(900.0) == []

    def test_read_in_time(self) -> None:
        """One read pays for it."""
        bench = Bench()
        bench.send(talk(*words(3)), 0.0, write=self.write())
        bench.send(talk(*words(5)), 200.0, usage=Usage(1200, 1000, 200))
        assert bench.memory.expired_writes(1000.0) == []

    def test_looked_at_but_not_read(self) -> None:
        """A request that could have read it, and reported that it did not."""
        bench = Bench()
        write = self.write()
        bench.send(talk(*words(3)), 0.0, write=write)
        bench.send(talk(*words(5)), 200.0, usage=Usage(1200, 0, 1200))
        assert bench.memory.expired_writes(1000.0) == [write]

    def test_each_on_its_own(self) -> None:
        """In the order in which they ran out; a read of one pays for no other."""
        bench = Bench()
        first, second, third = self.write(500.0), self.write(400.0), self.write(900.0)
        bench.send(talk(*words(3, "cats")), 200.0, write=first)
        bench.send(talk(*words(3, "dogs")), 100.0, write=second)
        bench.send(talk(*words(3, "owls")), 600.0, write=third)
        bench.send(talk(*words(5, "owls")), 610.0, usage=Usage(1200, 1000, 200))
        assert bench.memory.expired_writes(1000.0) == [second, first]

    def test_turns_of_a_conversation(self) -> None:
        """Each turn reads what the one before has written; only the last stays unread."""
        bench = Bench()
        writes = [self.write(300.0 + n) for n in range(4)]
        for n, write in enumerate(writes):
            usage = Usage(1000 + n, 1000 if n else 0, 50)
            bench.send(talk(*words(1 + 2 * n)), float(n), usage=usage, write=write)
        assert bench.memory.expired_writes(1000.0) == [writes[-1]]

    def test_a_forgotten_request_still_paid(self) -> None:
        """Its write is reported though its prompt is not known any more."""
        bench = Bench(limit=100)
        write = self.write()
        bench.send(talk(*words(20)), 0.0, write=write)
        for number in range(20):
            bench.send(talk(*words(20, str(number))), 1.0)
        assert bench.memory.expired_writes(1000.0) == [write]


class TestCounts:
    """Which reported counts belong to which prefix."""

    def test_all_and_marked(self) -> None:
        """The whole input ends with the last segment, what was read and written with the last breakpoint."""
        bench = Bench()
        body = talk(*words(3), mark=False)
        body["messages"][1]["content"] = [{"type": "text", "text": words(3)[1], "cache_control": {"type": "ephemeral"}}]
        sight = bench.send(body, usage=Usage(1000, 0, 800))
        assert [node.tokens for node in sight.nodes] == [0, 800, 1000]
        assert (sight.sent.total, sight.sent.cached) == (1000, 800)

    def test_read(self) -> None:
        """Ends at the entry that matched."""
        bench = Bench()
        bench.send(talk(*words(1)), usage=Usage(500, 0, 490))
        sight = bench.send(talk(*words(3)), usage=Usage(800, 495, 300))
        assert [node.tokens for node in sight.nodes] == [495, 0, 795]

    def test_read_of_an_entry_that_another_process_wrote(self) -> None:
        """More than the known entry can hold: it says nothing of its length, and a later, shorter read is no loss."""
        bench = Bench()
        bench.send(talk(*words(1)), usage=Usage(500, 0, 490))
        sight = bench.send(talk(*words(9)), usage=Usage(4500, 4000, 500))
        assert sight.nodes[0].tokens == 490

    def test_read_of_what_has_more_tokens_than_its_bytes_tell(self) -> None:
        """A script that takes a token a sign: what was read is still less than the prompt that left it."""
        bench = Bench()
        front = {"type": "text", "text": "short and dense", "cache_control": {"type": "ephemeral"}}
        bench.send(talk("a few words") | {"system": [front]}, usage=Usage(2000, 0, 1990))
        sight = bench.send(talk("many words " * 500) | {"system": [front]}, usage=Usage(9000, 1700, 7000))
        assert sight.nodes[0].tokens == 1700

    def test_held_history_counts_for_no_prefix(self) -> None:
        """Most of it is not on the wire."""
        bench = Bench()
        bench.send({"input": "One"}, scope=GPT, response_id="r1", usage=Usage(1000))
        for previous in ("r1", "elsewhere"):
            body = {"input": "Two", "previous_response_id": previous}
            sight = bench.send(body, scope=GPT, usage=Usage(5000))
            assert [node.tokens for node in sight.nodes] == [0, 0]

    def test_nothing_reported(self) -> None:
        """Nothing learned."""
        bench = Bench()
        sight = bench.start(talk(*words(3)))
        bench.memory.begun(sight)
        bench.memory.ended(sight, Usage(), "r1", None)
        assert (sight.sent.total, sight.sent.cached, sight.sent.response_id) == (None, None, "r1")


FORKED = """
import os
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Write
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Scope, Usage
from otel_promptcache.providers import anthropic

memory = Memory(HashKey("test"), 1000)

def send(count, at, write=None):
    talk = [{"role": "user", "content": f"Message {n}"} for n in range(count)]
    prompt = anthropic.prompt({"messages": talk, "cache_control": {"type": "ephemeral"}})
    scope = Scope("anthropic", "host", "k", "claude-opus-5", "")
    sight = memory.sent(prompt, scope, now=at, route="", conversation="", link=None)
    memory.begun(sight)
    memory.ended(sight, Usage(1000, 0, 1000), "", write)
    return sight

write = Write(300, 300.0, 0.01, ())
send(3, 0.0, write)
memory._lock.acquire()  # another thread was in the middle of a look-up
child = os.fork()
if child == 0:
    known = send(5, 10.0)
    ok = known.shared == 3 and known.live == 3 and memory.expired_writes(1000.0) == []
    own = Write(300, 310.0, 0.02, ())
    send(7, 10.0, own)
    os._exit(0 if ok and memory.expired_writes(1000.0) == [own] else 1)
memory._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert memory.expired_writes(1000.0) == [write]
print("ok")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_knows_what_was_sent_but_owes_nothing() -> None:
    """Prefixes are kept; what was paid for is reported by the parent alone, and no lock is left held."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=300)
    assert (done.stdout, done.stderr[-500:]) == ("ok\n", "")


def test_many_threads() -> None:
    """Calls of a busy process, all at once: nothing is lost, counted twice or left over."""
    bench = Bench(limit=2000)
    errors: list[BaseException] = []
    everybody = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            everybody.wait()
            for turn in range(60):
                scope = CLAUDE._replace(credential=str((number + turn) % 3))
                sight = bench.start(talk(*words(turn % 30 + 1, str(turn % 7))), float(turn), scope=scope)
                bench.memory.begun(sight)
                write = Write(300, float(turn), 0.01, (str(number), str(turn)))
                bench.memory.ended(sight, Usage(1000, 0, 1000), f"r{number}.{turn}", write)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(bench.memory) <= 2000
    check(bench.memory)
    assert len(bench.memory.expired_writes(1000.0)) == 360


class TestRememberedText:
    """What segments say, within a number of bytes, where the application allows it."""

    @staticmethod
    def held(memory: Memory) -> int:
        return sum(len(info.remembered.data) for info in memory._infos.known.values() if info.remembered is not None)

    def send(self, memory: Memory, text: str) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        prompt = anthropic.prompt(body)
        scope = Scope("anthropic", "h", "k", "m", "")
        memory.sent(prompt, scope, now=0.0, route="", conversation="", link=None)

    def test_nothing_unless_allowed(self) -> None:
        """Hashes only, by default."""
        memory = Memory(HashKey("test"), 1000)
        self.send(memory, "secret")
        assert self.held(memory) == 0

    def test_the_newest_within_the_limit(self) -> None:
        """The oldest goes first, and what is larger than the limit is not kept at all."""
        memory = Memory(HashKey("test"), 1000, 100)
        for number in range(50):
            self.send(memory, f"{number:030}")
            assert self.held(memory) <= 100
        assert self.held(memory) == 90
        self.send(memory, "x" * 101)
        assert self.held(memory) == 90

    def test_what_is_forgotten_is_not_held(self) -> None:
        """Neither the text nor the place in the queue."""
        memory = Memory(HashKey("test"), 20, 10_000)
        for number in range(500):
            self.send(memory, f"{number:030}")
        assert self.held(memory) <= 20 * 30
        assert memory._infos.remembered is not None
        assert len(memory._infos.remembered._kept) <= 20
