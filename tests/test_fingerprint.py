"""Digests that say whether two prompts are equal, and what parts them, without keeping a word of either."""

from __future__ import annotations

import gc
import random
import re
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache import fingerprint, providers
from otel_promptcache.fingerprint import (
    Detail,
    Digest,
    HashKey,
    canonical,
    common_start,
    detail,
    difference,
    pack,
    packed,
    similar,
    unpack,
)
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Kind, Scope, Section, Segment, Usage
from otel_promptcache.providers import anthropic, openai_chat
from otel_promptcache.semconv import Cause

KEY = HashKey("a fleet's key")
OTHER_KEY = HashKey("another fleet's key")


def segment(text: str, kind: Kind = Kind.TEXT) -> Segment:
    return Segment(hash(text), Section.SYSTEM, kind, 0, -1, "system", text)


def parted(old: str, new: str) -> tuple[Cause | None, int | None]:
    """What parts two texts, and in which line."""
    return difference(detail(segment(old)), detail(segment(new)), segment(new))[:2]


class TestDigests:
    """128 bits under a key: equal for equal content, and worth nothing to who has not the key."""

    def test_equal_content_has_equal_digests(self) -> None:
        """In any process that has the key."""
        assert KEY.digest("user", b"Why?") == HashKey("a fleet's key").digest("user", b"Why?")
        assert len(KEY.digest("user", b"Why?")) == 16

    def test_literal(self) -> None:
        """Stored fingerprints are compared for months: a change of the construction is a break."""
        assert KEY.digest("user", b"Why?").hex() == "79d924968635d0e47649023c0af0d1a0"
        assert KEY.id == "5b51315b"

    @pytest.mark.parametrize(("role", "data"), [("user", b"Why"), ("assistant", b"Why?"), ("use", b"rWhy?"), ("", b"")])
    def test_other_content_has_other_digests(self, role: str, data: bytes) -> None:
        """Text and role."""
        assert KEY.digest(role, data) != KEY.digest("user", b"Why?")

    def test_another_key_gives_other_digests(self) -> None:
        """For segments, scopes, names, tokens; and says that it is another."""
        assert KEY.digest("user", b"Why?") != OTHER_KEY.digest("user", b"Why?")
        assert KEY.root("anthropic", "host") != OTHER_KEY.root("anthropic", "host")
        assert KEY.token("ada@example.com") != OTHER_KEY.token("ada@example.com")
        assert KEY.id != OTHER_KEY.id

    def test_without_a_configured_key_each_has_its_own(self) -> None:
        """Digests then compare within one process only."""
        assert HashKey().digest("user", b"Why?") != HashKey().digest("user", b"Why?")

    def test_the_key_is_not_its_name(self) -> None:
        """Neither the id nor the derived key shows what was configured."""
        assert "fleet" not in KEY.id
        assert b"fleet" not in KEY.key

    def test_many_roles(self) -> None:
        """Each result of a tool has a role of its own: what is kept for speed is bounded, and changes no digest."""
        key = HashKey("a fleet's key")
        first = [key.digest(f"tool\0call_{number}", b"x") for number in range(500)]
        assert first == [key.digest(f"tool\0call_{number}", b"x") for number in range(500)]
        assert len(set(first)) == 500
        assert len(key._states) <= 64

    def test_stand_ins(self) -> None:
        """A name looks like a name that was hidden, an identifier like an identifier."""
        assert KEY.name("get_salary").startswith("[key:")
        assert len(KEY.name("get_salary")) == len("[key:3f2a]")
        assert KEY.name("get_salary") == KEY.name("get_salary") != KEY.name("get_salaries")
        assert len(KEY.token("ada@example.com")) == 16

    @pytest.mark.parametrize("text", ["\ud800", "\0", "😀", ""], ids=ascii)
    def test_any_text(self, text: str) -> None:
        """Lone surrogates are sent by some."""
        assert len(KEY.digest(text, canonical(segment(text)))) == 16
        assert KEY.token(text)
        assert KEY.root(text)


