"""What the diagnosis says of a request, given what was sent before and what the provider reported."""

from __future__ import annotations

import copy
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache import diagnosis, providers
from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Kind, Link, Prompt, Scope
from otel_promptcache.providers.rules import Matching, Rules, rules_for
from otel_promptcache.semconv import Cause, Confidence, Reason, Status

Body = dict[str, Any]

# --- A conversation with a provider that keeps its promises ---------------------------------------------------


class IdealCache:
    """Holds exactly what the documentation promises: entries at breakpoints, or every prefix. Four bytes a token."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Scope, tuple[int, ...]], float] = {}
        """When the entry for a prefix runs out."""

    def usage(self, prompt: Prompt, scope: Scope, rules: Rules, now: float) -> tuple[int, int, int]:
        """Total, read and written tokens."""
        sizes = itertools.accumulate((len(canonical(segment)) for segment in prompt.segments), initial=0)
        tokens = [size // 4 for size in sizes]
        keys = tuple(segment.key for segment in prompt.segments)
        if rules.matching is Matching.PREFIX:
            lengths: Iterator[int] = iter(range(len(keys), 0, -1))
            ends = dict.fromkeys(range(1, len(keys) + 1), prompt.retention or rules.ttl)
        else:
            lengths = (n for place in prompt.breakpoints for n in _window(prompt, place.length, rules.lookback))
            ends = {place.length: place.ttl for place in prompt.breakpoints}
        alive = [n for n in lengths if self.entries.get((scope, keys[:n]), 0) >= now and tokens[n] >= rules.minimum]
        read = tokens[max(alive, default=0)]
        read -= read % rules.granule
        last = tokens[max(ends, default=0)]
        for length, ttl in ends.items():
            self.entries[scope, keys[:length]] = now + ttl
        if read:
            self.entries[scope, keys[: max(alive)]] = now + max(ends.values())
        writes = rules.matching is Matching.BREAKPOINT and last >= rules.minimum
        return tokens[-1], read, max(0, last - read) if writes else 0


def _window(prompt: Prompt, end: int, positions: int) -> Iterator[int]:
    """Lengths within so many positions of a breakpoint; a run of calls, and one of results, is one position."""
    run: Kind | None = None
    for length in range(end, 0, -1):
        kind = prompt.segments[length - 1].kind
        if not (kind is run and kind in (Kind.TOOL_USE, Kind.TOOL_RESULT)):
            positions -= 1
        if positions < 0:
            return
        run = kind
        yield length


class Verdict(NamedTuple):
    status: Status
    reason: Reason | None = None
    cause: Cause | None = None
    path: str | None = None
    line: int | None = None


@dataclass
class Pending:
    body: Body
    prompt: Prompt
    scope: Scope
    sight: Sight
    usage: tuple[int, int, int]


HOSTS = {"anthropic": "api.anthropic.com", "openai_chat": "api.openai.com", "openai_responses": "api.openai.com"}


class Client:
    """Sends bodies as an application does, one history, one clock, and returns what is said of each."""

    def __init__(self, dialect: str = "anthropic", *, hashed: bool = True) -> None:
        """``hashed``: whether the worker gets to each prompt before the next is sent."""
        self.waiting: list[Prompt] | None = None if hashed else []
        self.dialect = providers.BY_NAME[dialect]
        self.memory = Memory(HashKey("test"), 100_000)
        self.cache = IdealCache()
        self.now = 1_800_000_000.0
        self.count = 0
        self.full: diagnosis.Diagnosis | None = None
        """The newest diagnosis, and what a second look at the same call says."""
        self.again: diagnosis.Diagnosis | None = None

    def start(
        self,
        body: Body,
        *,
        after: float = 10.0,
        host: str = "",
        credential: str = "ours",
        route: str = "/chat",
        conversation: str = "",
    ) -> Pending:
        """Sends a request; its response has not begun."""
        self.now += after
        self.count += 1
        host = host or HOSTS[self.dialect.name]
        prompt = self.dialect.prompt(copy.deepcopy(body))
        provider = providers.provider_for(host, self.dialect)
        scope = Scope(provider, host, credential, prompt.model, prompt.cache_key)
        sight = self.memory.sent(
            prompt, scope, now=self.now, route=route, conversation=conversation, link=Link(1, self.count)
        )
        if self.waiting is None:
            self.memory.describe(prompt, sight)
        else:
            self.waiting.append(prompt)
        usage = self.cache.usage(prompt, scope, rules_for(provider, prompt.model), self.now)
        return Pending(body, prompt, scope, sight, usage)

    def finish(self, call: Pending, usage: Any = ..., *, response_id: str = "", served: str = "") -> Verdict:
        """The response comes, with the usage of the ideal cache unless another is given."""
        self.memory.begun(call.sight, self.now)
        found = self.dialect.usage(wire_usage(self.dialect.name, *call.usage) if usage is ... else usage)
        rules = rules_for(call.scope.provider, call.scope.model)
        self.full = said = diagnosis.diagnose(call.prompt, call.sight, found, rules, served)
        self.again = diagnosis.diagnose(call.prompt, call.sight, found, rules, served)
        self.memory.ended(call.sight, found, response_id, None)
        path = self.dialect.path(said.place) if said.place else None
        return Verdict(said.status, said.reason, said.cause, path, said.line)

    def send(self, body: Body, usage: Any = ..., *, response_id: str = "", served: str = "", **how: Any) -> Verdict:
        return self.finish(self.start(body, **how), usage, response_id=response_id, served=served)


def wire_usage(dialect: str, total: int, read: int, write: int) -> Body:
    """A usage object as the API writes it."""
    if dialect == "anthropic":
        return {
            "input_tokens": total - read - write,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write,
            "output_tokens": 50,
        }
    details = {"cached_tokens": read, "cache_write_tokens": write}
    if dialect == "openai_chat":
        return {"prompt_tokens": total, "completion_tokens": 50, "prompt_tokens_details": details}
    return {"input_tokens": total, "output_tokens": 50, "input_tokens_details": details}


# --- What is sent ---------------------------------------------------------------------------------------------

EPHEMERAL = {"type": "ephemeral"}


def prose(topic: str, lines: int = 110) -> str:
    """Lines that no other topic has: long enough to be cached by every model here."""
    return "\n".join(
        f"Rule {line} on {topic}: {hashlib.md5(f'{topic}{line}'.encode()).hexdigest()}." for line in range(1, lines + 1)
    )


def tool(name: str) -> Body:
    """A tool in Anthropic's form; ``openai_tool`` has the same in the other."""
    schema = {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}
    return {"name": name, "description": f"Finds {name} entries.\n{prose(name, 8)}", "input_schema": schema}


def turns(*texts: str) -> list[Body]:
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


FIRST = "How do I reset the password of my account at the Leipzig branch?"
SECOND = "Open the settings, choose security, and press the button named reset."
THIRD = "The button is grey and cannot be pressed, what could be the cause of it?"
FOURTH = "Your administrator has to allow it first; ask them to open the console."
FIFTH = "Thank you, they did. Is there anything else that I should look after now?"
TALK = (FIRST, SECOND, THIRD, FOURTH, FIFTH)
SYSTEM = prose("support")


def anthropic_body(length: int = 3) -> Body:
    return {
        "model": "claude-opus-5",
        "max_tokens": 1024,
        "cache_control": dict(EPHEMERAL),
        "tools": [tool("people"), tool("places"), tool("papers")],
        "system": [{"type": "text", "text": SYSTEM}, {"type": "text", "text": prose("style", 20)}],
        "messages": turns(*TALK[:length]),
    }


def chat_body(length: int = 3) -> Body:
    return {
        "model": "gpt-4.1",
        "tools": [{"type": "function", "function": tool(name)} for name in ("people", "places", "papers")],
        "messages": [{"role": "system", "content": SYSTEM}, *turns(*TALK[:length])],
    }


def responses_body(length: int = 3) -> Body:
    return {
        "model": "gpt-4.1",
        "tools": [{"type": "function", **tool(name)} for name in ("people", "places", "papers")],
        "instructions": SYSTEM,
        "input": turns(*TALK[:length]),
    }


BODIES = {"anthropic": anthropic_body, "openai_chat": chat_body, "openai_responses": responses_body}


def leading(body: Body) -> int:
    """Index of the first message that is no instruction."""
    return 1 if "messages" in body and "system" not in body else 0


def messages(body: Body) -> list[Body]:
    """The message array, whatever the API calls it."""
    return body["input"] if "input" in body else body["messages"]  # type: ignore[no-any-return]


