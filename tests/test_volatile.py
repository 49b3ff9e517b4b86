"""What a changed line is called, in the languages and formats of the world: told from the new text and old hashes."""

from __future__ import annotations

import pytest
from changed_lines import PAIRS
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache.fingerprint import detail, difference, packed, unpack
from otel_promptcache.fingerprint.volatile import SHORT_LINE, Line, announced, cause_of
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.semconv import Cause

FRAME = """You answer for a ferry company on the Douro.

{}

A crossing takes 40 minutes; bicycles cost 2.50 EUR. Dogs stay on deck.
Kunden mit Fahrkarte gehen vor. 乗船は十五分前まで。 Le guichet ferme à 18:00."""


def text(value: str) -> Segment:
    return Segment(hash(value), Section.SYSTEM, Kind.TEXT, 0, -1, "system", value)


def cause(old: str, new: str, frame: str = FRAME) -> Cause | None:
    one, other = text(frame.format(old)), text(frame.format(new))
    return difference(unpack(packed(one)), detail(other), other).cause


@pytest.mark.parametrize(("right", "old", "new"), [(one, *pair) for one in PAIRS for pair in PAIRS[one]], ids=repr)
def test_a_line_among_others(right: Cause, old: str, new: str) -> None:
    """Either way, in a text with figures of its own."""
    assert cause(old, new) is right
    assert cause(new, old) is right


RULES = [f"Rule {n}: a passage of kind {chr(97 + n % 26)}{n} is booked {n + 3} weeks ahead" for n in range(60)]
STOPS = {"। ": "हिंदी", "؟ ": "عربي", "۔ ": "اردو", "。": "中文", ". ": "English", ", ": "clauses", " ": "nothing"}


@pytest.mark.parametrize("stop", STOPS, ids=STOPS.values())
@pytest.mark.parametrize("at", [0, 30, 59])
@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("The clock shows 10:15", "The clock shows 10:25", Cause.TIMESTAMP),
        ("Datum: 07.03.2027", "Datum: 08.03.2027", Cause.DATE_ROLLOVER),
        ("This is turn 4 of 9", "This is turn 5 of 9", Cause.COUNTER),
        ("Bookingnumber 7731204", "Bookingnumber 7731377", Cause.COUNTER),
        ("वर्तमान समय ७:१० बजे", "वर्तमान समय ७:४५ बजे", Cause.TIMESTAMP),
    ],
)
def test_a_sentence_of_one_long_line(old: str, new: str, right: Cause, at: int, stop: str) -> None:
    """Wherever it stands, with the marks of any script or with none."""
    frame = stop.join([*RULES[:at], "{}", *RULES[at:]])
    assert cause(old, new, frame) is right


def test_a_long_line_among_many() -> None:
    """A text of many lines has long ones, too."""
    frame = "\n".join([*RULES, ". ".join([*RULES, "{}", *RULES]), *RULES])
    assert cause("It is 10:15 now", "It is 10:25 now", frame) is Cause.TIMESTAMP