class TestChain:
    """Equal chains mean equal prefixes."""

    def chain(self, *texts: str, scope: str = "s") -> bytes:
        value = KEY.root(scope)
        for text in texts:
            value = KEY.chain(value, KEY.digest("user", text.encode()))
        return value

    def test_order_scope_and_every_segment_count(self) -> None:
        """Nothing can be left out, moved, or joined."""
        assert self.chain("a", "b") == self.chain("a", "b")
        chains = {
            *(self.chain("a", "b"), self.chain("b", "a"), self.chain("a"), self.chain("ab")),
            *(self.chain("a", "b", scope="t"), self.chain("a", "b", "b"), self.chain()),
        }
        assert len(chains) == 7

    def test_sections(self) -> None:
        """One digest a section, in order of appearance."""
        a, b, c = (Digest(bytes([n]) * 16) for n in range(3))
        both = [(Section.TOOLS, a), (Section.SYSTEM, b), (Section.SYSTEM, c)]
        found = fingerprint.sections(both)
        assert [section for section, _ in found] == [Section.TOOLS, Section.SYSTEM]
        assert fingerprint.sections(both) == found
        assert fingerprint.sections([both[0], both[2], both[1]])[0] == found[0]
        assert fingerprint.sections([both[0], both[2], both[1]])[1] != found[1]


