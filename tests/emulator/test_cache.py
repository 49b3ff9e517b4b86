"""The emulator's cache, rule by rule. Texts are made of four-byte tokens, so every number can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache.emulator import cache
from otel_promptcache.emulator.cache import Accounting, Cache, Ticket, bill
from otel_promptcache.emulator.layout import Layout
from otel_promptcache.emulator.tokens import IMAGE_TOKENS, SPAN, cut, piece, quarter_bytes
from otel_promptcache.model import Scope
from otel_promptcache.providers import anthropic, openai_chat, openai_responses
from otel_promptcache.providers.windows import eligible_ends
from otel_promptcache.semconv import Reason, Status

FIVE_MINUTES = 300
HALF_AN_HOUR = 1800
HOUR = 3600

Body = dict[str, Any]


def text(tokens: int, name: str = "x") -> str:
    """A text of so many tokens that begins with its name."""
    return f"{name}:".ljust(4 * tokens, "-")[: 4 * tokens]


def block(tokens: int, name: str = "x", ttl: str | None = None) -> Body:
    """An Anthropic text block, marked when a lifetime is given."""
    made: Body = {"type": "text", "text": text(tokens, name)}
    if ttl:
        made["cache_control"] = {"type": "ephemeral", "ttl": ttl}
    return made


def user(*content: Body) -> Body:
    return {"role": "user", "content": list(content)}


class Provider:
    """A cache with a clock, spoken to in wire bodies."""

    def __init__(self, dialect: Any, model: str, tokenizer: Callable[[str], int] = quarter_bytes) -> None:
        self.dialect = dialect
        self.model = model
        self.cache = Cache(tokenizer)
        self.now = 1_000_000.0
        self.provider: str = dialect.provider

    def start(self, body: Body, key: str = "key") -> Ticket:
        """A request starts; its response has not begun."""
        prompt = self.dialect.prompt({"model": self.model, **body})
        scope = Scope(self.provider, "", key, prompt.model, prompt.cache_key)
        return self.cache.look_up(prompt, scope, self.now)

    def ask(self, body: Body, key: str = "key") -> Accounting:
        """A request whose response begins at once."""
        ticket = self.start(body, key)
        self.cache.store(ticket)
        return ticket.accounting


@pytest.fixture
def claude() -> Provider:
    return Provider(anthropic, "claude-sonnet-5")  # minimum 1,024


@pytest.fixture
def gpt() -> Provider:
    return Provider(openai_chat, "gpt-5.6")


@pytest.fixture
def older() -> Provider:
    return Provider(openai_chat, "gpt-4.1")


def numbers(counts: Accounting) -> tuple[int, int, int]:
    return counts.read, counts.write, counts.fresh


class TestMarkers:
    """Anthropic: an entry is written at a breakpoint, and only there."""

    def test_the_first_request_writes_up_to_its_mark(self, claude: Provider) -> None:
        """What follows the last breakpoint is neither read nor written."""
        counts = claude.ask({"system": [block(2000, ttl="5m")], "messages": [user(block(10))]})
        assert counts == Accounting(2010, 0, ((FIVE_MINUTES, 2000),), Status.COLD)
        assert counts.fresh == 10

    def test_the_second_reads_what_the_first_wrote(self, claude: Provider) -> None:
        """A different question behind the marked system prompt costs only itself."""
        claude.ask({"system": [block(2000, ttl="5m")], "messages": [user(block(10, "a"))]})
        counts = claude.ask({"system": [block(2000, ttl="5m")], "messages": [user(block(30, "b"))]})
        assert numbers(counts) == (2000, 0, 30)
        assert counts.status is Status.HIT

    def test_without_a_mark_nothing_is_stored(self, claude: Provider) -> None:
        """Equal prompts do not help each other unless one asks for it."""
        for _ in range(2):
            counts = claude.ask({"system": text(5000), "messages": [user(block(10))]})
        assert numbers(counts) == (0, 0, 5010)
        assert (counts.status, counts.reason) == (Status.UNCACHEABLE, Reason.BREAKPOINT_MISSING)
        assert len(claude.cache) == 0

    def test_the_automatic_mark_falls_on_the_last_block(self, claude: Provider) -> None:
        """A growing conversation reads its earlier turns and writes the new one."""
        first = [user(block(2000, "a"))]
        later = [*first, {"role": "assistant", "content": text(50)}, user(block(20, "b"))]
        automatic = {"cache_control": {"type": "ephemeral"}}
        assert numbers(claude.ask({**automatic, "messages": first})) == (0, 2000, 0)
        assert numbers(claude.ask({**automatic, "messages": later})) == (2000, 70, 0)

    def test_a_string_is_one_text_block(self, claude: Provider) -> None:
        """The same words in the other notation are the same prefix."""
        claude.ask({"messages": [user(block(2000, "a", "5m"))]})
        counts = claude.ask({"messages": [{"role": "user", "content": text(2000, "a")}, user(block(5, ttl="5m"))]})
        assert numbers(counts) == (2000, 5, 0)

    def test_marks_are_no_part_of_the_text(self, claude: Provider) -> None:
        """A breakpoint that moves on leaves the prefix what it was."""
        claude.ask({"system": [block(2000, ttl="5m")], "messages": [user(block(9, ttl="5m"))]})
        assert numbers(claude.ask({"system": [block(2000)], "messages": [user(block(9, ttl="5m"))]})) == (2009, 0, 0)

    @pytest.mark.parametrize(
        ("model", "minimum"),
        [("claude-opus-5", 512), ("claude-sonnet-5", 1024), ("claude-opus-4-7", 2048), ("claude-haiku-4-5", 4096)],
    )
    def test_a_prefix_below_the_minimum_is_passed_over(self, model: str, minimum: int) -> None:
        """One token short: no error, both counters 0. With it, the whole prefix counts."""
        for tokens, written in ((minimum - 1, 0), (minimum, minimum)):
            claude = Provider(anthropic, model)
            counts = claude.ask({"system": [block(tokens, ttl="5m")], "messages": [user(block(7))]})
            assert numbers(counts) == (0, written, tokens + 7 - written)
            assert counts.reason is (None if written else Reason.BELOW_MINIMUM)

    def test_a_short_marked_prefix_does_not_hide_a_long_one(self, claude: Provider) -> None:
        """Each breakpoint is held against the minimum with all that stands in front of it."""
        counts = claude.ask({"system": [block(1000, ttl="1h")], "messages": [user(block(24, ttl="5m"))]})
        assert counts.writes == ((FIVE_MINUTES, 1024),)

    def test_a_marked_place_inside_what_is_read_gets_an_entry_of_its_own(self, claude: Provider) -> None:
        """Nothing is billed for it, and a third request can read it."""
        claude.ask({"system": [block(2000)], "messages": [user(block(100, "a", "5m"))]})
        both = {"system": [block(2000, ttl="5m")], "messages": [user(block(100, "a", "5m"))]}
        assert numbers(claude.ask(both)) == (2100, 0, 0)
        assert numbers(claude.ask({"system": [block(2000, ttl="5m")], "messages": [user(block(5))]})) == (2000, 0, 5)


TOOLS: list[Body] = [
    {
        "name": "find",
        "description": text(2000),
        "input_schema": {"type": "object"},
        "cache_control": {"type": "ephemeral"},
    }
]
SEARCH: Body = {"type": "web_search_20250305", "name": "web_search"}
PICTURE: Body = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
QUOTED: Body = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
    "citations": {"enabled": True},
}


class TestWhatCutsAPrefix:
    """Anthropic: tools, then system, then messages; parameters stand where a change of theirs cuts."""

    def body(self, **changes: Any) -> Body:
        return {
            "tools": TOOLS,
            "system": [block(1000, "system", "5m")],
            "messages": [user(block(500, "question", "5m"))],
        } | changes

    @pytest.mark.parametrize(
        ("changes", "survivors"),
        [
            ({}, 3),
            ({"messages": [user(block(500, "other", "5m"))]}, 2),
            ({"tool_choice": {"type": "any"}}, 2),
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 2),
            ({"tool_choice": {"type": "auto"}}, 3),
            ({"system": [block(1000, "other", "5m")]}, 1),
            ({"speed": "fast"}, 1),
            ({"tools": [SEARCH, *TOOLS]}, 1),
            ({"messages": [user(QUOTED, block(500, "question", "5m"))]}, 1),
            ({"messages": [user(block(500, "question", "5m"), PICTURE)]}, 2),
            ({"output_config": {"effort": "low"}}, 2),
            ({"tools": [{"name": "seek", "description": text(2000), "cache_control": {"type": "ephemeral"}}]}, 0),
            ({"model": "claude-sonnet-4-6"}, 0),
        ],
    )
    def test_a_change_leaves_what_stands_in_front_of_it(self, claude: Provider, changes: Body, survivors: int) -> None:
        """The read ends at the last breakpoint before the change."""
        tools = claude.ask(self.body()).total - 1500
        assert claude.ask(self.body(**changes)).read == (0, tools, tools + 1000, tools + 1500)[survivors]

    @pytest.mark.parametrize(
        ("key", "extra"), [("other key", {}), ("key", {"model": "claude-sonnet-5-1"}), ("key", {})]
    )
    def test_accounts_and_models_share_nothing(self, claude: Provider, key: str, extra: Body) -> None:
        """The same prompt under another key or model is cold."""
        claude.ask(self.body())
        counts = claude.ask(self.body(**extra), key)
        assert (counts.status is Status.HIT) == (key == "key" and not extra)

    def test_who_said_it_counts(self, claude: Provider) -> None:
        """The same words of the user and of the assistant are two prefixes."""
        said = [block(2000, "said", "5m")]
        claude.ask({"messages": [{"role": "user", "content": said}]})
        assert claude.ask({"messages": [{"role": "assistant", "content": said}]}).read == 0

    def test_order_of_keys_counts(self, claude: Provider) -> None:
        """A tool written in another key order is another tool."""
        claude.ask(self.body())
        turned = dict(reversed(self.body()["tools"][0].items()))
        assert claude.ask(self.body(tools=[turned])).read == 0


class TestLookback:
    """Anthropic: a breakpoint finds entries at most 20 positions back, itself the first."""

    def conversation(self, blocks: int, marked: tuple[int, ...]) -> Body:
        """One message of numbered blocks of 100 tokens; ``marked`` are block numbers, the first is 1."""
        content = [block(100, str(number), "5m" if number in marked else None) for number in range(1, blocks + 1)]
        return {"messages": [user(*content)]}

    @pytest.mark.parametrize(("appended", "read"), [(1, 1500), (19, 1500), (20, 0), (30, 0)])
    def test_twenty_positions_are_searched_and_no_more(self, claude: Provider, appended: int, read: int) -> None:
        """An entry 19 blocks in front of the mark is the 20th position; one more and it is out of sight."""
        claude.ask(self.conversation(15, (15,)))
        counts = claude.ask(self.conversation(15 + appended, (15 + appended,)))
        assert counts.read == read
        assert counts.reason is (None if read else Reason.LOOKBACK_EXCEEDED)

    def test_the_example_of_the_documentation(self, claude: Provider) -> None:
        """Writes at 10 and 15; a mark at 35 checks 35 to 16 and misses 15."""
        claude.ask(self.conversation(15, (10, 15)))
        assert claude.ask(self.conversation(35, (35,))).read == 0

    def test_every_mark_opens_a_window_of_its_own(self, claude: Provider) -> None:
        """A second breakpoint half-way brings the entry back into sight."""
        claude.ask(self.conversation(15, (15,)))
        assert claude.ask(self.conversation(50, (30, 50))).read == 1500

    @pytest.mark.parametrize("run", [2, 40])
    def test_a_run_of_tool_calls_is_one_position(self, claude: Provider, run: int) -> None:
        """However many calls and results one turn has, they take two positions."""
        start = self.conversation(15, ())["messages"]
        calls = [{"type": "tool_use", "id": f"t{n}", "name": "find", "input": {"n": n}} for n in range(run)]
        results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "found"} for n in range(run)]
        turn = [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]

        def ask(behind: int) -> int:
            """Tokens read with so many blocks behind the tool turn, the last of them marked."""
            tail = user(*(block(1, str(n)) for n in range(1, behind)), block(1, "end", "5m"))
            claude.cache = Cache()
            claude.ask(self.conversation(15, (15,)))
            return claude.ask({"messages": [*start, *turn, tail]}).read

        assert ask(17) == 1500  # 17 blocks, results, calls: the entry is the 20th position
        assert ask(18) == 0

    def test_parameters_are_no_positions(self, claude: Provider) -> None:
        """tool_choice and thinking stand between system and messages and take no room in the window."""
        system = [block(2000, "system", "5m")]
        extra = {"tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}}
        claude.ask({"system": system, "messages": [user(block(1))]})
        question = user(*(block(1, str(n)) for n in range(18)), block(1, "last", "5m"))
        counts = claude.ask({"system": [block(2000, "system")], "messages": [question], **extra})
        assert counts.read == 2000


class TestLifetime:
    """Five minutes or an hour, from the start of the request that wrote or last read."""

    def body(self, ttl: str = "5m") -> Body:
        return {"system": [block(2000, ttl=ttl)], "messages": [user(block(5))]}

    @pytest.mark.parametrize(("ttl", "seconds"), [("5m", FIVE_MINUTES), ("1h", HOUR)])
    def test_the_edge(self, claude: Provider, ttl: str, seconds: int) -> None:
        """Alive in the last second, gone in the next."""
        claude.ask(self.body(ttl))
        claude.now += seconds
        assert claude.ask(self.body(ttl)).read == 2000
        claude.now += seconds + 1
        counts = claude.ask(self.body(ttl))
        assert numbers(counts) == (0, 2000, 5)
        assert (counts.status, counts.reason) == (Status.MISS, Reason.TTL_EXPIRED)

    def test_reading_gives_a_new_start(self, claude: Provider) -> None:
        """Used every four minutes, an entry lives for hours."""
        claude.ask(self.body())
        for _ in range(30):
            claude.now += 240
            assert claude.ask(self.body()).read == 2000

    def test_reading_a_long_prefix_keeps_its_beginning(self, claude: Provider) -> None:
        """The system prompt stays alive as long as the conversation behind it is read."""
        question = [user(block(500, "question", "5m"))]
        claude.ask({"system": [block(2000, ttl="5m")], "messages": question})
        for _ in range(2):
            claude.now += 200
            claude.ask({"system": [block(2000)], "messages": question})
        claude.now += 200
        assert claude.ask(self.body()).read == 2000

    def test_it_counts_from_the_start_of_the_writing_request(self, claude: Provider) -> None:
        """A response that takes four minutes to begin leaves one."""
        ticket = claude.start(self.body())
        claude.now += 240
        claude.cache.store(ticket)
        claude.now += 60
        assert claude.start(self.body()).accounting.read == 2000
        claude.now += 301
        assert claude.start(self.body()).accounting.read == 0


class TestMixedLifetimes:
    """A = read, B = highest 1-hour place after A, C = last place: 1-hour write B - A, 5-minute write C - B."""

    @pytest.mark.parametrize(
        ("read", "places", "writes"),
        [
            (0, [(5000, HOUR), (7000, FIVE_MINUTES)], ((HOUR, 5000), (FIVE_MINUTES, 2000))),
            (2000, [(5000, HOUR), (7000, FIVE_MINUTES)], ((HOUR, 3000), (FIVE_MINUTES, 2000))),
            (5000, [(5000, HOUR), (7000, FIVE_MINUTES)], ((HOUR, 0), (FIVE_MINUTES, 2000))),
            (6000, [(5000, HOUR), (7000, FIVE_MINUTES)], ((HOUR, 0), (FIVE_MINUTES, 1000))),
            (7000, [(5000, HOUR), (7000, FIVE_MINUTES)], ((HOUR, 0), (FIVE_MINUTES, 0))),
            (2000, [(2000, HOUR), (4000, HOUR), (6000, FIVE_MINUTES)], ((HOUR, 2000), (FIVE_MINUTES, 2000))),
            (1000, [(3000, FIVE_MINUTES), (4000, FIVE_MINUTES)], ((FIVE_MINUTES, 3000),)),
            (0, [], ()),
        ],
    )
    def test_the_rule(self, read: int, places: list[tuple[int, int]], writes: tuple[tuple[int, int], ...]) -> None:
        """Worked examples of the formula."""
        assert bill(read, places) == writes

    def test_a_conversation(self, claude: Provider) -> None:
        """System for an hour, turns for five minutes; after six minutes only the turns are written again."""

        def ask(*turns: int) -> Accounting:
            content = [block(tokens, f"turn {n}") for n, tokens in enumerate(turns)]
            content[-1]["cache_control"] = {"type": "ephemeral"}
            return claude.ask({"system": [block(3000, "system", "1h")], "messages": [user(*content)]})

        assert ask(400).writes == ((HOUR, 3000), (FIVE_MINUTES, 400))
        second = ask(400, 100)
        assert (second.read, second.writes) == (3400, ((HOUR, 0), (FIVE_MINUTES, 100)))
        claude.now += 360
        third = ask(400, 100, 50)
        assert (third.read, third.writes, third.fresh) == (3000, ((HOUR, 0), (FIVE_MINUTES, 550)), 0)
        assert (third.status, third.reason) == (Status.PARTIAL, Reason.TTL_EXPIRED)


class TestConcurrency:
    """An entry can be read once its writer's response has begun."""

    body: ClassVar[Body] = {"system": [block(2000, ttl="5m")], "messages": [user(block(5))]}

    def test_two_that_start_together_both_write(self, claude: Provider) -> None:
        """The second has nothing to read yet, and says why."""
        first, second = claude.start(self.body), claude.start(self.body)
        assert numbers(first.accounting) == numbers(second.accounting) == (0, 2000, 5)
        assert (first.accounting.reason, second.accounting.reason) == (None, Reason.CONCURRENT_WRITE)
        claude.cache.store(first)
        assert claude.start(self.body).accounting.read == 2000

    def test_a_request_that_fails_leaves_nothing(self, claude: Provider) -> None:
        """No response, no entry, and nobody waits for one."""
        claude.cache.abandon(claude.start(self.body))
        counts = claude.ask(self.body)
        assert (counts.status, len(claude.cache)) == (Status.COLD, 1)

    def test_one_of_two_writers_fails(self, claude: Provider) -> None:
        """The other is still under way."""
        first = claude.start(self.body)
        claude.start(self.body)
        claude.cache.abandon(first)
        assert claude.start(self.body).accounting.reason is Reason.CONCURRENT_WRITE

    def test_looking_up_alone_stores_nothing(self, claude: Provider) -> None:
        """Entries appear when responses begin."""
        claude.start(self.body)
        assert len(claude.cache) == 0