def test_a_number_in_a_sentence_of_a_long_line() -> None:
    """Somebody changed how many weeks ahead; a count says what it counts."""
    frame = ". ".join([*RULES, "A seat {}", *RULES])
    assert cause("costs 4 coins", "costs 5 coins", frame) is Cause.EDITED


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("Date: 2027-03-07|Customer: Ida Holm", "Date: 2027-03-08|Customer: Bo Ek Dahl", Cause.DATE_ROLLOVER),
        ("Customer: Ida Holm|Now: 10:15", "Customer: Bo Ek Dahl|Now: 10:25", Cause.USER_DATA),
        ("Turn: 4|Passenger: Ida Holm", "Turn: 5|Passenger: Bo Ek Dahl", Cause.COUNTER),
        ("Now: 10:15|Be brief.", "Now: 10:25|Be kind and brief.", Cause.TIMESTAMP),
        ("Be brief.|Now: 10:15", "Be kind and brief.|Now: 10:25", Cause.EDITED),
        (
            "The bridge was opened 07.03.2019 by hand|Be brief.",
            "The bridge was closed 08.03.2020 for good|Be kind.",
            Cause.EDITED,
        ),
    ],
)
def test_two_lines_apart(old: str, new: str, right: Cause) -> None:
    """The first of them binds, however far below the other stands."""
    between = "\n".join(RULES[:20])
    assert cause(old.replace("|", f"\n{between}\n"), new.replace("|", f"\n{between}\n")) is right


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("Stops: Porto, Gaia, Pinhao", "Stops: Pinhao, Porto, Gaia", Cause.REORDERED),
        ("停靠：波尔图、加亚、雷瓜", "停靠：雷瓜、波尔图、加亚", Cause.REORDERED),
        ("Decks: {'sun', 'car', 'crew'}", "Decks: {'crew', 'sun', 'car'}", Cause.REORDERED),
        ('{"deck": 2, "berth": "A1"}', '{"berth": "A1", "deck": 2}', Cause.KEY_ORDER),
        ('State: {"b": {"y": 1, "x": "p q"}, "a": 3}', 'State: {"a": 3, "b": {"x": "p q", "y": 1}}', Cause.KEY_ORDER),
        ('{\n  "deck": 2,\n  "berth": "A1"\n}', '{\n  "berth": "A1",\n  "deck": 2\n}', Cause.KEY_ORDER),
        ("Ask before you pay", "Pay before you ask", Cause.EDITED),
        ('{"deck": 2, "berth": 1}', '{"deck": 1, "berth": 2}', Cause.COUNTER),
        ("Stops: Porto, Gaia, Pinhao", "Stops: Porto, Gaia, Regua!", Cause.EDITED),
    ],
)
def test_the_same_words_in_another_order(old: str, new: str, right: Cause) -> None:
    """Items of a list, keys of JSON inside a text; a sentence whose words were moved was edited."""
    frame = FRAME.replace("{}", "<>")
    one, other = text(frame.replace("<>", old)), text(frame.replace("<>", new))
    found = difference(unpack(packed(one)), detail(other), other)
    assert found.cause is right
    assert found.certain is (right in (Cause.REORDERED, Cause.KEY_ORDER))


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("開館は9時〜17時", "開館は9時～17時", Cause.UNICODE),
        ("علی کیک", "علي كيك", Cause.UNICODE),
        ("Send ☺ always", "Send ☺\ufe0f always", Cause.UNICODE),
        ("السعر (EUR)", "السعر \u200e(EUR)\u200e", Cause.UNICODE),
        ("مـــرحبا", "مرحبا", Cause.UNICODE),
        ("co\u00adop", "coop", Cause.UNICODE),
        ("علی", "علا", Cause.EDITED),
    ],
)
def test_signs_that_look_alike(old: str, new: str, right: Cause) -> None:
    """Forms of a letter on two keyboards, marks of direction, what chooses how a sign is drawn."""
    assert cause(old, new) is right
    assert cause(new, old) is right


SIGNS = st.text(
    st.sampled_from("aZé9٣:=|<>\"'*`-_./\\ ,.。、\u200b客户是様님씨นายชื่อ나MrDr्") | st.characters(), max_size=80
)


@settings(max_examples=300, deadline=None)
@given(SIGNS, SIGNS, st.booleans(), st.booleans(), st.booleans())
def test_any_two_lines_have_a_cause(old: str, new: str, digits: bool, words: bool, figures: bool) -> None:
    """Whatever stands in them, and the same one each time."""
    line = Line(new, digits, words, figures)
    assert cause_of(line) == cause_of(line)
    assert announced(new) == announced(new)
    frame = "Be kind.\n{}\nBe brief."
    one, other = (text(frame.replace("{}", each)) for each in (old, new))
    assert difference(unpack(packed(one)), detail(other), other).cause is not None


@pytest.mark.parametrize("unit", ["a", "1", ":", "1.", "a-", "用户", "| ", "Mr. ", "1 分", "\u200b", "é="])
def test_a_line_without_end(unit: str) -> None:
    """Of a megabyte in one line no more is read than of a short one, and nothing is found that is not there."""
    line = unit * (2**20 // len(unit))
    assert cause_of(Line(line, only_digits=False, only_words=False)) is None
    assert cause_of(Line(line, only_digits=True, only_words=True)) == cause_of(
        Line(line[:SHORT_LINE], only_digits=True, only_words=True)
    )


def test_a_packed_text_has_what_it_had() -> None:
    """The digest of words and the pieces are kept with the rest."""
    for value in (
        "Stops: Porto, Gaia",
        ". ".join(RULES),
        "\n".join(RULES),
        '{"b": 1, "a": 2}',
        "",
        "停靠：波尔图、加亚",
    ):
        assert unpack(packed(text(value))) == detail(text(value))