class TestCanonical:
    """A digest is of what the model reads."""

    def test_a_string_is_one_text_block(self) -> None:
        """With or without a marker, in any dialect."""
        forms = [
            anthropic.prompt({"messages": [{"role": "user", "content": "x"}]}),
            anthropic.prompt({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
            openai_chat.prompt({"messages": [{"role": "user", "content": "x"}]}),
        ]
        assert {canonical(prompt.segments[0]) for prompt in forms} == {b"x"}

    def test_a_text_with_more_to_it(self) -> None:
        """Two blocks whose keys differ never have one digest."""
        blocks = [{"type": "text", "text": "x", "citations": list("ab")[:n]} for n in range(3)]
        prompts = [anthropic.prompt({"messages": [{"role": "user", "content": [block]}]}) for block in blocks]
        assert len({canonical(prompt.segments[0]) for prompt in prompts}) == 3

    def test_markers_are_taken_off(self) -> None:
        """Also within the result of a tool."""
        result = {"type": "tool_result", "content": [{"type": "text", "text": "x"}]}
        marked = {"type": "tool_result", "content": [{"type": "text", "text": "x", "cache_control": {}}]}
        found = anthropic.prompt({"messages": [{"role": "user", "content": [result, marked]}]}).segments
        assert canonical(found[0]) == canonical(found[1])


# --- What parts two texts -------------------------------------------------------------------------------------

RULES = "Answer briefly.\nName your sources.\nIt is {}.\nNever guess.\n"

TIMES = [
    ("2026-11-21", "2026-11-22"),
    ("2026-11-21T14:05:59Z", "2026-11-21T14:06:00Z"),
    ("2026-11-21T14:05:59.123456+00:00", "2026-11-21T14:05:59.123999+00:00"),
    ("2026-11-21 14:05", "2026-11-21 14:06"),
    ("20261121T140559Z", "20261121T140600Z"),
    ("9:59", "10:00"),
    ("2:05 PM", "2:06 PM"),
    ("2 pm", "3 pm"),
    ("14h05", "14h06"),
    ("11/21/2026", "11/22/2026"),
    ("11/21/26", "11/22/26"),
    ("21/11/2026", "22/11/2026"),
    ("2026/11/21", "2026/11/22"),
    ("21.11.2026", "22.11.2026"),
    ("2026.11.21", "2026.11.22"),
    ("Nov 21, 2026", "Nov 22, 2026"),
    ("November 30th, 2026", "December 1st, 2026"),
    ("November 2026", "December 2026"),
    ("21 Nov 2026", "22 Nov 2026"),
    ("21-Nov-2026", "22-Nov-2026"),
    ("Saturday, November 21, 2026", "Sunday, November 22, 2026"),
    ("Sat, 21 Nov 2026 14:05:59 GMT", "Sat, 21 Nov 2026 14:06:00 GMT"),
    ("Sat Nov 21 14:05:59 UTC 2026", "Sat Nov 21 14:06:00 UTC 2026"),
    ("Samstag, 21. November 2026", "Sonntag, 22. November 2026"),
    ("21. März 2026", "22. März 2026"),
    ("samedi 21 février 2026", "dimanche 22 février 2026"),
    ("31 août 2026", "1 septembre 2026"),
    ("21 de enero de 2026", "22 de enero de 2026"),
    ("sábado, 21 de novembro de 2026", "domingo, 22 de novembro de 2026"),
    ("21 listopada 2026", "22 listopada 2026"),
    ("21 ağustos 2026", "22 ağustos 2026"),
    ("21 ноября 2026", "22 ноября 2026"),
    ("2026年11月21日", "2026年11月22日"),
    ("令和8年11月21日", "令和8年11月22日"),
    ("2026년 11월 21일", "2026년 11월 22일"),
    ("\u0662\u0661/\u0661\u0661/\u0662\u0660\u0662\u0666", "\u0662\u0662/\u0661\u0661/\u0662\u0660\u0662\u0666"),
    ("1763733950", "1763733951"),
    ("1763733950123", "1763733950124"),
    ("1763733950123456", "1763733950123457"),
    ("1763733950.123", "1763733951.001"),
]


@pytest.mark.parametrize(("before", "after"), TIMES)
def test_a_time_that_moved(before: str, after: str) -> None:
    """In the formats and languages that applications write."""
    of_day = re.search(r"\d[:h時]|[ap]\.?m\b|\dT\d|\d{9}", after)
    cause = Cause.TIMESTAMP if of_day else Cause.DATE_ROLLOVER
    assert parted(RULES.format(before), RULES.format(after)) == (cause, 3)


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ("version 1.2.3", "version 1.2.4", Cause.EDITED),
        ("10 items", "11 items", Cause.COUNTER),
        ("call 5551234567", "call 5551234568", Cause.IDENTIFIER),
        ("a ratio of 16:9", "a ratio of 4:3", Cause.EDITED),
        ("build 2026", "build 2027", Cause.COUNTER),
        ("sunny", "rainy", Cause.EDITED),
    ],
)
def test_what_is_no_time(before: str, after: str, cause: Cause) -> None:
    """Numbers have other meanings."""
    assert parted(RULES.format(before), RULES.format(after)) == (cause, 3)


def test_a_time_beside_the_change() -> None:
    """The line that changed has none, though the text does."""
    text = "It is 2026-11-21.\nBe brief."
    assert parted(text, text.replace("brief", "quick")) == (Cause.EDITED, 2)


def test_a_time_among_many_changes() -> None:
    """Only digits moved, in lines far apart: it is the clock."""
    text = "Now: {}\n" + "Rule.\n" * 50 + "Signed at {}."
    assert parted(text.format("14:05", "14:05"), text.format("14:06", "14:06")) == (Cause.TIMESTAMP, 1)


def test_a_rewrite_that_has_a_time_in_it() -> None:
    """More than one line, and more than digits: it was edited."""
    assert parted("Be brief.\nBe kind.", "Be quick at 14:05.\nBe nice.") == (Cause.EDITED, 1)


BLANKS = {
    "another blank": "Name  your sources.",
    "a tab": "Name\tyour sources.",
    "a no-break space": "Name\u00a0your sources.",
    "a narrow no-break space": "Name\u202fyour sources.",
    "a figure space": "Name\u2007your sources.",
    "a zero-width space": "Name \u200byour sources.",
    "a word joiner": "Name \u2060your sources.",
    "an ideographic space": "Name\u3000your sources.",
    "a byte order mark": "\ufeffName your sources.",
    "a blank at the end": "Name your sources. ",
    "a carriage return": "Name your sources.\r",
    "a form feed": "Name your sources.\f",
    "a line more": "Name\nyour sources.",
    "no blank": "Nameyour sources.",
}