class TestRoom:
    """Entries are bounded."""

    def test_the_longest_unused_go_first(self, older: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
        """And of one prompt the end before the beginning, which alone is worth something."""
        monkeypatch.setattr(cache, "MAX_ENTRIES", 30)
        for name in "abc":
            older.ask({"messages": [{"role": "user", "content": text(1280, name)}]})
            older.now += 1
        assert len(older.cache) == 30
        older.ask({"messages": [{"role": "user", "content": text(1280, "a") + text(128)}]})
        left_of_b = [entry.tokens for entry in older.cache.entries(99) if entry.used == older.now - 2]
        assert sorted(left_of_b) == [128, 256, 384, 512, 640, 768]
        reads = [older.ask({"messages": [{"role": "user", "content": text(1280, name)}]}).read for name in "ac"]
        assert reads == [1280, 1280]


class TestImplicitMark:
    """GPT-5.6 and later: exact match at boundaries; the newest eligible message is one; writes are reported."""

    def chat(self, *turns: str, system: int = 2000, **extra: Any) -> Body:
        messages = [{"role": "developer", "content": text(system, "system")}]
        for number, turn in enumerate(turns):
            messages.append({"role": "user" if number % 2 == 0 else "assistant", "content": turn})
        return {"messages": messages, **extra}

    def test_a_one_shot_prompt_is_written_whole(self, gpt: Provider) -> None:
        """Nobody asked for it, and it is charged."""
        assert gpt.ask(self.chat(text(30, "a"))).writes == ((HALF_AN_HOUR, 2030),)

    def test_a_conversation_reads_up_to_the_message_before(self, gpt: Provider) -> None:
        """Counts are exact: no granules."""
        gpt.ask(self.chat(text(31, "a")))
        counts = gpt.ask(self.chat(text(31, "a"), text(7, "b"), text(3, "c")))
        assert numbers(counts) == (2031, 10, 0)

    def test_a_common_beginning_that_nobody_marked_is_not_read(self, gpt: Provider) -> None:
        """The same system prompt, another question: no fallback to the unmarked part they share."""
        gpt.ask(self.chat(text(31, "a")))
        counts = gpt.ask(self.chat(text(31, "b")))
        assert (numbers(counts), counts.status) == ((0, 2031, 0), Status.COLD)

    @pytest.mark.parametrize(("later_turns", "read"), [(1, 2010), (19, 2010), (20, 0)])
    def test_message_ends_are_searched_as_far_as_the_rules_say(
        self, gpt: Provider, later_turns: int, read: int
    ) -> None:
        """The implicit mark is the first of 20 places; assistant messages are none."""
        gpt.ask(self.chat(text(10, "first")))
        turns = [text(10, "first")]
        for number in range(later_turns):
            turns += [text(5, "answer"), text(5, f"turn {number}")]
        assert gpt.ask(self.chat(*turns)).read == read

    def test_the_end_of_the_instructions_is_always_searched(self, gpt: Provider) -> None:
        """A request of instructions alone serves every conversation that begins with them."""
        gpt.ask(self.chat())
        assert gpt.ask(self.chat(*(text(5, str(n)) for n in range(61)))).read == 2000

    def test_tool_results_are_one_eligible_message(self) -> None:
        """Only the last of a run can carry the mark."""
        results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "found"} for n in range(3)]
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, *results]
        prompt = openai_chat.prompt({"model": "gpt-5.6", "messages": messages})
        assert list(eligible_ends(prompt.segments)) == [5, 1]
        assert [place.length for place in prompt.breakpoints] == [5]

    def test_explicit_mode_without_marks_caches_nothing(self, gpt: Provider) -> None:
        """The way to opt out of write charges."""
        for _ in range(2):
            counts = gpt.ask(self.chat(text(30, "a"), prompt_cache_options={"mode": "explicit"}))
        assert numbers(counts) == (0, 0, 2030)
        assert counts.reason is Reason.BREAKPOINT_MISSING

    def test_an_explicit_mark_is_read_by_other_conversations(self, gpt: Provider) -> None:
        """In explicit mode exactly the marked prefix is written, and read."""

        def ask(question: str) -> Accounting:
            part = {"type": "text", "text": text(2000), "prompt_cache_breakpoint": {"mode": "explicit"}}
            messages = [{"role": "developer", "content": [part]}, {"role": "user", "content": question}]
            return gpt.ask({"messages": messages, "prompt_cache_options": {"mode": "explicit"}})

        assert numbers(ask(text(8, "a"))) == (0, 2000, 8)
        assert numbers(ask(text(9, "b"))) == (2000, 0, 9)

    def test_four_writes_a_request_the_latest(self, gpt: Provider) -> None:
        """The implicit mark takes one of the four; of the explicit ones the latest three are written."""
        mark = {"mode": "explicit"}
        parts = [{"type": "text", "text": text(1100, str(n)), "prompt_cache_breakpoint": mark} for n in range(6)]
        messages = [{"role": "developer", "content": parts}, {"role": "user", "content": text(8)}]
        gpt.ask({"messages": messages})
        assert sorted(entry.tokens for entry in gpt.cache.entries(99)) == [4400, 5500, 6600, 6608]

    def test_lifetimes_are_told_apart(self, gpt: Provider) -> None:
        """A 12-hour mark in front of the 30-minute one is billed by the same rule as mixed lifetimes elsewhere."""
        mark = {"mode": "explicit", "ttl": "12h"}
        part = {"type": "text", "text": text(2000), "prompt_cache_breakpoint": mark}
        messages = [{"role": "developer", "content": [part]}, {"role": "user", "content": text(8)}]
        assert gpt.ask({"messages": messages}).writes == ((12 * HOUR, 2000), (HALF_AN_HOUR, 8))

    @pytest.mark.parametrize(("seconds", "read"), [(HALF_AN_HOUR, 2030), (HALF_AN_HOUR + 1, 0)])
    def test_half_an_hour(self, gpt: Provider, seconds: int, read: int) -> None:
        """The promised lifetime, to the second."""
        gpt.ask(self.chat(text(30)))
        gpt.now += seconds
        assert gpt.ask(self.chat(text(30))).read == read

    @pytest.mark.parametrize(("system", "written"), [(1013, 0), (1014, 1024)])
    def test_the_minimum(self, gpt: Provider, system: int, written: int) -> None:
        """1,024 tokens up to the mark."""
        counts = gpt.ask(self.chat(text(10), system=system))
        assert counts.write == written
        assert counts.reason is (None if written else Reason.BELOW_MINIMUM)

    def test_cache_keys_are_apart(self, gpt: Provider) -> None:
        """The same prompt under another prompt_cache_key is another entry."""
        gpt.ask(self.chat(text(10), prompt_cache_key="a"))
        assert gpt.ask(self.chat(text(10), prompt_cache_key="b")).read == 0
        assert gpt.ask(self.chat(text(10), prompt_cache_key="a")).read == 2010

    def test_responses_follow_the_same_rules(self) -> None:
        """Instructions are the beginning, input follows."""
        gpt = Provider(openai_responses, "gpt-6")
        body = {"instructions": text(1500), "input": text(20)}
        assert numbers(gpt.ask(body)) == (0, 1520, 0)
        assert numbers(gpt.ask({**body, "store": False})) == (1520, 0, 0)
        assert gpt.ask({**body, "text": {"verbosity": "low"}}).read == 0


