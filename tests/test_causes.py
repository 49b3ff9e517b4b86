"""What kind of change it was, told from hashes of the old text and the new text alone: many languages and formats."""

from __future__ import annotations

from typing import Any

import pytest

from otel_promptcache.fingerprint import detail, difference, similar
from otel_promptcache.fingerprint.fields import Field
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.semconv import Cause

PROSE = """You are the help desk of a library in Porto.

{}

Answer in the language of the question. A loan is twenty-eight days long; 3 renewals are possible.
Fines are 0.10 EUR a day (see regulation 2019-04-01, article 7). Ask before you order a book.
Opening hours: 9:00 to 19:00. Write to desk@library.example for what you cannot answer."""


def text(value: str, section: Section = Section.SYSTEM) -> Segment:
    return Segment(hash(value), section, Kind.TEXT, 0, -1, "system", value)


def block(value: Any, kind: Kind, section: Section = Section.MESSAGES) -> Segment:
    return Segment(hash(str(value)), section, kind, 0, -1, "user", value)


def parted(old: Segment, new: Segment) -> tuple[Cause | None, int | None, Field]:
    return difference(detail(old), detail(new), new)[:3]


ITSELF: dict[Cause, list[tuple[str, str]]] = {
    Cause.TIMESTAMP: [
        ("Jetzt ist es 14:05 Uhr.", "Jetzt ist es 14:06 Uhr."),
        ("Generated at 2026-11-21T09:59:58.120Z", "Generated at 2026-11-21T10:00:03.007Z"),
        ("現在時刻: 14時05分", "現在時刻: 14時06分"),
        ("Local time: Thu Nov 21 9:59:01 2026", "Local time: Thu Nov 21 10:00:12 2026"),
        ("now=1763733950", "now=1763733984"),
        ("<time>11/21/26, 9:05 PM</time>", "<time>11/21/26, 9:17 PM</time>"),
    ],
    Cause.DATE_ROLLOVER: [
        ("Today is Friday, November 21, 2026.", "Today is Saturday, November 22, 2026."),
        ("Datum: 30.11.2026", "Datum: 01.12.2026"),
        ("Nous sommes le 31 août 2026.", "Nous sommes le 1 septembre 2026."),
        ("今日は2026年11月21日です。", "今日は2026年11月22日です。"),
        ("Hoy es viernes.", "Hoy es sábado."),
        ("current_date: 2026/11/21", "current_date: 2026/11/22"),
    ],
    Cause.IDENTIFIER: [
        ("Trace: 0af7651916cd43dd8448eb211c80319c", "Trace: b7ad6b7169203331a2fce90b1d4c8e77"),
        ("session 01JD7ZQ4V5K8S9T2M3N4P5Q6R7 is open", "session 01JD7ZR9A1B2C3D4E5F6G7H8J9 is open"),
        ("Vorgangs-ID: V-88213377-K", "Vorgangs-ID: V-90417712-Q"),
        ("run_a8Xk29sLq1Tz started", "run_P0vb77rMwe3c started"),
        ("会话ID：9f31c2d4e5b60718", "会话ID：77a0b1c2d3e4f506"),
        ("nonce = 7c1f-22aa", "nonce = 90be-13d4"),
        ("id 550e8400-e29b-41d4-a716-446655440000", "id 7d444840-9dc0-11d1-b245-5ffdce74fad2"),
    ],
    Cause.COUNTER: [
        ("This is message 7 of at most 40.", "This is message 8 of at most 40."),
        ("Schritt 9/12", "Schritt 10/12"),
        ("Tentative nº 3", "Tentative nº 4"),
        ("第12回目の質問です", "第13回目の質問です"),
        ("Remaining budget: 18250 tokens", "Remaining budget: 17911 tokens"),
        ("Попытка 2", "Попытка 3"),
        ("turn_index=14", "turn_index=15"),
    ],
    Cause.USER_DATA: [
        ("The reader's name is Inês Carvalho.", "The reader's name is João Pedro da Silva."),
        ("Kundin: Annegret Meier", "Kundin: Svetlana Petrović-Lang"),
        ("Bonjour Amélie,", "Bonjour Jean-Baptiste,"),
        ("ユーザー名：田中太郎", "ユーザー名：鈴木花子"),
        ("用户：王小明（上海）", "用户：李华（北京）"),
        ("Пользователь: Анна Иванова", "Пользователь: Пётр Сидоров"),
        ("اسم المستخدم: ليلى", "اسم المستخدم: عمر خالد"),
        ("email=ana@example.pt; plan=basic", "email=rui@example.pt; plan=premium plus"),
        ("You are speaking with Dr. Okafor from billing.", "You are speaking with Lindiwe from sales and support."),
        ('"first_name": "Ana"', '"first_name": "Maria do Carmo"'),
        ("사용자 이름: 김민수", "사용자 이름: 이서연"),
    ],
    Cause.ENVIRONMENT: [
        ("Working directory: /srv/app/releases/alpha", "Working directory: /srv/app/releases/beta/green"),
        ("Hostname: web-a", "Hostname: web-b-blue"),
        ("Arbeitsverzeichnis: C:\\Users\\anna\\projekt", "Arbeitsverzeichnis: C:\\Users\\anna\\projekt zwei"),
        ("Current branch: main", "Current branch: feature/dark mode"),
        ("Platform: darwin", "Platform: linux (musl)"),
        ("作業ディレクトリ: /home/t/a", "作業ディレクトリ: /home/t/b"),
        ("cwd=~/work/one", "cwd=~/work/two"),
    ],
    Cause.CLIENT_HEADER: [
        ("x-billing-note: v=2.1.4; cch=9a31f;", "x-billing-note: v=2.1.4; cch=04bc2;"),
        ("User-Agent: desk/1.4 (build 77)", "User-Agent: desk/1.4 (build 78)"),
    ],
    Cause.URL_SIGNATURE: [
        (
            "Map: https://cdn.example/floor.png?Expires=1763733950&Signature=abc~x&Key-Pair-Id=K1",
            "Map: https://cdn.example/floor.png?Expires=1763737550&Signature=Zk0~y&Key-Pair-Id=K1",
        ),
        (
            "![plan](https://b.blob.example/p.pdf?sv=2024-11-04&sig=aa%2F1)",
            "![plan](https://b.blob.example/p.pdf?sv=2024-11-04&sig=Qx%2B9)",
        ),
    ],
}