@pytest.mark.parametrize("changed", BLANKS.values(), ids=BLANKS)
def test_only_blanks(changed: str) -> None:
    """Of all sorts, and either way."""
    plain = "Be brief.\nName your sources.\nNever guess."
    other = plain.replace("Name your sources.", changed)
    cause = Cause.LINE_ENDINGS if "\r" in changed else Cause.WHITESPACE
    assert parted(plain, other) == (cause, 2)
    assert parted(other, plain) == (cause, 2)


@pytest.mark.parametrize(
    ("old", "new", "cause", "line"),
    [
        ("a\nb\nc", "c\nb\na", Cause.REORDERED, 1),
        ("a\nb\nc\nd", "a\nc\nb\nd", Cause.REORDERED, 2),
        ("a\nb\nb", "b\nb\na", Cause.REORDERED, 1),
        ("a\nb\nb", "a\na\nb", Cause.EDITED, 2),
        ("a\nb", "a\nx", Cause.EDITED, 2),
        ("a\nb", "a\nb\nc", Cause.EDITED, 2),
        ("a\nb\nc", "a\nb", Cause.EDITED, 2),
        ("a\nb\nc", "a\nx\nb\nc", Cause.EDITED, 2),
        ("a\nb\nc", "x\na\nb\nc", Cause.EDITED, 1),
        ("a\nb\nc", "b\nc", Cause.EDITED, 1),
        ("a", "b", Cause.EDITED, 1),
        ("", "a", Cause.EDITED, 1),
        ("a", "", Cause.EDITED, 1),
        ("a", "a\n", Cause.WHITESPACE, 1),
        ("a\n", "a", Cause.WHITESPACE, 1),
        ("a\nb", "a\nb\n", Cause.WHITESPACE, 2),
        ("a\nb\n", "a\nb", Cause.WHITESPACE, 2),
        ("a\nb", "a\n\nb", Cause.WHITESPACE, 2),
        ("a\r\nb", "a\nb", Cause.LINE_ENDINGS, 1),
    ],
    ids=repr,
)
def test_where_two_texts_part(old: str, new: str, cause: Cause, line: int) -> None:
    """The first line that differs, from 1; where one text is the beginning of the other, its last."""
    assert parted(old, new) == (cause, line)


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_the_line_is_where_the_texts_part(old: list[str], new: list[str]) -> None:
    """It is the line of the first differing character."""
    before, after = "\n".join(old), "\n".join(new)
    if before == after:
        return
    common = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    assert parted(before, after)[1] == 1 + after.count("\n", 0, common)


def test_more_or_less_than_text() -> None:
    """What the server holds has no text; of what is too long, the beginning is looked at, and it is said so."""
    assert detail(segment("x", Kind.HELD)) is None
    long = detail(segment("x" * (4 * 2**20 + 1)))
    assert long is not None
    assert long.truncated
    assert difference(None, detail(segment("x")), segment("x"))[:2] == (None, None)
    assert difference(detail(segment("x")), None, segment("x"))[:2] == (None, None)


def test_structures_have_lines_too() -> None:
    """One field a line, so that a change is somewhere."""
    tool = Segment(1, Section.TOOLS, Kind.TOOL, 0, -1, "tool", {"name": "f", "description": "x"})
    other = tool._replace(key=2, value={"name": "f", "description": "y"})
    assert difference(detail(tool), detail(other), other)[:3] == (Cause.EDITED, 1, ("description",))