def rewrite_system(body: Body, change: Callable[[str], str]) -> None:
    """Changes the text of the (first) system prompt."""
    if "instructions" in body:
        body["instructions"] = change(body["instructions"])
    elif "system" in body:
        body["system"][0]["text"] = change(body["system"][0]["text"])
    else:
        body["messages"][0]["content"] = change(body["messages"][0]["content"])


def definition(body: Body, index: int) -> Body:
    """The part of a tool that has its name and description."""
    found = body["tools"][index]
    return found.get("function", found)  # type: ignore[no-any-return]


DIALECTS = tuple(BODIES)
SYSTEM_PATH = {"anthropic": "system[0]", "openai_chat": "messages[0].content", "openai_responses": "instructions"}
HISTORY = {
    "anthropic": "messages[{}].content",
    "openai_chat": "messages[{}].content",
    "openai_responses": "input[{}].content",
}


def first_of(dialect: str) -> str:
    """Where the first message of the conversation stands."""
    return HISTORY[dialect].format(1 if dialect == "openai_chat" else 0)


def changed(
    dialect: str, edit: Callable[[Body], object], *, before: Callable[[Body], object] = bool, hashed: bool = True
) -> Verdict:
    """Two turns of a conversation, then a third in a request that ``edit`` changes; ``before`` changes all three."""
    client = Client(dialect, hashed=hashed)
    for length in (1, 3):
        body = BODIES[dialect](length)
        before(body)
        assert client.send(body).status in (Status.COLD, Status.HIT)
    body = BODIES[dialect](5)
    before(body)
    edit(body)
    return client.send(body)


# --- What was changed, and where ------------------------------------------------------------------------------


def replaced(old: str, new: str) -> Callable[[Body], None]:
    return lambda body: rewrite_system(body, lambda text: text.replace(old, new))


def line_two(line: str) -> Callable[[Body], None]:
    """Puts a line after the first of the system prompt."""
    return lambda body: rewrite_system(body, lambda text: text.replace("\n", f"\n{line}\n", 1))


def line_two_becomes(line: str) -> Callable[[Body], None]:
    def edit(body: Body) -> None:
        rewrite_system(body, lambda text: "\n".join([text.split("\n")[0], line, *text.split("\n")[2:]]))

    return edit


SYSTEM_EDITS = [
    ("a word", replaced("Rule 7 on", "Law 7 on"), Cause.EDITED, 7),
    ("a line more", line_two("Be brief."), Cause.EDITED, 2),
    ("a line less", lambda body: rewrite_system(body, lambda text: text.partition("\n")[2]), Cause.EDITED, 1),
    ("text at the end", lambda body: rewrite_system(body, lambda text: text + " Be brief."), Cause.EDITED, 110),
    ("two blanks for one", replaced("Rule 7 on", "Rule 7  on"), Cause.WHITESPACE, 7),
    ("a tab for a blank", replaced("Rule 7 on", "Rule 7\ton"), Cause.WHITESPACE, 7),
    ("a no-break space for a blank", replaced("Rule 7 on", "Rule 7\u00a0on"), Cause.WHITESPACE, 7),
    ("a newline at the end", lambda body: rewrite_system(body, lambda text: text + "\n"), Cause.WHITESPACE, 110),
    ("Windows line endings", replaced("\n", "\r\n"), Cause.LINE_ENDINGS, 1),
    (
        "lines in another order",
        lambda body: rewrite_system(body, lambda text: "\n".join(reversed(text.split("\n")))),
        Cause.REORDERED,
        1,
    ),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("edit", "cause", "line"), [row[1:] for row in SYSTEM_EDITS], ids=[row[0] for row in SYSTEM_EDITS]
)
def test_a_changed_system_prompt_is_placed_to_the_line(
    dialect: str, edit: Callable[[Body], None], cause: Cause, line: int
) -> None:
    """The line is counted from 1 within the text at the path."""
    said = changed(dialect, edit)
    assert said == Verdict(Status.MISS, Reason.SYSTEM_CHANGED, cause, SYSTEM_PATH[dialect], line)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_clock_in_the_system_prompt(dialect: str) -> None:
    """A time that moved between two turns is told from any other edit."""
    said = changed(
        dialect,
        line_two_becomes("The time is 2026-11-21 14:06:11."),
        before=line_two_becomes("The time is 2026-11-21 14:05:59."),
    )
    assert said == Verdict(Status.MISS, Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, SYSTEM_PATH[dialect], 2)


def named(index: int, name: str) -> Callable[[Body], None]:
    """Inserts a copy of the first tool under another name."""

    def edit(body: Body) -> None:
        body["tools"].insert(index, copy.deepcopy(body["tools"][0]))
        definition(body, index)["name"] = name

    return edit


def described(index: int, text: str) -> Callable[[Body], None]:
    def edit(body: Body) -> None:
        definition(body, index)["description"] += text

    return edit


def schema_key_order(body: Body) -> None:
    schema = definition(body, 2)["input_schema"]
    schema["properties"] = dict(reversed(schema["properties"].items()))


TOOL_EDITS = [
    ("reversed", lambda body: body["tools"].reverse(), Cause.REORDERED, "tools[0]"),
    ("the last two swapped", lambda body: body["tools"].append(body["tools"].pop(1)), Cause.REORDERED, "tools[1]"),
    ("one more in front", named(0, "planes"), Cause.ADDED, "tools[0]"),
    ("one more between", named(1, "planes"), Cause.ADDED, "tools[1]"),
    ("one more at the end", named(3, "planes"), Cause.ADDED, "tools[3]"),
    ("one less between", lambda body: body["tools"].pop(1), Cause.REMOVED, "tools[1]"),
    ("one less at the end", lambda body: body["tools"].pop(), Cause.REMOVED, "tools[2]"),
    ("none left", lambda body: body.pop("tools"), Cause.REMOVED, "tools[0]"),
    ("another description", described(1, " Use it sparingly."), Cause.EDITED, "tools[1]"),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("edit", "cause", "path"), [row[1:] for row in TOOL_EDITS], ids=[row[0] for row in TOOL_EDITS])
def test_changed_tools_are_placed_to_the_tool(
    dialect: str, edit: Callable[[Body], None], cause: Cause, path: str
) -> None:
    """And to the line where one of its texts was edited."""
    line = 9 if cause is Cause.EDITED else None
    assert changed(dialect, edit) == Verdict(Status.MISS, Reason.TOOLS_CHANGED, cause, path, line)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_clock_in_a_tool(dialect: str) -> None:
    """Descriptions that are made anew for every request move too."""

    def moved(body: Body) -> None:
        tool = definition(body, 1)
        tool["description"] = tool["description"].replace("14:05:59", "14:06:11")

    said = changed(dialect, moved, before=described(1, "\nNow: 2026-11-21T14:05:59Z"))
    assert said == Verdict(Status.MISS, Reason.TOOLS_CHANGED, Cause.TIMESTAMP, "tools[1]", 10)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_order_of_keys_in_a_schema_counts(dialect: str) -> None:
    """Providers hash the text they are sent."""
    said = changed(dialect, schema_key_order)
    assert (said.status, said.reason, said.path) == (Status.MISS, Reason.TOOLS_CHANGED, "tools[2]")


def long_first(body: Body) -> None:
    """Makes the first message long enough that losing it shows on every provider."""
    messages(body)[leading(body)]["content"] = prose("the question", 70)


def at_first(change: Callable[[list[Body]], object]) -> Callable[[Body], None]:
    """Changes the message array, its instructions left out."""

    def edit(body: Body) -> None:
        array = messages(body)
        start = leading(body)
        talk = array[start:]
        change(talk)
        array[start:] = talk

    return edit


def first_becomes(change: Callable[[str], str]) -> Callable[[Body], None]:
    def edit(talk: list[Body]) -> None:
        talk[0]["content"] = change(talk[0]["content"])

    return at_first(edit)


def cut_front(talk: list[Body]) -> None:
    del talk[:2]


def put_front(talk: list[Body]) -> None:
    talk[:0] = turns("What I asked long before that, and what the answer was to it.", "It was forty-two.")


MESSAGE_EDITS = [
    ("a word", first_becomes(lambda text: text.replace("Rule 3 on", "Law 3 on")), Cause.EDITED, 3),
    ("a blank", first_becomes(lambda text: text.replace("Rule 3 on", "Rule  3 on")), Cause.WHITESPACE, 3),
    ("a turn put in front", at_first(put_front), Cause.ADDED, 1),
    ("two messages swapped", at_first(lambda talk: talk.insert(0, talk.pop(2))), Cause.REORDERED, 1),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("edit", "cause", "line"), [row[1:] for row in MESSAGE_EDITS], ids=[row[0] for row in MESSAGE_EDITS]
)
def test_changed_history_is_placed_to_the_message(
    dialect: str, edit: Callable[[Body], None], cause: Cause, line: int | None
) -> None:
    """Tools and system are equal, and where the provider reads any prefix they are still read."""
    said = changed(dialect, edit, before=long_first)
    status = Status.MISS if dialect == "anthropic" else Status.PARTIAL
    assert said == Verdict(status, Reason.MESSAGES_CHANGED, cause, first_of(dialect), line)