@pytest.mark.parametrize(
    ("cause", "old", "new"), [(cause, *pair) for cause, pairs in ITSELF.items() for pair in pairs], ids=repr
)
def test_what_changes_of_itself(cause: Cause, old: str, new: str) -> None:
    """In the middle of a text that has times, numbers and addresses of its own."""
    assert parted(text(PROSE.format(old)), text(PROSE.format(new))) == (cause, 3, ())
    assert parted(text(PROSE.format(new)), text(PROSE.format(old)))[0] is cause


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Be patient with children.", "Be patient with children and their parents."),
        ("Never promise a date.", "Never promise a date or a price."),
        ("Recommend two books at a time.", "Recommend three books at a time."),
        ("The account of a reader holds no money.", "The account of a reader holds no money, ever."),
        ("If the customer insists, call a colleague.", "If the customer insists, call the manager."),
        ("Say hello in Portuguese.", "Greet in Portuguese first."),
        ("Das Konto eines Kunden wird nie gelöscht.", "Das Konto eines Kunden wird niemals gelöscht."),
        ("Rule 4 (see 5f3a9c2b7d1e4a60): be kind.", "Law 4 (see 5f3a9c2b7d1e4a60): be kind."),
        ("The ticket system closes at 18:00 on Fridays.", "The ticket desk closes at 18:00 on Fridays."),
        ("Respond within 2 lines.", "Answer within 2 lines."),
    ],
)
def test_what_somebody_wrote(old: str, new: str) -> None:
    """A word that looks like data, in a line where something else changed, is no evidence."""
    assert parted(text(PROSE.format(old)), text(PROSE.format(new))) == (Cause.EDITED, 3, ())


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("Be brief.\r\nBe kind.", "Be brief.\nBe kind.", Cause.LINE_ENDINGS),
        ("São Paulo, naïve", "Sa\u0303o Paulo, nai\u0308ve", Cause.UNICODE),
        ("Say “no” – and don’t worry…", 'Say "no" - and don\'t worry...', Cause.UNICODE),
        ("ﬁle ＡＢＣ", "file ABC", Cause.UNICODE),
        ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af", Cause.UNICODE),
        ("10\u202f000 €", "10 000 €", Cause.WHITESPACE),
        ("a\u200bb c", "ab c", Cause.WHITESPACE),
        ("tabs\tand", "tabs    and", Cause.WHITESPACE),
    ],
)
def test_what_a_reader_does_not_see(old: str, new: str, cause: Cause) -> None:
    """Blanks, endings, forms of characters; either way."""
    assert parted(text(PROSE.format(old)), text(PROSE.format(new)))[:2] == (cause, 3)
    assert parted(text(PROSE.format(new)), text(PROSE.format(old)))[0] is cause


SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}, "year": {"type": "integer"}}, "required": []}
TOOL = {"name": "find_book", "description": "Finds a book.\nBy title.", "input_schema": SCHEMA}


@pytest.mark.parametrize(
    ("new", "cause", "line", "field"),
    [
        ({**TOOL, "description": "Finds a book.\nBy title or year."}, Cause.EDITED, 2, ("description",)),
        ({**TOOL, "description": "Finds a book. \nBy title."}, Cause.WHITESPACE, 1, ("description",)),
        ({"description": TOOL["description"], "name": "find_book", "input_schema": SCHEMA}, Cause.FIELD_ORDER, 1, ()),
        (
            {**TOOL, "input_schema": {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}},
            Cause.KEY_ORDER,
            1,
            ("input_schema", "properties"),
        ),
        ({**TOOL, "input_schema": dict(reversed(SCHEMA.items()))}, Cause.KEY_ORDER, 1, ("input_schema",)),
        ({**TOOL, "strict": False}, Cause.RESERIALIZED, 1, ("strict",)),
        (
            {**TOOL, "input_schema": {**SCHEMA, "required": ["title"]}},
            Cause.EDITED,
            1,
            ("input_schema", "required", 0),
        ),
    ],
)
def test_tools(new: dict[str, Any], cause: Cause, line: int, field: Field) -> None:
    """To the field, and to the line in it."""
    old = block(TOOL, Kind.TOOL, Section.TOOLS)
    assert parted(old, block(new, Kind.TOOL, Section.TOOLS)) == (cause, line, field)