@pytest.mark.parametrize("value", [{"x": object()}, {"x": b"x"}, {1: {2: {3}}}], ids=["object", "bytes", "set"])
def test_what_cannot_be_laid_out(value: object) -> None:
    """Is named by its type alone, and harms nobody."""
    found = detail(Segment(1, Section.TOOLS, Kind.TOOL, 0, -1, "tool", value))
    assert found is not None
    assert len(found.lines) == 1


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        ("It is 14:05.", "It is 15:06.", True),
        ("Be brief.", "Be  brief.", True),
        ("Be brief.", "Be quick.", False),
        ("a\nb\nc\nd", "a\nb\nx\ny", True),
        ("a\nb\nc\nd", "x\nb\nc\ny", True),
        ("a\nb\nc\nd", "a\nx\ny\nz", False),
        ("a\nb\nc\nd", "d\nc\nb\na", True),
        ("a\nb", "a\nb\nc\nd\ne", False),
        ("a\nb\nc", "x\ny\nz", False),
    ],
    ids=repr,
)
def test_versions_of_one_text(old: str, new: str, alike: bool) -> None:
    """Equal but for blanks or digits, or half of the lines alike."""
    assert similar(detail(segment(old)), detail(segment(new))) is alike
    assert similar(detail(segment(new)), detail(segment(old))) is alike
    assert similar(None, detail(segment(new))) is False


# --- No text is kept ------------------------------------------------------------------------------------------

SECRET = "The launch code is 0000, and the salary of Ada Lovelace is"
MANY = [f"{SECRET} {number} pounds a year." for number in range(40)]


def reachable(*roots: object) -> list[object]:
    """Everything that can be reached from some objects, but for code: modules, classes, functions."""
    seen: dict[int, object] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        code = (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType, types.BuiltinFunctionType)
        if id(one) not in seen and not isinstance(one, code):
            seen[id(one)] = one
            waiting.extend(gc.get_referents(one))
    return list(seen.values())


def telling(objects: list[object], texts: list[str]) -> list[object]:
    """Objects that contain at least twenty characters of some text."""
    windows = {text[start : start + 20] for text in texts for start in range(len(text) - 19)}
    windows |= {text[start : start + 20].encode() for text in texts for start in range(len(text) - 19)}  # type: ignore[arg-type]
    return [
        one
        for one in objects
        if isinstance(one, str | bytes | bytearray)
        and any(one[start : start + 20] in windows for start in range(len(one) - 19))
    ]