class TestCommonPrefix:
    """Earlier OpenAI models: any common prefix of at least 1,024 tokens, in granules of 128; writes are free."""

    def chat(self, question: str) -> Body:
        return {"messages": [{"role": "user", "content": question}]}

    @pytest.mark.parametrize(
        ("shared", "read"), [(1023, 0), (1024, 1024), (1151, 1024), (1152, 1152), (2999, 2944), (3000, 2944)]
    )
    def test_the_read_ends_at_a_granule_within_the_text(self, older: Provider, shared: int, read: int) -> None:
        """Two texts of 3,000 tokens that part after ``shared``."""
        first = text(3000, "a")
        older.ask(self.chat(first))
        counts = older.ask(self.chat(first[: 4 * shared] + "=" * (12_000 - 4 * shared)))
        assert numbers(counts) == (read, 0, 3000 - read)

    @pytest.mark.parametrize("parted", range(4608, 4612))
    def test_a_token_counts_only_as_a_whole(self, older: Provider, parted: int) -> None:
        """1,152 tokens are 4,608 bytes: one byte less and the last granule is not common."""
        first = text(3000, "a")
        older.ask(self.chat(first))
        assert older.ask(self.chat(first[:parted] + "=" * 5000)).read == 1152
        assert older.ask(self.chat(first[: 4608 - 1] + "=" * 5000)).read == 1024

    def test_granules_run_on_over_segments(self, older: Provider) -> None:
        """Boundaries are counted from the beginning of the prompt, not of the message."""
        messages = [{"role": "developer", "content": text(1000)}, {"role": "user", "content": text(300)}]
        older.ask({"messages": messages})
        longer = [*messages, {"role": "assistant", "content": "ok"}, {"role": "user", "content": text(10, "b")}]
        assert older.ask({"messages": longer}).read == 1280

    def test_a_changed_parameter_changes_everything_behind_it(self, older: Provider) -> None:
        """Parameters of the cache key come first."""
        older.ask(self.chat(text(2000)))
        assert older.ask({**self.chat(text(2000)), "verbosity": "low"}).read == 0

    def test_pictures_are_whole_or_not_at_all(self, older: Provider) -> None:
        """A picture is 1,200 tokens; two that differ share nothing of them."""

        def ask(address: str) -> Accounting:
            picture = {"type": "image_url", "image_url": {"url": address}}
            content = [{"type": "text", "text": text(1100)}, picture]
            return older.ask({"messages": [{"role": "user", "content": content}]})

        ask("https://example.com/a.png")
        assert numbers(ask("https://example.com/b.png")) == (1024, 0, 1276)
        assert ask("https://example.com/a.png").read == 2176

    def test_ten_idle_minutes(self, older: Provider) -> None:
        """Every use gives ten more; after them the prefix is gone."""
        for _ in range(3):
            older.ask(self.chat(text(2000)))
            older.now += 600
        assert older.ask(self.chat(text(2000))).read == 1920
        older.now += 601
        counts = older.ask(self.chat(text(2000)))
        assert (counts.read, counts.reason) == (0, Reason.TTL_EXPIRED)

    def test_extended_retention(self, older: Provider) -> None:
        """prompt_cache_retention keeps it for a day."""
        body = {**self.chat(text(2000)), "prompt_cache_retention": "24h"}
        older.ask(body)
        older.now += 86_400
        assert older.ask(body).read == 1920

    def test_too_short_to_cache(self, older: Provider) -> None:
        """Below 1,024 tokens nothing is stored; exactly 1,024 can be read again."""
        counts = older.ask(self.chat(text(1023)))
        assert (counts.reason, len(older.cache)) == (Reason.BELOW_MINIMUM, 0)
        assert [older.ask(self.chat(text(1024))).read for _ in range(2)] == [0, 1024]

    def test_reading_is_a_use_whatever_becomes_of_the_request(self, older: Provider) -> None:
        """A request that fails after it has read has kept the prefix alive."""
        older.ask(self.chat(text(2000)))
        older.now += 600
        older.cache.abandon(older.start(self.chat(text(2000))))
        older.now += 600
        assert older.ask(self.chat(text(2000))).read == 1920

    def test_together_they_miss_together(self, older: Provider) -> None:
        """A prefix can be read once the response of the first request has begun."""
        first, second = older.start(self.chat(text(2000))), older.start(self.chat(text(2000)))
        assert (first.accounting.reason, second.accounting.reason) == (None, Reason.CONCURRENT_WRITE)
        older.cache.store(first)
        assert older.ask(self.chat(text(2000))).read == 1920

    def test_a_coarser_model(self) -> None:
        """GPT-5.5 has its boundaries every 2,048 tokens."""
        gpt = Provider(openai_chat, "gpt-5.5")
        gpt.ask(self.chat(text(5000)))
        assert gpt.ask(self.chat(text(5000))).read == 4096