EDITS = [*SYSTEM_EDITS, *TOOL_EDITS, *MESSAGE_EDITS]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("edit", [row[1] for row in EDITS], ids=[row[0] for row in EDITS])
def test_a_verdict_does_not_wait_for_the_hashes(dialect: str, edit: Callable[[Body], None]) -> None:
    """Of calls milliseconds apart the later may be over before the worker has come to the earlier one's prompt."""
    assert changed(dialect, edit, before=long_first, hashed=False) == changed(dialect, edit, before=long_first)


def test_results_of_parallel_tools_in_another_order() -> None:
    """Results come in the order of completion, and are resent in the order of the calls."""
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": prose(f"result {n}", 4)} for n in range(3)]
    calls = [{"type": "tool_use", "id": f"t{n}", "name": "people", "input": {"query": str(n)}} for n in range(3)]
    client = Client()
    body = anthropic_body(1)
    body["messages"] += [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    client.send(body)
    later = copy.deepcopy(body)
    later["messages"][2]["content"].sort(key=lambda result: result["tool_use_id"], reverse=True)
    later["messages"] += turns("x", "Here is what I found.", "Thank you, and the rest?")[1:]
    said = client.send(later)
    assert said == Verdict(Status.MISS, Reason.MESSAGES_CHANGED, Cause.REORDERED, "messages[2].content[0]", 1)


def test_the_line_within_the_text_of_a_tool_result() -> None:
    """A tool's result is text as good as any."""
    client = Client()
    body = anthropic_body(1)
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "people", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": prose("result", 9)}]},
    ]
    client.send(body)
    later = copy.deepcopy(body)
    result = later["messages"][2]["content"][0]
    result["content"] = result["content"].replace("Rule 7 on", "Law 7 on")
    later["messages"] += turns("x", "Here is what I found.", "Thank you, and the rest?")[1:]
    assert client.send(later).line == 7


PICTURES: dict[str, Callable[[str], Body]] = {
    "anthropic": lambda url: {"type": "image", "source": {"type": "url", "url": url}},
    "openai_chat": lambda url: {"type": "image_url", "image_url": {"url": url}},
    "openai_responses": lambda url: {"type": "input_image", "image_url": url},
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_picture_under_a_new_address(dialect: str) -> None:
    """Signed addresses change with every request, and with them the prompt."""

    def shows(url: str) -> Callable[[Body], None]:
        def edit(talk: list[Body]) -> None:
            kind = "input_text" if dialect == "openai_responses" else "text"
            text = {"type": kind, "text": prose("the picture", 70)}
            talk[0]["content"] = [PICTURES[dialect](url), text]

        return at_first(edit)

    said = changed(dialect, shows("https://x.example/a?sign=2"), before=shows("https://x.example/a?sign=1"))
    place = first_of(dialect) + "[0]"
    assert said[1:] == (Reason.MESSAGES_CHANGED, Cause.URL_SIGNATURE, place, 1)
    said = changed(dialect, shows("https://x.example/b"), before=shows("https://x.example/a"))
    assert said[1:] == (Reason.MESSAGES_CHANGED, Cause.IMAGE, place, 1)


def sets(**fields: Any) -> Callable[[Body], None]:
    return lambda body: body.update(copy.deepcopy(fields))


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
PARAMETERS = [
    ("anthropic", sets(tool_choice={"type": "any"}), Cause.TOOL_CHOICE, "tool_choice"),
    ("anthropic", sets(thinking={"type": "adaptive"}), Cause.THINKING, "thinking"),
    ("anthropic", sets(output_config={"effort": "low"}), Cause.REASONING_EFFORT, "output_config.effort"),
    ("anthropic", sets(output_config={"format": SCHEMA}), Cause.RESPONSE_FORMAT, "output_config.format"),
    ("anthropic", sets(speed="fast"), Cause.SPEED, "speed"),
    ("openai_chat", sets(tool_choice="required"), Cause.TOOL_CHOICE, "tool_choice"),
    ("openai_chat", sets(response_format=SCHEMA), Cause.RESPONSE_FORMAT, "response_format"),
    ("openai_chat", sets(reasoning_effort="low"), Cause.REASONING_EFFORT, "reasoning_effort"),
    ("openai_chat", sets(verbosity="low"), Cause.VERBOSITY, "verbosity"),
    ("openai_chat", sets(parallel_tool_calls=False), None, "parallel_tool_calls"),
    ("openai_responses", sets(tool_choice="required"), Cause.TOOL_CHOICE, "tool_choice"),
    ("openai_responses", sets(text={"format": SCHEMA}), Cause.RESPONSE_FORMAT, "text.format"),
    ("openai_responses", sets(text={"verbosity": "low"}), Cause.VERBOSITY, "text.verbosity"),
    ("openai_responses", sets(reasoning={"effort": "low"}), Cause.REASONING_EFFORT, "reasoning.effort"),
    ("openai_responses", sets(parallel_tool_calls=False), None, "parallel_tool_calls"),
    ("openai_responses", sets(context_management=[{"type": "compaction"}]), None, "context_management"),
    ("openai_responses", sets(service_tier="flex"), Cause.SERVICE_TIER, "service_tier"),
]


@pytest.mark.parametrize(("dialect", "edit", "cause", "path"), PARAMETERS)
def test_a_parameter_of_the_cache_key(
    dialect: str, edit: Callable[[Body], None], cause: Cause | None, path: str
) -> None:
    """Text is equal; a parameter that the provider renders into the prompt is not."""
    assert changed(dialect, edit) == Verdict(Status.MISS, Reason.PARAMETERS_CHANGED, cause, path, None)


@pytest.mark.parametrize(("dialect", "edit", "cause", "path"), PARAMETERS[:16])
def test_a_parameter_that_is_dropped(
    dialect: str, edit: Callable[[Body], None], cause: Cause | None, path: str
) -> None:
    """Leaving it out for one turn is the same change."""

    def back(body: Body) -> None:
        plain = BODIES[dialect](5)
        for field in body.keys() - plain.keys():
            del body[field]

    assert changed(dialect, back, before=edit) == Verdict(Status.MISS, Reason.PARAMETERS_CHANGED, cause, path, None)


# --- The other reasons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_model(dialect: str) -> None:
    """Caches are kept per model."""
    said = changed(dialect, sets(model="claude-opus-5-5" if dialect == "anthropic" else "gpt-4.1-mini"))
    assert said == Verdict(Status.MISS, Reason.MODEL_CHANGED)


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_another_cache_key(dialect: str) -> None:
    """A key derived from the request sends every request to another machine."""
    said = changed(dialect, sets(prompt_cache_key="request-3"), before=sets(prompt_cache_key="agent"))
    assert said == Verdict(Status.MISS, Reason.CACHE_KEY_CHANGED)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("elsewhere", [{"host": "api.eu.example.com"}, {"credential": "theirs"}], ids=str)
def test_another_account_or_endpoint(dialect: str, elsewhere: dict[str, str]) -> None:
    """The same conversation, continued where nobody has heard of it."""
    client = Client(dialect)
    client.send(BODIES[dialect](3))
    assert client.send(BODIES[dialect](5), **elsewhere) == Verdict(Status.MISS, Reason.SCOPE_CHANGED)


EXPIRY = [
    ("anthropic", sets(), 300),
    ("anthropic", sets(cache_control={"type": "ephemeral", "ttl": "1h"}), 3600),
    ("openai_chat", sets(), 600),
    ("openai_chat", sets(model="gpt-5.6"), 1800),
    ("openai_chat", sets(prompt_cache_retention="24h"), 86_400),
    ("openai_responses", sets(model="gpt-5.6", prompt_cache_options={"ttl": "12h"}), 43_200),
]


@pytest.mark.parametrize(("dialect", "how", "ttl"), EXPIRY)
def test_a_pause_longer_than_the_lifetime(dialect: str, how: Callable[[Body], None], ttl: int) -> None:
    """Alive to the last second of its lifetime, counted from its last use."""
    client = Client(dialect)
    said = []
    for length, pause in ((1, 0), (3, ttl), (3, ttl), (5, ttl + 1)):
        body = BODIES[dialect](length)
        how(body)
        said.append(client.send(body, after=pause))
    assert said[1:] == [Verdict(Status.HIT), Verdict(Status.HIT), Verdict(Status.MISS, Reason.TTL_EXPIRED)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_requests_at_once(dialect: str) -> None:
    """What the first one writes cannot be read before its response begins."""
    client = Client(dialect)
    first = client.start(BODIES[dialect](1))
    second = client.start(BODIES[dialect](1), after=0.1)
    total = second.usage[0]
    client.finish(first)
    missed = wire_usage(dialect, total, 0, total if dialect == "anthropic" else 0)
    assert client.finish(second, missed) == Verdict(Status.MISS, Reason.CONCURRENT_WRITE)


def spread(count: int) -> Body:
    """A conversation of so many blocks, the last of them marked."""
    body = anthropic_body(1)
    del body["cache_control"]
    words = [f"Message number {n} of a long and winding conversation about cats." for n in range(count)]
    body["messages"] = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns(*words)]
    body["messages"][-1]["content"][0]["cache_control"] = dict(EPHEMERAL)
    return body


@pytest.mark.parametrize(
    ("more", "expected"), [(19, (Status.HIT, None)), (20, (Status.MISS, Reason.LOOKBACK_EXCEEDED))]
)
def test_twenty_positions_are_searched(more: int, expected: tuple[Status, Reason | None]) -> None:
    """The breakpoint itself is the first of them."""
    client = Client()
    client.send(spread(3))
    assert client.send(spread(3 + more))[:2] == expected


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unchanged_prefix_that_was_not_read(dialect: str) -> None:
    """The prefix is the same, in scope and in time: the provider no longer held it."""
    client = Client(dialect)
    client.send(BODIES[dialect](1))
    said = client.send(BODIES[dialect](3), wire_usage(dialect, 2300, 0, 2300 if dialect == "anthropic" else 0))
    assert said == Verdict(Status.MISS, Reason.PROVIDER_EVICTED)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 90, "prompt_tokens": 90}], ids=str)