def traffic(dialect: str) -> list[dict[str, Any]]:
    """Requests with secrets everywhere: tools, system, messages, results, names, parameters; each twice, changed."""
    tool = {"name": "get_salary_of_" + "x" * 30, "description": MANY[0], "input_schema": {"title": MANY[1]}}
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": MANY[2]},
        {"role": "assistant", "content": [{"type": "text", "text": MANY[3], "citations": [MANY[4]]}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {MANY[5]: MANY[6]}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": MANY[7]}]},
        {"role": "user", "content": [{"type": "image", "source": {"data": MANY[8]}}, {"type": "odd", "x": MANY[9]}]},
    ]
    body: dict[str, Any] = {
        "model": "claude-opus-5",
        "tools": [tool],
        "tool_choice": {"type": "tool", "name": MANY[10]},
    }
    body |= {"messages": talk, "cache_control": {"type": "ephemeral"}}
    if dialect == "anthropic":
        body["system"] = [{"type": "text", "text": "\n".join(MANY[11:30])}]
    elif dialect == "openai_chat":
        talk.insert(0, {"role": "system", "content": "\n".join(MANY[11:30])})
        talk.append({"role": "tool", "tool_call_id": "t", "content": MANY[31]})
        talk.append({"role": "user", "name": MANY[35], "content": MANY[36]})
    else:
        body |= {"instructions": "\n".join(MANY[11:30]), "input": talk}
    changed = body | {
        "messages": [{"role": "user", "content": MANY[32]}, *talk[1:]],
        "tools": [tool, {"name": MANY[33]}],
    }
    longer = body | {"messages": [*talk, {"role": "user", "content": MANY[34]}]}
    return [body, body, changed, longer | ({"input": [*talk, {"role": "user", "content": MANY[34]}]})]


@pytest.mark.parametrize("dialect", ["anthropic", "openai_chat", "openai_responses"])
def test_no_text_can_be_reached_from_the_history(dialect: str) -> None:
    """Digests, lengths and hashes are all that is left of a prompt once its call is over."""
    memory = Memory(KEY, 10_000)
    adapter = providers.BY_NAME[dialect]
    for number, body in enumerate(traffic(dialect)):
        prompt = adapter.prompt(body)
        sight = memory.sent(
            prompt,
            Scope("anthropic", "host", "k", "claude-opus-5", ""),
            now=float(number),
            route="r",
            conversation="",
            link=None,
        )
        memory.describe(prompt, sight)
        memory.begun(sight)
        memory.ended(sight, Usage(900, 0, 900), f"id{number}", None)
        del prompt, sight
    objects = reachable(memory)
    assert len(memory) > 10
    assert len(objects) > 100
    assert telling(objects, MANY) == []


def test_the_walk_finds_what_is_kept() -> None:
    """The test above can fail."""
    memory = Memory(KEY, 10_000)
    prompt = anthropic.prompt({"messages": [{"role": "user", "content": MANY[0]}]})
    sight = memory.sent(prompt, Scope("a", "b", "c", "d", "e"), now=0.0, route="r", conversation="", link=None)
    assert telling(reachable(memory, sight), MANY) == []
    assert len(telling(reachable(memory, prompt), MANY)) >= 1
    del sight, prompt
    memory._by_id["x"] = [{"hidden": [MANY[0][:30]]}]  # type: ignore[assignment]
    assert telling(reachable(memory), MANY) == [MANY[0][:30]]


@given(st.text("ab", max_size=300), st.text("ab", max_size=300), st.text("ab", max_size=300))
def test_how_far_two_texts_are_alike(start: str, one: str, other: str) -> None:
    """To the character, however long the beginning that they share."""
    pair = [start + one, start + other]
    found = common_start(*pair)
    assert pair[0][:found] == pair[1][:found]
    assert found == min(map(len, pair)) or pair[0][found] != pair[1][found]


def test_a_detail_is_numbers() -> None:
    """Eight bytes a line, and two for the whole."""
    found = detail(segment("\n".join(MANY)))
    assert isinstance(found, Detail)
    assert [type(found.blanks), type(found.digits), found.lines.typecode, len(found.lines)] == [int, int, "q", 40]


@given(
    st.one_of(
        st.text(max_size=900),
        st.text(st.sampled_from('ab 19\n\r\t`"{}[]:,. \u00e9\u00a0'), max_size=900),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
            max_leaves=12,
        ),
    )
)
def test_a_packed_detail_is_the_detail(value: Any) -> None:
    """Whatever is left out because it can be told from the rest is back when it is unpacked."""
    one = Segment(1, Section.MESSAGES, Kind.TEXT if type(value) is str else Kind.OTHER, 0, -1, "user", value)
    made = detail(one)
    assert made is not None
    assert unpack(packed(one)) == made
    assert unpack(pack(made)) == made


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.DOCUMENT])
def test_a_packed_picture(kind: Kind) -> None:
    value = {"type": "image", "source": {"type": "url", "url": "https://x.example/a?sig=1"}}
    one = segment("")._replace(kind=kind, value=value)
    assert unpack(packed(one)) == detail(one)


def test_of_held_history_there_is_nothing_to_pack() -> None:
    assert packed(segment("resp_1")._replace(kind=Kind.HELD)) == b""


def test_details_are_made_of_shuffled_lines_as_of_ordered_ones() -> None:
    """Nothing but the order of the hashes differs."""
    shuffled = list(MANY)
    random.Random(1).shuffle(shuffled)
    one, other = detail(segment("\n".join(MANY))), detail(segment("\n".join(shuffled)))
    assert one is not None
    assert other is not None
    assert sorted(one.lines) == sorted(other.lines)
    assert parted("\n".join(MANY), "\n".join(shuffled))[0] is Cause.REORDERED