def test_a_schema_that_is_sorted_everywhere() -> None:
    """What was written with sorted keys has its own fields in another order too; the inner ones tell."""
    inner = {"type": "object", "required": [], "properties": SCHEMA["properties"]}
    new = {"description": TOOL["description"], "input_schema": inner, "name": "find_book"}
    assert parted(block(TOOL, Kind.TOOL), block(new, Kind.TOOL))[0] is Cause.KEY_ORDER


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('{"city": "Évora", "days": 3}', '{"days": 3, "city": "Évora"}', Cause.KEY_ORDER),
        ('{"city": "Évora", "days": 3}', '{"city":"Évora","days":3}', Cause.RESERIALIZED),
        ('{"city": "Évora", "days": 3}', '{"city": "\\u00c9vora", "days": 3}', Cause.RESERIALIZED),
        ('{"days": 3}', '{"days": 3.0}', Cause.RESERIALIZED),
        ('{"days": 3}', '{"days": 4}', Cause.COUNTER),
        ('{"city": "Faro"}', '{"city": "Beja"}', Cause.EDITED),
    ],
)
def test_arguments_of_a_call(old: str, new: str, cause: Cause) -> None:
    """JSON in a string is read as what it is, in a call and as a result."""
    call = {"type": "function_call", "call_id": "c1", "name": "weather"}
    found = parted(block({**call, "arguments": old}, Kind.TOOL_USE), block({**call, "arguments": new}, Kind.TOOL_USE))
    assert found == (cause, 1, ("arguments",))
    result = {"type": "tool_result", "tool_use_id": "t"}
    found = parted(
        block({**result, "content": old}, Kind.TOOL_RESULT), block({**result, "content": new}, Kind.TOOL_RESULT)
    )
    assert found[0] is cause


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"content": "12 °C"}, {"content": [{"type": "text", "text": "12 °C"}]}),
        ({"content": "12 °C"}, {"content": "12 °C", "is_error": False}),
        ({"content": "12 °C", "annotations": []}, {"content": "12 °C"}),
    ],
)
def test_the_same_in_another_form(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A string or a list of one text, a field that says nothing."""
    result = {"type": "tool_result", "tool_use_id": "t"}
    assert parted(block(result | old, Kind.TOOL_RESULT), block(result | new, Kind.TOOL_RESULT))[0] is Cause.RESERIALIZED


@pytest.mark.parametrize(
    ("old", "new", "cause", "field"),
    [
        (
            {"type": "url", "url": "https://x/a?s=1"},
            {"type": "url", "url": "https://x/a?s=2"},
            Cause.URL_SIGNATURE,
            "url",
        ),
        ({"type": "url", "url": "https://x/a?s=1"}, {"type": "url", "url": "https://x/b?s=1"}, Cause.IMAGE, "url"),
        ({"type": "base64", "data": "AAAA"}, {"type": "base64", "data": "AAAB"}, Cause.IMAGE, "data"),
        ({"type": "file", "file_id": "f1"}, {"type": "file", "file_id": "f2"}, Cause.IMAGE, "file_id"),
    ],
)
def test_pictures(old: dict[str, Any], new: dict[str, Any], cause: Cause, field: str) -> None:
    """The bytes, the address, or the signature behind it."""
    found = parted(
        block({"type": "image", "source": old}, Kind.IMAGE), block({"type": "image", "source": new}, Kind.IMAGE)
    )
    assert found == (cause, 1, ("source", field))


def test_a_file() -> None:
    """Told apart from pictures."""
    old, new = ({"type": "document", "source": {"type": "file", "file_id": name}} for name in ("f1", "f2"))
    assert parted(block(old, Kind.DOCUMENT), block(new, Kind.DOCUMENT))[0] is Cause.DOCUMENT


PASSAGES = (
    "[1] The reading room on the second floor is closed on Mondays.",
    "[2] Newspapers from before 1974 are on film only; ask for the machine in room 4.",
    "[3] Children under ten come with somebody who is grown up.",
)
OTHERS = (
    "[1] A card costs nothing, and is made while you wait; bring a paper with your address.",
    "[2] Lost books are paid at the price of a new one.",
    "[3] The last bus leaves at 19:20 from the square.",
)
PLAIN = tuple(line[4:] for line in PASSAGES), (*(line[4:] for line in OTHERS), "Bags stay in the lockers.")
LONG = tuple(tuple(f"{line[4:]} " * 5 for line in lines) for lines in (PASSAGES, OTHERS))


@pytest.mark.parametrize(("old", "new"), [(PASSAGES, OTHERS), PLAIN, LONG], ids=["numbered", "plain", "long"])
def test_retrieved_text_in_front_of_stable_text(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Several lines gave way to others, and what follows stayed."""
    assert parted(text(PROSE.format("\n".join(old))), text(PROSE.format("\n".join(new))))[:2] == (Cause.REPLACED, 3)


def test_rules_that_somebody_rewrote() -> None:
    """As many short lines as before, and nothing that says where they were found, are no retrieved text."""
    rules = ("- Speak softly.", "- Lend no maps.", "- Close at noon.", "- Stamp every slip.")
    rewritten = ("- Speak as you like.", "- Lend maps for a day.", "- Close at dusk.", "- Stamp nothing.")
    old, new = (text(PROSE.format("\n".join(lines))) for lines in (rules, rewritten))
    assert parted(old, new)[:2] == (Cause.EDITED, 3)


def test_the_same_passages_in_another_order() -> None:
    """Whatever the scores were."""
    shuffled = "\n".join((PASSAGES[2], PASSAGES[0], PASSAGES[1]))
    assert parted(text(PROSE.format("\n".join(PASSAGES))), text(PROSE.format(shuffled)))[:2] == (Cause.REORDERED, 3)


def test_a_block_about_the_machine() -> None:
    """Several lines, each a label and a value."""
    old = "<env>\nWorking directory: /home/ana/desk\nGit status: clean\nPlatform: linux\n</env>"
    new = "<env>\nWorking directory: /home/ana/desk two\nGit status: 3 files modified\nPlatform: linux\n</env>"
    assert parted(text(PROSE.format(old)), text(PROSE.format(new)))[:2] == (Cause.ENVIRONMENT, 4)


def test_a_prompt_without_lines() -> None:
    """Many are written in one: it is known as a version of another by its sentences."""
    rules = [f"In case {number} of the rules, answer politely and cite page {3 * number}." for number in range(30)]
    old = " ".join(rules)
    rules[11] = "In no case answer at all."
    assert similar(detail(text(old)), detail(text(" ".join(rules))))
    assert not similar(detail(text(old)), detail(text(old.replace("answer", "reply"))))


ONE_LINE = " ".join(f"Article {n}: a loan of kind {chr(97 + n % 26)}{n} is kept for {n + 3} weeks." for n in range(60))


@pytest.mark.parametrize(
    ("put_in", "cause"),
    [
        ("Aktuelle Uhrzeit: 14:05 Uhr.", Cause.TIMESTAMP),
        ("Now: 2026-11-21T20:05:07Z.", Cause.TIMESTAMP),
        ("Datum: 21.11.2026.", Cause.DATE_ROLLOVER),
        ("Request 550e8400-e29b-41d4-a716-446655440000.", Cause.IDENTIFIER),
        ("x-trace-note: v=2.1.4;", Cause.CLIENT_HEADER),
        # What says something is written by somebody, whatever stands in it.
        ("From 21.11.2026 on every reader may borrow three more books at a time.", Cause.EDITED),
        ("Never lend a book after 18:30 unless the head of the library has agreed to it.", Cause.EDITED),
        ("Be brief.", Cause.EDITED),
    ],
)
def test_what_is_put_in_and_will_not_be_the_same_again(put_in: str, cause: Cause) -> None:
    """As a line of its own, and as a sentence in front of a text without lines."""
    lined = PROSE.format("Be kind.")
    assert parted(text(lined), text(f"{put_in}\n{lined}"))[0] is cause
    assert parted(text(ONE_LINE), text(f"{put_in} {ONE_LINE}"))[0] is cause


def test_a_page_that_prose_refers_to_is_no_counter() -> None:
    """A number of pages counts; which page a rule stands on was changed by somebody."""
    cited = ONE_LINE.replace("Article 40:", "Article 40, see page 7:")
    assert parted(text(cited), text(cited.replace("page 7", "page 9")))[0] is Cause.EDITED
    assert parted(text(PROSE.format("Page 3 of 17")), text(PROSE.format("Page 4 of 17")))[0] is Cause.COUNTER


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("The reader is Inês Carvalho.", "The reader is João Pedro da Silva.", Cause.USER_DATA),
        ("Arbeitsverzeichnis: /srv/a.", "Arbeitsverzeichnis: /srv/bb/c.", Cause.ENVIRONMENT),
        ("Ask before you order.", "Ask twice before anything is ordered.", Cause.EDITED),
    ],
)
def test_a_sentence_of_a_text_without_lines(old: str, new: str, cause: Cause) -> None:
    """A line too long to be searched as a whole is known by its sentences."""
    assert parted(text(f"{ONE_LINE} {old}"), text(f"{ONE_LINE} {new}"))[0] is cause