class TestTokenByToken:
    """Trees, slots and units keep the rules of concurrency and of time that entries keep."""

    body: ClassVar[Body] = {"messages": [{"role": "user", "content": text(5000)}]}

    @pytest.fixture(params=["sglang", "llama_cpp", "deepseek", "gcp.gemini"])
    def engine(self, request: pytest.FixtureRequest) -> Provider:
        made = Provider(openai_chat, "m")
        made.provider = request.param
        return made

    def test_together_they_miss_together(self, engine: Provider) -> None:
        """What is under way cannot be read, and the second says so; slots are busy meanwhile."""
        first, second = engine.start(self.body), engine.start(self.body)
        assert (first.accounting.read, second.accounting.read) == (0, 0)
        assert (first.accounting.reason, second.accounting.reason) == (None, Reason.CONCURRENT_WRITE)
        engine.cache.store(first)
        assert engine.start(self.body).accounting.read > 4900

    def test_a_request_that_fails_leaves_nothing(self, engine: Provider) -> None:
        """And its slot is free again."""
        for _ in range(9):
            engine.cache.abandon(engine.start(self.body))
        assert (engine.ask(self.body).status, len(engine.cache)) == (Status.COLD, 1)

    def test_looking_is_no_use(self, engine: Provider) -> None:
        """What a request would read can be asked without a trace."""
        engine.ask(self.body)
        prompt = openai_chat.prompt({"model": "m", **self.body})
        scope = Scope(engine.provider, "", "key", "m", "")
        before = [(one.used, one.reads) for one in engine.cache.entries(9)]
        engine.now += 10
        assert engine.cache.would_read(prompt, scope, engine.now) == engine.start(self.body).accounting.read
        assert before == [(1_000_000.0, 0)]

    def test_it_expires_where_things_expire(self, engine: Provider) -> None:
        """Gemini and DeepSeek forget; an engine at home does not."""
        engine.ask(self.body)
        engine.now += 30 * 86_400
        counts = engine.ask(self.body)
        forgets = engine.provider in ("deepseek", "gcp.gemini")
        assert (counts.read == 0, counts.reason) == (forgets, Reason.TTL_EXPIRED if forgets else None)