def test_no_usage_is_no_miss(dialect: str, usage: Body | None) -> None:
    """Absent is not zero."""
    client = Client(dialect)
    client.send(BODIES[dialect](1))
    assert client.send(BODIES[dialect](3), usage) == Verdict(Status.UNKNOWN, Reason.USAGE_NOT_REPORTED)


def test_nothing_marked() -> None:
    """Where the provider does not cache by itself, a request that marks nothing cannot be cached."""
    client = Client()
    for length in (1, 3):
        body = anthropic_body(length)
        del body["cache_control"]
        assert client.send(body) == Verdict(Status.UNCACHEABLE, Reason.BREAKPOINT_MISSING)


def test_a_marker_that_got_lost() -> None:
    """Earlier turns were marked: what this one would have read is lost."""
    assert changed("anthropic", lambda body: body.pop("cache_control")) == Verdict(
        Status.MISS, Reason.BREAKPOINT_MISSING
    )


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_explicit_mode_without_breakpoints(dialect: str) -> None:
    """From GPT-5.6 on an application can switch caching off; then nothing is expected of it."""
    body = BODIES[dialect](3) | {"model": "gpt-5.6", "prompt_cache_options": {"mode": "explicit"}}
    assert Client(dialect).send(body) == Verdict(Status.UNCACHEABLE, Reason.BREAKPOINT_MISSING)


SHORT = {"model": "claude-opus-5", "cache_control": EPHEMERAL, "messages": turns("Hello!")}
SHORT_MARK = {
    "model": "claude-opus-5",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": EPHEMERAL}],
    "messages": turns(prose("a long question")),
}


@pytest.mark.parametrize("body", [SHORT, SHORT_MARK], ids=["the prompt", "the marked part"])
def test_below_the_minimum(body: Body) -> None:
    """Too short to be cached is nobody's fault, however often it is sent."""
    client = Client()
    for _ in range(3):
        assert client.send(body) == Verdict(Status.UNCACHEABLE, Reason.BELOW_MINIMUM)


def test_every_reason_and_cause_is_said_by_some_test() -> None:
    """The tables of this file cover the enumerations: a new member needs a case."""
    tests = Path(__file__).parent
    source = "".join(
        file.read_text(encoding="utf-8") for file in (*tests.glob("test_*.py"), *tests.glob("diagnosis/*.py"))
    )
    assert [one for one in Reason if f"Reason.{one.name}" not in source] == []
    assert [one for one in Cause if f"Cause.{one.name}" not in source] == []


# --- What is never a miss -------------------------------------------------------------------------------------

BLAME = {Status.MISS, Status.PARTIAL}


def ask(dialect: str, text: str, length: int = 1) -> Body:
    """A request whose newest message is this text."""
    body = BODIES[dialect](length)
    messages(body)[-1]["content"] = text
    return body


def with_system(body: Body, text: str) -> Body:
    """The request of another agent: its own prompt, no tools."""
    rewrite_system(body, lambda _: text)
    if "system" in body:
        del body["system"][1:]
    del body["tools"]
    return body


OTHERS = prose("another agent's work")
OTHER_QUESTION = "Something that somebody else wants to know, at another time and place."
LAST_QUESTION = "And a third thing, which neither of the two has ever thought of asking."


def first_request(dialect: str) -> list[Body]:
    return [BODIES[dialect](1)]


def identical(dialect: str) -> list[Body]:
    return [BODIES[dialect](3)] * 3


def clean_append(dialect: str) -> list[Body]:
    return [BODIES[dialect](length) for length in (1, 3, 5)]


def rewind(dialect: str) -> list[Body]:
    return [BODIES[dialect](length) for length in (5, 3, 1)]


def regenerated(dialect: str) -> list[Body]:
    return [BODIES[dialect](3), ask(dialect, THIRD + " Please.", 3), ask(dialect, OTHER_QUESTION, 3)]


def interleaved(dialect: str) -> list[Body]:
    other = [ask(dialect, OTHER_QUESTION, 1), ask(dialect, OTHER_QUESTION, 1)]
    messages(other[1]).extend(turns("", "Nobody knows that.", LAST_QUESTION)[1:])
    return [BODIES[dialect](1), other[0], BODIES[dialect](3), other[1], BODIES[dialect](5)]


def constant_date(dialect: str) -> list[Body]:
    bodies = clean_append(dialect)
    for body in bodies:
        rewrite_system(body, lambda text: f"Today is Saturday, 2026-11-21, 14:05.\n{text}")
    return bodies


def clock_in_newest_message(dialect: str) -> list[Body]:
    """Each message keeps the time it was sent with; only the newest has a new one."""
    bodies = clean_append(dialect)
    for body in bodies:
        for minute, message in enumerate(messages(body)[leading(body) :]):
            message["content"] += f"\n(sent on 2026-11-21 at 14:{minute:02}:17)"
    return bodies


def clock_in_the_question(dialect: str) -> list[Body]:
    """Asked again a minute later, as a scheduled job does."""
    return [ask(dialect, f"{FIRST}\nIt is 2026-11-21T14:{minute:02}:00Z.") for minute in range(3)]


def two_agents(dialect: str) -> list[Body]:
    other = [with_system(ask(dialect, OTHER_QUESTION), OTHERS), with_system(ask(dialect, LAST_QUESTION), OTHERS)]
    return [BODIES[dialect](1), other[0], BODIES[dialect](3), other[1]]


def two_agents_same_question(dialect: str) -> list[Body]:
    """A guard and the agent it guards are asked the same."""
    both = [with_system(BODIES[dialect](1), text) for text in (SYSTEM, OTHERS)]
    return [*both, with_system(BODIES[dialect](3), SYSTEM)]


def two_models(dialect: str) -> list[Body]:
    """An evaluation asks two models; their conversations go on."""
    models = ("claude-opus-5", "claude-sonnet-5") if dialect == "anthropic" else ("gpt-4.1", "gpt-5")
    return [BODIES[dialect](length) | {"model": model} for length in (1, 3) for model in models]


def new_conversation(dialect: str) -> list[Body]:
    return [BODIES[dialect](5), ask(dialect, OTHER_QUESTION), ask(dialect, LAST_QUESTION)]


def canned_request(dialect: str) -> list[Body]:
    """A button of the application: it stands late in one conversation, and first in the next."""
    late = BODIES[dialect](3)
    messages(late)[-1]["content"] = OTHER_QUESTION
    return [BODIES[dialect](1), late, ask(dialect, OTHER_QUESTION)]


def another_document(dialect: str) -> list[Body]:
    """One instruction under every document of a pile."""
    kind = "input_text" if dialect == "openai_responses" else "text"
    pile = []
    for number in range(3):
        body = BODIES[dialect](1)
        parts = [
            prose(f"document {number}", 40),
            "Summarise the document above in three sentences, and name its author.",
        ]
        messages(body)[-1]["content"] = [{"type": kind, "text": text} for text in parts]
        pile.append(body)
    return pile


