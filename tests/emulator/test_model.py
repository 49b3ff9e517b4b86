"""The cache against a naive model of itself: lists of tokens, compared one by one, all requests kept for ever.

Texts are letters of one token each, so that a prompt is its string and every rule can be written down in a line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache.emulator.cache import Accounting, Cache
from otel_promptcache.emulator.tokens import characters
from otel_promptcache.model import Scope
from otel_promptcache.providers import anthropic, openai_chat
from otel_promptcache.providers.rules import Rules, rules_for

SCALE = 400
"""Letters that each letter of a generated text stands for: some prompts reach a minimum length, some do not."""

texts = st.text(alphabet="ab", min_size=1, max_size=4)
turns = st.lists(st.tuples(texts, st.sampled_from([None, None, "5m", "1h"])), min_size=1, max_size=6)
requests = st.lists(st.tuples(turns, st.sampled_from(["k1", "k2"]), st.integers(0, 500)), min_size=1, max_size=12)


def letters(text: str) -> str:
    return "".join(letter * SCALE for letter in text)


def marked(said: list[tuple[str, str | None]]) -> dict[str, Any]:
    """One message of several blocks. Lifetimes must not rise, so the longer one is kept for the first mark only."""
    content: list[dict[str, Any]] = []
    for text, ttl in said:
        block: dict[str, Any] = {"type": "text", "text": letters(text)}
        if ttl and sum("cache_control" in one for one in content) < 4:
            first = not any("cache_control" in one for one in content)
            block["cache_control"] = {"type": "ephemeral", "ttl": ttl if first else "5m"}
        content.append(block)
    return {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": content}]}


def talk(model: str, said: list[tuple[str, str | None]]) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": letters(text)} for n, (text, _) in enumerate(said)]
    return {"model": model, "messages": messages}


@dataclass
class Naive:
    """What has been stored, as (key, boundaries of what was said, last use, lifetime); nothing is ever thrown away."""

    kept: list[list[Any]] = field(default_factory=list)

    def alive(self, key: str, now: float) -> list[list[Any]]:
        return [one for one in self.kept if one[0] == key and now <= one[2] + one[3]]


def ask(cache: Cache, provider: str, dialect: Any, body: dict[str, Any], key: str, now: float) -> Accounting:
    prompt = dialect.prompt(body)
    ticket = cache.look_up(prompt, Scope(provider, "", key, prompt.model, ""), now)
    cache.store(ticket)
    return ticket.accounting


@settings(max_examples=150)
@given(requests)
def test_marked_prefixes(sent: list[tuple[list[tuple[str, str | None]], str, int]]) -> None:
    """Anthropic: a request reads the longest of its beginnings, seen from a mark, that somebody marked in time."""
    rules = rules_for("anthropic", "claude-sonnet-5")
    cache, naive, now = Cache(characters), Naive(), 0.0
    for said, key, pause in sent:
        now += pause
        body = marked(said)
        counts = ask(cache, "anthropic", anthropic, body, key, now)
        blocks = body["messages"][0]["content"]
        starts = [tuple(one["text"] for one in blocks[:n]) for n in range(1, len(blocks) + 1)]
        marks = [n for n, one in enumerate(blocks) if "cache_control" in one]
        alive = naive.alive(key, now)
        seen = {n for mark in marks for n in range(max(0, mark - rules.lookback + 1), mark + 1)}
        read = max((sum(map(len, starts[n])) for n in seen if any(one[1] == starts[n] for one in alive)), default=0)
        assert counts.read == read
        written = [n for n in marks if sum(map(len, starts[n])) >= rules.minimum]
        last = max((sum(map(len, starts[n])) for n in written), default=0)
        assert counts.write == max(0, last - read)
        assert (counts.read + counts.write + counts.fresh, counts.fresh >= 0) == (counts.total, True)
        for one in alive:
            if one[1] in starts and sum(map(len, one[1])) <= read:
                one[2] = now
        for n in written:
            if not any(one[1] == starts[n] for one in naive.alive(key, now)):
                ttl = {"5m": 300, "1h": 3600}[blocks[n]["cache_control"]["ttl"]]
                naive.kept.append([key, starts[n], now, ttl])
            else:
                next(one for one in naive.alive(key, now) if one[1] == starts[n])[2] = now


def common(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def spelled(body: dict[str, Any]) -> str:
    """A conversation as one string; a new message is set off, for roles are part of the prefix."""
    return "".join(f"{message['role'][0].upper()}{message['content']}" for message in body["messages"])


def without_roles(length: int, body: dict[str, Any]) -> int:
    """Tokens in the first so many letters of ``spelled``."""
    tokens = 0
    for message in body["messages"]:
        if length <= 0:
            break
        tokens += max(0, min(length - 1, len(message["content"])))
        length -= 1 + len(message["content"])
    return tokens


@settings(max_examples=150)
@given(st.sampled_from([("openai", "gpt-4.1"), ("groq", "m"), ("vllm", "m"), ("sglang", "m")]), requests)
def test_common_prefixes(row: tuple[str, str], sent: list[tuple[list[tuple[str, str | None]], str, int]]) -> None:
    """Granules, blocks and trees: never more than what some living prompt of the same account begins with, and at
    least the granules of the newest."""
    provider, model = row
    rules: Rules = rules_for(provider, model)
    cache, naive, now = Cache(characters), Naive(), 0.0
    for said, key, pause in sent:
        now += pause
        account = key if rules.per_account else ""
        body = talk(model, said)
        text = spelled(body)
        counts = ask(cache, provider, openai_chat, body, account, now)
        assert counts.read + counts.write + counts.fresh == counts.total
        assert min(counts.read, counts.write, counts.fresh) >= 0
        assert counts.read % rules.granule == 0
        lengths = [without_roles(common(text, one[1]), body) for one in naive.alive(account, now)]
        longest = min(max(lengths, default=0), counts.total - rules.recomputed)
        expected = longest - longest % rules.granule
        assert counts.read == (expected if expected >= rules.minimum and counts.total >= rules.minimum else 0)
        for one in naive.alive(account, now):
            if rules.granule > 1 and without_roles(common(text, one[1]), body) >= rules.granule:
                # Every granule keeps its own time; the model follows by splitting the prompt where it was used.
                used = common(text, one[1])
                naive.kept.append([account, one[1][:used], now, one[3]])
        if counts.total >= rules.minimum:
            naive.kept.append([account, text, now, rules.ttl])


def tokens_of(one: str, other: str) -> int:
    """Tokens that two conversations begin with: the letters of ``spelled`` that are no roles."""
    return sum(letter.islower() for letter in one[: common(one, other)])


@settings(max_examples=150)
@given(requests)
def test_whole_units(sent: list[tuple[list[tuple[str, str | None]], str, int]]) -> None:
    """DeepSeek: a read ends, less a granule, where an earlier prompt ended or where two parted; never beyond what is
    common, and a prompt that goes on from a whole earlier one always hits it."""
    rules = rules_for("deepseek", "m")
    cache, now = Cache(characters), 0.0
    earlier: list[tuple[str, str]] = []
    for said, key, pause in sent:
        now += pause
        body = talk("m", said)
        text = spelled(body)
        counts = ask(cache, "deepseek", openai_chat, body, key, now)
        mine = [one for owner, one in earlier if owner == key]
        shared = max((without_roles(common(text, one), body) for one in mine), default=0)
        whole = max((without_roles(len(one), body) for one in mine if text.startswith(one)), default=0)
        assert counts.read % rules.granule == 0
        assert whole - whole % rules.granule <= counts.read <= shared
        parted = [(without_roles(common(text, a), body), tokens_of(a, b)) for a in mine for b in mine]
        ends = {end for reach, end in parted if reach >= end}
        assert any(counts.read == end - end % rules.granule for end in ends | {0})
        earlier.append((key, text))