class TestTokens:
    """The declared tokenizer."""

    @pytest.mark.parametrize(
        ("written", "tokens"),
        [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("éé", 1), ("ééé", 2), ("€€", 2), ("😀", 1)],
    )
    def test_four_bytes_are_a_token(self, written: str, tokens: int) -> None:
        """UTF-8 bytes, rounded up."""
        assert quarter_bytes(written) == tokens

    def test_every_segment_is_at_least_one_and_parameters_none(self) -> None:
        """An empty message still takes room; a request parameter is no text."""
        body = {"tool_choice": {"type": "any"}, "messages": [{"role": "user", "content": ""}]}
        segments = anthropic.prompt(body).segments
        assert [piece(segment, quarter_bytes).tokens for segment in segments] == [0, 1]

    def test_a_parameter_that_is_a_word_is_no_text_either(self) -> None:
        """``tool_choice: "required"`` is a string on the wire."""
        (choice,) = openai_chat.prompt({"tool_choice": "required"}).segments
        assert piece(choice, quarter_bytes).tokens == 0

    def test_structures_are_their_compact_json(self) -> None:
        """Markers left out."""
        call = {"type": "tool_use", "id": "t", "name": "find", "input": {"q": "ü"}}
        marked = {**call, "cache_control": {"type": "ephemeral"}}
        body = {"messages": [{"role": "assistant", "content": [marked]}]}
        counted = piece(anthropic.prompt(body).segments[0], quarter_bytes)
        assert counted.text == '{"type":"tool_use","id":"t","name":"find","input":{"q":"ü"}}'
        assert counted.tokens == 16

    def test_pictures_are_1200_wherever_they_stand(self) -> None:
        """Alone, and inside a tool result beside its text."""
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 90_000}}
        result = {"type": "tool_result", "tool_use_id": "t", "content": [picture, picture]}
        segments = anthropic.prompt({"messages": [user(picture, result)]}).segments[-2:]
        alone, nested = (piece(segment, quarter_bytes).tokens for segment in segments)
        frame = quarter_bytes('{"type":"tool_result","tool_use_id":"t","content":[]}')
        assert (alone, nested) == (IMAGE_TOKENS, 2 * IMAGE_TOKENS + frame)

    @settings(deadline=None, max_examples=60)
    @given(st.text(alphabet="aé€😀", max_size=80), st.integers(0, 60))
    def test_a_cut_is_the_longest_beginning_that_fits(self, written: str, tokens: int) -> None:
        """One character more would be too many."""
        place = cut(quarter_bytes, written, tokens)
        assert quarter_bytes(written[:place]) <= tokens
        assert place == len(written) or quarter_bytes(written[: place + 1]) > tokens

    def test_long_texts_are_cut_at_the_same_places(self) -> None:
        """What follows does not move a boundary in front of it."""
        start = "déjà vu " * SPAN
        tokens = range(100, 9000, 1000)
        assert [cut(quarter_bytes, start + "a", n) for n in tokens] == [
            cut(quarter_bytes, start + "bb", n) for n in tokens
        ]