def letter(dialect: str, number: int, *then: str) -> Body:
    """A conversation that a form opens: what is written around a few words of its own is always the same."""
    opener = "\n".join([f"Ticket {number}: the customer wrote this.", *prose("the terms of the shop", 60).split("\n")])
    body = BODIES[dialect](1)
    messages(body)[leading(body) :] = turns(opener, *then)
    return body


def one_of_several_workers(dialect: str) -> list[Body]:
    """It meets every conversation of a template at its second turn: others have seen the first."""
    return [
        letter(dialect, 4711, "Where is the parcel now?", "It went to Bremen on Monday."),
        letter(dialect, 4712, "Which size did you order?", "Forty two, in blue please."),
    ]


def one_of_several_workers_later(dialect: str) -> list[Body]:
    """The same, and one of the conversations began here."""
    known = [letter(dialect, 4711), letter(dialect, 4711, "Where is the parcel now?", "It went to Bremen on Monday.")]
    return [*known, letter(dialect, 4712, "Which size did you order?", "Forty two, in blue please.")]


def canned_answer(dialect: str) -> list[Body]:
    """The application answers every document with the same words of its own before it asks."""
    pile = []
    for number in range(3):
        body = BODIES[dialect](1)
        told = "I have read the document and am ready for your questions about it. Please go ahead."
        messages(body)[leading(body) :] = turns(prose(f"document {number}", 40), told, f"What is rule {number} about?")
        pile.append(body)
    return pile


def panel(dialect: str) -> list[Body]:
    """Experts, each with a prompt of its own, are shown the same conversation."""
    return [
        with_system(BODIES[dialect](3), prose(f"the views of {expert}")) for expert in ("a lawyer", "a doctor", "me")
    ]


def handed_over(dialect: str) -> list[Body]:
    """What one agent was told, another works on; both do so for every customer."""
    steps = []
    for customer in range(2):
        for agent in ("the one who drafts", "the one who checks"):
            body = with_system(BODIES[dialect](3), prose(agent))
            messages(body)[leading(body)]["content"] = f"I am customer {customer}. {FIRST}"
            steps.append(body)
    return steps


CLEAN = [
    *(first_request, identical, clean_append, rewind, regenerated, interleaved, constant_date),
    *(clock_in_newest_message, clock_in_the_question, two_agents, two_agents_same_question, two_models),
    *(new_conversation, canned_request, another_document, one_of_several_workers, one_of_several_workers_later),
    *(canned_answer, panel, handed_over),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("traffic", CLEAN, ids=lambda traffic: traffic.__name__)
def test_clean_traffic_is_never_blamed(dialect: str, traffic: Callable[[str], list[Body]]) -> None:
    """Requests as a stable application sends them, read as an ideal cache would."""
    client = Client(dialect)
    said = [client.send(body) for body in traffic(dialect)]
    assert [one.reason for one in said] == [None] * len(said)
    assert BLAME.isdisjoint(one.status for one in said)


SHOT: Body = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 300}}
CITED: Body = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": prose("a report", 20)},
    "citations": {"enabled": True},
}


@pytest.mark.parametrize(
    ("block", "cause"), [(SHOT, Cause.IMAGE), (CITED, Cause.DOCUMENT)], ids=["picture", "document"]
)
def test_the_first_picture_cuts_all_messages(block: Body, cause: Cause) -> None:
    """And so does the last one that goes. It is told as what it is, where it is."""
    client = Client()
    with_it = [block, {"type": "text", "text": FIFTH}]
    bodies = [anthropic_body(3), anthropic_body(5)]
    bodies[1]["messages"][-1]["content"] = with_it
    client.send(bodies[0])
    said = client.send(bodies[1])
    assert (said.reason, said.cause, said.path) == (Reason.MESSAGES_CHANGED, cause, "messages[4].content[0]")
    client = Client()
    client.send(anthropic_body(1) | {"messages": [{"role": "user", "content": with_it}]})
    body = anthropic_body(3)
    body["messages"][0]["content"] = with_it[1:]
    said = client.send(body)
    assert (said.reason, said.cause, said.path) == (Reason.MESSAGES_CHANGED, cause, "messages[0].content[0]")


@pytest.mark.parametrize("dialect", ["anthropic", "openai_responses"])
def test_a_reminder_that_takes_the_mark_along(dialect: str) -> None:
    """It stands, marked, behind the newest question, and is not resent: what is in front is written each time."""
    note = "Remember: answer in one sentence, never promise a date, and name the page of the manual that you used."
    client = Client(dialect)
    said = []
    for length in (21, 23, 25, 27):
        talk = turns(*(f"{prose(f'turn {turn}', 4)}" for turn in range(length)))
        kind, mark = ("text", {"cache_control": EPHEMERAL}) if dialect == "anthropic" else ("input_text", {})
        question = [{"type": kind, "text": talk[-1]["content"]}, {"type": kind, "text": note, **mark}]
        talk[-1] = {"role": "user", "content": question}
        if dialect == "anthropic":
            front = [{"type": "text", "text": SYSTEM, "cache_control": EPHEMERAL}]
            body = {"model": "claude-opus-5", "system": front, "messages": talk}
        else:
            body = {"model": "gpt-5.6", "instructions": SYSTEM, "input": talk}
        said.append(client.send(body).reason)
    wrong = Reason.BREAKPOINT_MISPLACED if dialect == "anthropic" else Reason.BREAKPOINT_MISSING
    assert said == [None, None, wrong, wrong]


CANNED = "I have read the document and am ready for your questions about it. Please go ahead."


def about(document: str, *more: str) -> Body:
    body = chat_body(1)
    messages(body)[1:] = turns(prose(document, 40), CANNED, *more)
    return body


@pytest.mark.parametrize(
    ("earlier", "later", "reason"),
    [("", "", None), ("a", "b", None), ("a", "a", Reason.MESSAGES_CHANGED), ("a", "", None)],
    ids=["nobody says", "two conversations", "one conversation", "one has no name"],
)
def test_the_name_of_a_conversation_tells_a_rewritten_opener_from_another(
    earlier: str, later: str, reason: Reason | None
) -> None:
    """A message that both have shows little; what the application says shows it all."""
    client = Client("openai_chat")
    client.send(about("one", "What is the first rule?"), conversation=earlier)
    said = client.send(about("another", "And what is the second about?"), conversation=later)
    assert said.reason is reason


def test_who_goes_on_resends_the_newest_message() -> None:
    """Opener and agent have changed; that the conversation went on shows that it is the same."""
    client = Client("openai_chat")
    client.send(about("one", "What is the first rule?"))
    body = about("another", "What is the first rule?", "It says that one has to ring twice.", "And the second?")
    assert client.send(body).reason is Reason.MESSAGES_CHANGED


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 20_000}}
JAPANESE = "お客様には丁寧に答え、店の決まりに従うこと。" * 60


@pytest.mark.parametrize(
    ("front", "more", "total"),
    [
        (
            [{"role": "system", "content": JAPANESE}],
            {"role": "user", "content": prose("an English letter", 150)},
            20_000,
        ),
        (
            [{"role": "user", "content": [PICTURE, {"type": "text", "text": FIRST}]}],
            {"role": "assistant", "content": prose("what the picture shows", 60)},
            6_200,
        ),
    ],
    ids=["a dense script", "a picture"],
)
def test_a_beginning_has_no_more_tokens_than_a_prompt_that_consists_of_it(
    front: list[Body], more: Body, total: int
) -> None:
    """Bytes are no measure where a script or a picture takes more or fewer tokens than the rest."""
    client = Client("openai_chat")
    ask_ = {"role": "user", "content": "What follows from this?"}
    client.send({"model": "gpt-4.1", "messages": [*front, ask_]}, counted(1719, 0, 0, "openai_chat"))
    said = client.send({"model": "gpt-4.1", "messages": [*front, more, ask_]}, counted(total, 1664, 0, "openai_chat"))
    assert (said.status, said.reason) == (Status.HIT, None)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("conversation", "confidence"), [("", Confidence.POSSIBLE), ("ticket", Confidence.LIKELY)], ids=["", "named"]
)
def test_an_opener_that_was_edited_is_a_guess_unless_its_conversation_has_a_name(
    dialect: str, conversation: str, confidence: Confidence
) -> None:
    """An edited opener, and one of a template whose first turn another worker saw, look alike."""
    client = Client(dialect)
    client.send(letter(dialect, 4711), conversation=conversation)
    second = letter(dialect, 4712, "Where is the parcel now?", "It went to Bremen on Monday.")
    assert client.send(second, conversation=conversation).reason is Reason.MESSAGES_CHANGED
    assert client.full is not None
    assert client.full.confidence is confidence


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("seed", range(20))
def test_a_busy_hour_of_clean_traffic(dialect: str, seed: int) -> None:
    """Several agents, many conversations at once: begun, continued, repeated, their last turn taken back."""
    chance = random.Random(seed)
    fresh = (prose(f"thought {number}", chance.choice([1, 1, 2, 20])) for number in itertools.count())

    def words() -> str:
        return chance.choice(["yes", "ok, go on"]) if chance.random() < 0.4 else next(fresh)

    agents = []
    for number in range(chance.randint(1, 3)):
        body = BODIES[dialect](1) | {"model": chance.choice(MODELS[dialect])}
        rewrite_system(body, lambda _, number=number: prose(f"the work of agent {number}"))
        body["tools"] = body["tools"][: chance.randint(1, 3)]
        agents.append(body)
    client = Client(dialect)
    talks: list[Body] = []
    for _ in range(25):
        if not talks or chance.random() < 0.3:
            talks.append(copy.deepcopy(chance.choice(agents)))
            messages(talks[-1])[-1]["content"] = words()
        which = chance.randrange(len(talks))
        step = chance.choice(["append", "append", "repeat", "take back"])
        if step == "append":
            talks[which] = appended(talks[which], words(), words())
        elif step == "take back":
            talks[which] = copy.deepcopy(talks[which])
            messages(talks[which])[-1]["content"] = words()
        said = client.send(talks[which], after=chance.choice([0.5, 5]))
        assert said.status not in BLAME, said
        assert said.reason in (None, Reason.BELOW_MINIMUM), said