words = st.text(alphabet="ab", min_size=1, max_size=3)
"""With 400 tokens a character: some prefixes reach the minimum, some do not, and many are shared."""

conversations = st.lists(st.tuples(words, st.sampled_from([None, "5m"])), min_size=1, max_size=8)


def marked_body(turns: list[tuple[str, str | None]]) -> Body:
    content: list[Body] = []
    for written, ttl in turns:
        content.append({"type": "text", "text": written})
        if ttl:
            content[-1]["cache_control"] = {"type": "ephemeral", "ttl": ttl}
    return {"messages": [user(*content)]}


class TestProperties:
    """What holds for every sequence of requests."""

    @settings(deadline=None, max_examples=150)
    @given(
        st.sampled_from([(anthropic, "claude-sonnet-5"), (openai_chat, "gpt-5.6"), (openai_chat, "gpt-4.1")]),
        st.lists(st.tuples(conversations, st.integers(0, 700)), max_size=8),
    )
    def test_every_token_is_read_or_written_or_fresh(
        self, spoken: tuple[Any, str], requests: list[tuple[list[tuple[str, str | None]], int]]
    ) -> None:
        """The three parts are never negative and add up to the prompt."""
        provider = Provider(*spoken, tokenizer=lambda written: 400 * len(written))
        for turns, pause in requests:
            provider.now += pause
            counts = provider.ask(marked_body(turns))
            assert counts.total == 400 * sum(len(written) for written, _ in turns)
            assert min(counts.read, counts.write, counts.fresh) >= 0
            assert counts.read + counts.write + counts.fresh == counts.total

    @settings(deadline=None, max_examples=100)
    @given(st.lists(conversations, max_size=5), conversations, st.integers(0, FIVE_MINUTES))
    def test_a_repeated_request_reads_its_marked_prefix(
        self, others: list[list[tuple[str, str | None]]], turns: list[tuple[str, str | None]], pause: int
    ) -> None:
        """Within the lifetime all that was marked and long enough is read, whatever came before."""
        claude = Provider(anthropic, "claude-sonnet-5", tokenizer=lambda written: 400 * len(written))
        for other in others:
            claude.ask(marked_body(other))
        claude.ask(marked_body(turns))
        claude.now += pause
        ends = [400 * sum(len(written) for written, _ in turns[: n + 1]) for n in range(len(turns))]
        marked = max((end for end, (_, ttl) in zip(ends, turns, strict=True) if ttl and end >= 1024), default=0)
        assert numbers(claude.ask(marked_body(turns))) == (marked, 0, ends[-1] - marked)

    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 2500), st.sampled_from("aé€😀"), st.integers(1, 3000))
    def test_granules_depend_on_the_common_beginning_alone(self, shared: int, letter: str, rest: int) -> None:
        """Texts in any alphabet: as many granules are equal as fit into what two prompts share."""
        scope = Scope("openai", "", "key", "gpt-4.1", "")
        first, second = (
            Layout(
                openai_chat.prompt({"messages": [{"role": "user", "content": letter * shared + tail}]}),
                scope,
                quarter_bytes,
            )
            for tail in ("x" * rest, "y" * (2 * rest))
        )
        equal = sum(a == b for a, b in zip(first.granules(128), second.granules(128), strict=False))
        whole = len((letter * shared).encode()) // 512
        assert whole - 1 <= equal <= whole
        assert equal == whole or letter == "€"  # three bytes: a boundary falls inside a letter and moves before it