def same_tools(body: Body, text: str) -> Body:
    """Another agent that was given the same tools."""
    with_tools = body["tools"]
    return with_system(body, text) | {"tools": with_tools}


def alike_tools(body: Body, text: str) -> Body:
    """Another agent whose tools take the same arguments, as the tools of one framework do."""
    tools = copy.deepcopy(body["tools"])
    with_system(body, text)
    body["tools"] = tools
    for index, name in enumerate(("plans", "prices", "pupils")):
        definition(body, index).update(name=name, description=f"Writes {name}.\n{prose(name, 8)}")
    return body


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "agent",
    [same_tools, alike_tools],
)
def test_two_agents_with_tools_are_not_versions_of_one(dialect: str, agent: Callable[[Body, str], Body]) -> None:
    """Nothing that they were told is shared."""
    client = Client(dialect)
    for body in (ask(dialect, FIRST), agent(ask(dialect, OTHER_QUESTION), OTHERS)):
        if "system" in body:
            body["system"][-1]["cache_control"] = EPHEMERAL
        assert client.send(body).status not in BLAME


SAMPLING: dict[str, list[Body]] = {
    "anthropic": [
        *({"temperature": 0.2}, {"top_p": 0.9}, {"top_k": 5}, {"max_tokens": 7}, {"stop_sequences": ["END"]}),
        *({"metadata": {"user_id": "u2"}}, {"stream": True}, {"thinking": {"type": "disabled"}}),
        *({"tool_choice": {"type": "auto"}}, {"speed": "standard"}, {"service_tier": "auto"}),
    ],
    "openai_chat": [
        *({"temperature": 0.2}, {"top_p": 0.9}, {"max_completion_tokens": 7}, {"stop": ["END"]}, {"seed": 3}),
        *({"metadata": {"a": "b"}}, {"stream": True}, {"n": 2}, {"user": "u2"}, {"logprobs": True}, {"store": True}),
        *({"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"response_format": {"type": "text"}}),
        *({"verbosity": "medium"}, {"stream": True, "stream_options": {"include_usage": True}}),
    ],
    "openai_responses": [
        *({"temperature": 0.2}, {"top_p": 0.9}, {"max_output_tokens": 7}, {"metadata": {"a": "b"}}),
        *({"stream": True}, {"store": False}, {"user": "u2"}, {"include": ["reasoning.encrypted_content"]}),
        *({"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"text": {"format": {"type": "text"}}}),
    ],
}


@pytest.mark.parametrize(
    ("dialect", "fields"), [(dialect, fields) for dialect, rows in SAMPLING.items() for fields in rows], ids=str
)
def test_what_the_cache_key_does_not_contain(dialect: str, fields: Body) -> None:
    """Sampling, limits, metadata, delivery, and defaults said aloud leave the prefix as it was."""
    assert changed(dialect, sets(**fields)) == Verdict(Status.HIT)


def rolled(length: int, *, ttl: str = "5m") -> Body:
    """A marker at the end of the system prompt, and one that moves to the newest message with every turn."""
    body = anthropic_body(length)
    del body["cache_control"]
    body["system"][-1]["cache_control"] = {"type": "ephemeral", "ttl": ttl}
    text = body["messages"][-1]["content"]
    body["messages"][-1]["content"] = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    return body


def test_a_marker_that_rolls_forward() -> None:
    """Markers are no text, and a string is a text block: the older turns are what they were."""
    client = Client()
    assert [client.send(rolled(length)).status for length in (1, 3, 5)] == [Status.COLD, Status.HIT, Status.HIT]


@pytest.mark.parametrize("place", ["tool_result", "function_call_output"])
def test_a_marker_that_rolls_over_results_of_tools(place: str) -> None:
    """The parts of a result can be marked too."""
    client = Client("anthropic" if place == "tool_result" else "openai_responses")
    said = []
    for rounds in (1, 2, 3):
        parts: list[Body] = [{"type": "input_text", "text": f"Result {n}: {prose(str(n), 3)}"} for n in range(rounds)]
        if place == "tool_result":
            body = anthropic_body(1)
            del body["cache_control"]
            for number, part in enumerate(parts):
                call = {"type": "tool_use", "id": f"t{number}", "name": "people", "input": {}}
                result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": [part | {"type": "text"}]}
                body["messages"] += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
            body["messages"][-1]["content"][0]["content"][0]["cache_control"] = EPHEMERAL
        else:
            body = responses_body(1) | {"model": "gpt-5.6", "prompt_cache_options": {"mode": "explicit"}}
            for number, part in enumerate(parts):
                called = {"type": "function_call", "call_id": f"t{number}", "name": "people", "arguments": "{}"}
                body["input"] += [
                    called,
                    {"type": "function_call_output", "call_id": f"t{number}", "output": [dict(part)]},
                ]
            body["input"][-1]["output"][0]["prompt_cache_breakpoint"] = {"mode": "explicit"}
        said.append(client.send(body).status)
    assert said == [Status.COLD, Status.HIT, Status.HIT]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_call_that_failed_leaves_nothing_to_read(dialect: str) -> None:
    """The provider was overloaded; what its answer would have stored is not there for the second attempt."""
    client = Client(dialect)
    failed = client.start(BODIES[dialect](1))
    client.memory.ended(failed.sight, None, "", None)
    total, *_ = failed.usage
    written = wire_usage(dialect, total, 0, total if dialect == "anthropic" else 0)
    assert client.send(BODIES[dialect](1), written) == Verdict(Status.COLD)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_call_that_failed_takes_nothing_away(dialect: str) -> None:
    """What earlier turns stored is still expected, and its loss still explained."""
    client = Client(dialect)
    client.send(BODIES[dialect](1))
    failed = client.start(BODIES[dialect](3))
    client.memory.ended(failed.sight, None, "", None)
    assert client.send(BODIES[dialect](3)) == Verdict(Status.HIT)
    failed = client.start(BODIES[dialect](5))
    client.memory.ended(failed.sight, None, "", None)
    assert client.send(BODIES[dialect](5), after=100_000) == Verdict(Status.MISS, Reason.TTL_EXPIRED)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_ran_out_is_linked_to_who_left_it(dialect: str) -> None:
    """Not to the call itself, which by now is the newest with this prompt."""
    client = Client(dialect)
    client.send(BODIES[dialect](3))
    client.send(BODIES[dialect](3), after=100_000)
    assert client.full.reason is Reason.TTL_EXPIRED
    assert client.full.link == Link(1, 1)


def test_a_prefix_that_an_earlier_request_made_readable() -> None:
    """Where a finished request stored the prefix, another one still on its way does not explain a miss."""
    client = Client("openai_chat")
    client.send(chat_body(1))
    client.start(chat_body(1))
    said = client.send(chat_body(1), wire_usage("openai_chat", 2000, 0, 0), after=0.1)
    assert said == Verdict(Status.MISS, Reason.PROVIDER_EVICTED)


# --- History that the server holds ----------------------------------------------------------------------------


def continued(previous: str, text: str, **fields: Any) -> Body:
    body = {"model": "gpt-5.4", "instructions": SYSTEM, "input": text, **fields}
    return body | {"previous_response_id": previous} if previous else body


def counted(total: int, read: int, written: int = 0, dialect: str = "openai_responses") -> Body:
    return wire_usage(dialect, total, read, written)


def thread(previous: str, text: str) -> Body:
    body = anthropic_body(1)
    body["messages"] = turns(text)
    body["thread"] = {"type": "continue", "previous_message_id": previous} if previous else {"type": "create"}
    return body


class TestHeldHistory:
    """Only the newest turn is on the wire; the rest is known by the id of the response it ends with."""

    def test_previous_response(self) -> None:
        """A known id says how much should be read, and by which call it was stored."""
        client = Client("openai_responses")
        assert client.send(continued("", FIRST), counted(1600, 0), response_id="r1") == Verdict(Status.COLD)
        assert client.send(continued("r1", THIRD), counted(1700, 1536), response_id="r2") == Verdict(Status.HIT)
        assert client.send(continued("r2", FIFTH), counted(1800, 0)) == Verdict(Status.MISS, Reason.UNKNOWN)
        assert client.full is not None
        assert (client.full.expected, client.full.lost, client.full.link) == (1700, 1700, Link(1, 2))

    def test_branches(self) -> None:
        """Continuing an earlier response twice is no change of the history."""
        client = Client("openai_responses")
        client.send(continued("", FIRST), counted(1600, 0), response_id="r1")
        for text in (SECOND, THIRD, FIFTH):
            assert client.send(continued("r1", text), counted(1700, 1536)) == Verdict(Status.HIT)

    def test_unknown_id(self) -> None:
        """A response of another process: nothing is expected, nothing is blamed."""
        client = Client("openai_responses")
        client.send(continued("", FIRST), counted(1600, 0), response_id="r1")
        assert client.send(continued("elsewhere", THIRD), counted(1700, 0)) == Verdict(Status.COLD)
        assert client.send(continued("elsewhere", THIRD), counted(1700, 1664)) == Verdict(Status.HIT)

    def test_conversation(self) -> None:
        """The id of a conversation stays the same from turn to turn."""
        client = Client("openai_responses")
        said = [
            client.send(continued("", text, conversation={"id": "c1"}), counted(total, read))
            for text, total, read in ((FIRST, 1600, 0), (THIRD, 1700, 1536), (FIFTH, 1800, 1664))
        ]
        assert said == [Verdict(Status.COLD), Verdict(Status.HIT), Verdict(Status.HIT)]

    def test_anthropic_thread(self) -> None:
        """Continued with a known id and with an unknown one."""
        client = Client()
        assert client.send(thread("", FIRST), counted(2200, 0, 2200, "anthropic"), response_id="m1")[0] == Status.COLD
        assert client.send(thread("m1", THIRD), counted(2300, 2200, 100, "anthropic")) == Verdict(Status.HIT)
        assert client.send(thread("elsewhere", THIRD), counted(2300, 0, 2300, "anthropic")) == Verdict(Status.COLD)

    def test_instructions_that_are_sent_again(self) -> None:
        """They are on the wire with every turn, and so is a change of theirs."""
        client = Client("openai_responses")
        client.send(continued("", FIRST), counted(1600, 0), response_id="r1")
        body = continued("r1", THIRD, instructions=SYSTEM.replace("Rule 9 on", "Law 9 on"))
        assert client.send(body, counted(1700, 0)) == Verdict(
            Status.MISS, Reason.SYSTEM_CHANGED, Cause.EDITED, "instructions", 9
        )

    def test_another_model(self) -> None:
        """The server moves the history; the cache stays behind."""
        client = Client("openai_responses")
        client.send(continued("", FIRST), counted(1600, 0), response_id="r1")
        said = client.send(continued("r1", THIRD, model="gpt-5.3"), counted(1700, 0))
        assert said == Verdict(Status.MISS, Reason.MODEL_CHANGED)

    def test_a_pause(self) -> None:
        """Server-held history does not keep the cache alive."""
        client = Client("openai_responses")
        client.send(continued("", FIRST), counted(1600, 0), response_id="r1")
        said = client.send(continued("r1", THIRD), counted(1700, 0), after=3600)
        assert said == Verdict(Status.MISS, Reason.TTL_EXPIRED)


# --- How much -------------------------------------------------------------------------------------------------


class TestAmounts:
    """Reported counts where there are any; estimates are judged with more patience."""

    def send(self, usage: Body, *, length: int = 3) -> diagnosis.Diagnosis:
        client = Client()
        client.send(anthropic_body(1), counted(2250, 0, 2240, "anthropic"))
        client.send(anthropic_body(length), usage)
        assert client.full is not None
        return client.full

    @pytest.mark.parametrize(
        ("read", "status", "lost"),
        [
            (2240, Status.HIT, 0),
            (2128, Status.HIT, 0),  # 95 %
            (2127, Status.PARTIAL, 113),
            (1, Status.PARTIAL, 2239),
            (0, Status.MISS, 2240),
        ],
    )
    def test_five_per_cent_may_be_missing(self, read: int, status: Status, lost: int) -> None:
        """What the earlier request stored was reported; a hit reads it but for a twentieth."""
        said = self.send(counted(2400, read, 2400 - read, "anthropic"))
        assert (said.status, said.expected, said.lost) == (status, 2240, lost)

    def test_more_than_expected_is_a_hit(self) -> None:
        """Another process had stored more."""
        assert self.send(counted(2400, 2390, 10, "anthropic")).status is Status.HIT

    def test_the_link_leads_to_the_request_it_should_have_matched(self) -> None:
        """A hit has none, a miss has one."""
        assert self.send(counted(2400, 2240, 160, "anthropic")).link is None
        assert self.send(counted(2400, 0, 2400, "anthropic")).link == Link(1, 1)
        said = changed_in(Client(), replaced("Rule 7 on", "Law 7 on"))
        assert said.link == Link(1, 2)

    def test_no_more_is_lost_than_was_sent(self) -> None:
        """The request became shorter: what it no longer contains was not paid for."""
        client = Client()
        client.send(anthropic_body(5), counted(9000, 0, 9000, "anthropic"))
        body = anthropic_body(3)
        del body["tools"]
        client.send(body, counted(3000, 0, 3000, "anthropic"))
        assert client.full is not None
        assert (client.full.reason, client.full.expected, client.full.lost) == (Reason.TOOLS_CHANGED, 9000, 3000)

    @pytest.mark.parametrize("conversation", ["", "ticket-17"])
    def test_naming_the_conversation_changes_no_count(self, conversation: str) -> None:
        """A name is not server-held history: reported counts stay reported counts."""
        client = Client()
        client.send(anthropic_body(1), conversation=conversation)
        second = client.start(anthropic_body(3), conversation=conversation)
        client.finish(second)
        _, read, written = second.usage
        client.send(anthropic_body(5), counted(2400, 0, 2400, "anthropic"), conversation=conversation)
        assert client.full is not None
        assert client.full.expected == read + written

    def test_granules(self) -> None:
        """A provider that reads in steps of 128 tokens may stop one step short."""
        client = Client("openai_chat")
        client.send(chat_body(1), counted(2000, 0, 0, "openai_chat"))
        assert client.send(chat_body(3), counted(2100, 1920, 0, "openai_chat")) == Verdict(Status.HIT)
        client = Client("openai_chat")
        client.send(chat_body(1), counted(2000, 0, 0, "openai_chat"))
        assert client.send(chat_body(3), counted(2100, 1024, 0, "openai_chat")) == Verdict(
            Status.PARTIAL, Reason.PROVIDER_EVICTED
        )

    def test_a_marked_system_prompt_survives_a_rewritten_history(self) -> None:
        """What the first marker covers is read; only the rest is lost."""
        client = Client()
        for length in (1, 3):
            client.send(rolled(length))
        body = rolled(5)
        body["messages"][0]["content"] = FIRST.replace("Leipzig", "Dresden")
        said = client.send(body)
        assert said == Verdict(Status.HIT)


def changed_in(client: Client, edit: Callable[[Body], object]) -> diagnosis.Diagnosis:
    """Two turns, and a third that is changed; the whole diagnosis."""
    for length in (1, 3):
        client.send(BODIES[client.dialect.name](length))
    body = BODIES[client.dialect.name](5)
    edit(body)
    client.send(body)
    assert client.full is not None
    return client.full


class TestHitDepth:
    """Which share of the message array lies inside the read prefix, as far as bytes tell."""

    def depth(self, dialect: str, body: Body, usage: Body) -> float | None:
        client = Client(dialect)
        call = client.start(body)
        found = client.dialect.usage(usage)
        assert found is not None
        return diagnosis.hit_depth(call.prompt, call.sight, found)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_bounds(self, dialect: str) -> None:
        """Nothing read is none of them; everything read is all."""
        assert self.depth(dialect, BODIES[dialect](5), counted(2000, 0, 0, dialect)) == 0.0
        assert self.depth(dialect, BODIES[dialect](5), counted(2000, 2000, 0, dialect)) == 1.0

    def test_all_but_the_newest(self) -> None:
        """Four of five messages."""
        client = Client()
        call = client.start(anthropic_body(5))
        older = client.dialect.prompt(anthropic_body(4))
        sizes = [sum(len(canonical(one)) for one in prompt.segments) for prompt in (older, call.prompt)]
        usage = client.dialect.usage(counted(sizes[1], sizes[0], 0, "anthropic"))
        assert usage is not None
        assert diagnosis.hit_depth(call.prompt, call.sight, usage) == pytest.approx(0.8)

    def test_a_message_read_in_part_is_not_counted(self) -> None:
        """Its first block is inside, its second is not."""
        body = anthropic_body(1)
        body["messages"][0]["content"] = [{"type": "text", "text": FIRST}, {"type": "text", "text": SYSTEM}]
        client = Client()
        call = client.start(body)
        sizes = list(itertools.accumulate(len(canonical(one)) for one in call.prompt.segments))
        usage = client.dialect.usage(counted(sizes[-1], sizes[-2], 0, "anthropic"))
        assert usage is not None
        assert diagnosis.hit_depth(call.prompt, call.sight, usage) == 0.0

    def test_unknown_where_the_server_holds_the_history(self) -> None:
        """One element is on the wire, and who knows how many are not."""
        body = continued("r1", THIRD)
        assert self.depth("openai_responses", body, counted(2000, 1000, 0)) is None


# --- Properties -----------------------------------------------------------------------------------------------

WORDS = st.text(alphabet='abc äß\n\t0123456789:-{}"\\\u00a0\u2028😀', max_size=60)
PASSAGES = st.builds(
    lambda topic, lines, word: prose(topic, lines) + word, st.sampled_from("ABCDEF"), st.integers(1, 60), WORDS
)
TEXTS = WORDS | PASSAGES


@st.composite
def bodies(draw: st.DrawFn, dialect: str) -> Body:
    """A request of some dialect: any number of tools and instructions, a conversation that ends with the user."""
    make = BODIES[dialect](1)
    body: Body = {"model": draw(st.sampled_from(MODELS[dialect]))}
    if draw(st.booleans()):
        body["tools"] = copy.deepcopy(make["tools"])[: draw(st.integers(1, 3))]
    system = draw(st.lists(TEXTS, max_size=3))
    talk = turns(*draw(st.lists(TEXTS, min_size=1, max_size=9).filter(lambda texts: len(texts) % 2)))
    if dialect == "anthropic":
        body["system"] = [{"type": "text", "text": text} for text in system]
        body["messages"] = talk
        if draw(st.booleans()):
            body["cache_control"] = dict(EPHEMERAL)
        elif system and draw(st.booleans()):
            body["system"][-1]["cache_control"] = dict(EPHEMERAL)
        if draw(st.booleans()):
            as_blocks(talk[-1])[-1]["cache_control"] = dict(EPHEMERAL)
    elif dialect == "openai_chat":
        body["messages"] = [{"role": "system", "content": text} for text in system] + talk
    else:
        body["instructions"] = "\n\n".join(system)
        body["input"] = talk
    return body


MODELS = {
    "anthropic": ["claude-opus-5", "claude-sonnet-5", "claude-haiku-4-5"],
    "openai_chat": ["gpt-4.1", "gpt-5.5", "gpt-5.6"],
    "openai_responses": ["gpt-4.1", "gpt-5.5", "gpt-5.6"],
}
ANY = st.sampled_from(DIALECTS).flatmap(lambda dialect: st.tuples(st.just(dialect), bodies(dialect)))


def as_blocks(message: Body) -> list[Body]:
    """The message's content as a list of blocks, which is the same prompt."""
    if isinstance(message["content"], str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    return message["content"]  # type: ignore[no-any-return]


def appended(body: Body, answer: str, question: str) -> Body:
    later = copy.deepcopy(body)
    messages(later).extend(turns("", answer, question)[1:])
    return later


def rolled_on(body: Body) -> Body:
    """The last message's marker, if any, moves to the new last message."""
    *older, newest = messages(body)
    lists = [message["content"] for message in older if isinstance(message["content"], list)]
    if [block.pop("cache_control") for blocks in lists for block in blocks if "cache_control" in block]:
        as_blocks(newest)[-1]["cache_control"] = dict(EPHEMERAL)
    return body


@given(ANY, TEXTS, TEXTS, st.sampled_from(["itself", "an append", "a rolled marker", "sampling parameters"]))
def test_what_a_stable_application_sends_next_is_never_a_miss(
    request_: tuple[str, Body], answer: str, question: str, then: str
) -> None:
    """Whatever was sent first, as an ideal cache answers it."""
    dialect, body = request_
    client = Client(dialect)
    later = copy.deepcopy(body)
    if then == "an append":
        later = appended(body, answer, question)
    elif then == "a rolled marker":
        later = rolled_on(appended(body, answer, question))
    elif then == "sampling parameters":
        later |= {"temperature": 0.3, "top_p": 0.5, "metadata": {"user_id": answer}}
    assert client.send(body).status not in BLAME
    said = client.send(later)
    assert said.status not in BLAME
    assert said.reason in (None, Reason.BELOW_MINIMUM, Reason.BREAKPOINT_MISSING)


SYSTEMS = {"anthropic": 2, "openai_chat": 1, "openai_responses": 1}


@given(st.sampled_from(DIALECTS), st.data())
def test_one_mutation_of_a_tool_or_system_text_is_placed_there(dialect: str, data: st.DataObject) -> None:
    """Anywhere in the text, by anything."""
    place = data.draw(st.integers(0, 2 + SYSTEMS[dialect]))
    inserted = data.draw(st.text(alphabet="xyz 0:\n", min_size=1, max_size=5))

    def mutate(text: str) -> str:
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        result = text[:at] + inserted + text[at + cut :]
        return result if result != text else text + "!"

    def edit(body: Body) -> None:
        if place < 3:
            tool = definition(body, place)
            tool["description"] = mutate(tool["description"])
        elif place == 4:
            body["system"][1]["text"] = mutate(body["system"][1]["text"])
        else:
            rewrite_system(body, mutate)

    said = changed(dialect, edit)
    paths = [f"tools[{n}]" for n in range(3)] + [SYSTEM_PATH[dialect], "system[1]"]
    assert said.status in BLAME
    assert said.path == paths[place]
    assert said.reason is (Reason.TOOLS_CHANGED if place < 3 else Reason.SYSTEM_CHANGED)
    assert said.cause is not None


@given(st.sampled_from(DIALECTS), st.permutations(range(5)).filter(lambda order: list(order) != sorted(order)))
def test_any_other_order_of_tools_is_reordered(dialect: str, order: list[int]) -> None:
    """Placed at the first tool that stands elsewhere."""

    def five(body: Body) -> None:
        for name in ("pupils", "parcels"):
            named(len(body["tools"]), name)(body)

    def shuffle(body: Body) -> None:
        body["tools"] = [body["tools"][index] for index in order]

    first = next(place for place, index in enumerate(order) if place != index)
    said = changed(dialect, shuffle, before=five)
    assert said == Verdict(Status.MISS, Reason.TOOLS_CHANGED, Cause.REORDERED, f"tools[{first}]")


@given(ANY, st.lists(st.sampled_from(["same", "append", "system", "tools", "wait", "cut"]), max_size=5), TEXTS)
@settings(max_examples=50)
def test_the_same_traffic_gets_the_same_verdicts(request_: tuple[str, Body], steps: list[str], text: str) -> None:
    """Nothing depends on chance, on addresses or on the clock on the wall; and looking twice changes nothing."""
    dialect, body = request_
    history = [body]
    for step in steps:
        later = copy.deepcopy(history[-1])
        if step == "append":
            later = appended(later, text, "And then?")
        elif step == "system" and "instructions" in later:
            later["instructions"] += text
        elif step == "tools":
            later["tools"] = later.get("tools", [])[1:]
        elif step == "cut":
            del messages(later)[1:3]
        history.append(later)
    runs = []
    for _ in range(2):
        client = Client(dialect)
        verdicts = []
        for sent, step in zip(history, ["same", *steps], strict=True):
            verdicts.append(client.send(sent, after=400 if step == "wait" else 5))
            assert client.full == client.again
        runs.append(verdicts)
    assert runs[0] == runs[1]
