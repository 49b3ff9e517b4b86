"""What a changed line is called, in the languages and formats of the world: told from the new text and old hashes."""

from __future__ import annotations

import pytest

from otel_promptcache.fingerprint import detail, difference, packed, unpack
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


PAIRS: dict[Cause, list[tuple[str, str]]] = {
    Cause.TIMESTAMP: [
        # A clock with a dot, with blanks, beside letters that have no blank in front of them.
        ("Abfahrt geprüft um 7.15 Uhr", "Abfahrt geprüft um 7.25 Uhr"),
        ("Relevé à 9 h 30", "Relevé à 9 h 45"),
        ("Nyt kello on 16.20", "Nyt kello on 16.35"),
        ("Klockan är 8.05", "Klockan är 8.55"),
        ("いまの時刻は21:14です", "いまの時刻は21:19です"),
        ("刚刚更新于2027-01-05T08:00:12Z", "刚刚更新于2027-01-05T08:02:41Z"),
        ("ตอนนี้8:40น.", "ตอนนี้8:52น."),
        ("지금 시각은 7:10입니다", "지금 시각은 7:48입니다"),
        ("अभी ७:१० बजे हैं", "अभी ७:४५ बजे हैं"),
        ("الساعة الآن ٨:١٥", "الساعة الآن ٨:٤٠"),
        ("Bây giờ là 9 giờ 20", "Bây giờ là 9 giờ 35"),
        ("时间：1789000111", "时间：1789000542"),
        ("ts_ns=1789000111222333444", "ts_ns=1789000542222333999"),
        ("Letzte Messung vor 12 Minuten", "Letzte Messung vor 17 Minuten"),
        ("Dernier relevé il y a 4 heures", "Dernier relevé il y a 6 heures"),
        ("最終更新：40秒前", "最終更新：55秒前"),
        ("Обновлено 5 минут назад", "Обновлено 8 минут назад"),
        ("現在は午後三時二十分", "現在は午後三時四十分"),
        ("03/Jan/2027:10:11:12 +0000 boot", "03/Jan/2027:10:14:40 +0000 boot"),
    ],
    Cause.DATE_ROLLOVER: [
        ("Today is Jan 5.", "Today is Jan 6."),
        ("Today is the 3rd of March.", "Today is the 4th of March."),
        ("Nous sommes le 9 avril.", "Nous sommes le 10 avril."),
        ("Fahrplan für Sonntag, 07.03.", "Fahrplan für Montag, 08.03."),
        ("本日は3月7日です", "本日は3月8日です"),
        ("오늘은 3월 7일입니다", "오늘은 3월 8일입니다"),
        ("今天是2027/03/07，", "今天是2027/03/08，"),
        ("日付は2027-03-07です", "日付は2027-03-08です"),
        ("R9.3.7 現在の運賃", "R9.3.8 現在の運賃"),
        ("Today is 3/7.", "Today is 3/8."),
        ("आज: रविवार, 7 मार्च 2027", "आज: सोमवार, 8 मार्च 2027"),
        ("আজ রবিবার, ৭ মার্চ ২০২৭", "আজ সোমবার, ৮ মার্চ ২০২৭"),
        ("வெள்ளி, 5 மார்ச் 2027", "சனி, 6 மார்ச் 2027"),
        ("التاريخ: الأحد ٧ مارس ٢٠٢٧", "التاريخ: الاثنين ٨ مارس ٢٠٢٧"),
        ("امروز یکشنبه ۱۶ اسفند ۱۴۰۵", "امروز دوشنبه ۱۷ اسفند ۱۴۰۵"),
        ("วันอาทิตย์ที่ 7 มีนาคม 2570", "วันจันทร์ที่ 8 มีนาคม 2570"),
        ("Dziś jest 7 marca 2027", "Dziś jest 8 marca 2027"),
        ("Hôm nay là ngày 7 tháng 3 năm 2027", "Hôm nay là ngày 8 tháng 3 năm 2027"),
        ("day: 20270307", "day: 20270308"),
        ("Season: Q1 2027", "Season: Q2 2027"),
    ],
    Cause.IDENTIFIER: [
        ("予約は1c9e4b52-0d11-4c7e-8a53-0f5a2f6f1c11です", "予約は7bd25d0e-1f0a-4d7b-8c3b-7e15d2aa90f2です"),
        ("이용은 1c9e4b52-0d11-4c7e-8a53-0f5a2f6f1c11이다", "이용은 7bd25d0e-1f0a-4d7b-8c3b-7e15d2aa90f2이다"),
        ("مرجع الرحلة: 4c91fa07", "مرجع الرحلة: d02b77e1"),
        ("यात्रा संदर्भ: 4c91fa07", "यात्रा संदर्भ: d02b77e1"),
        ("รหัสอ้างอิง: 4c91fa07", "รหัสอ้างอิง: d02b77e1"),
        ("Αναφορά: 4c91fa07", "Αναφορά: d02b77e1"),
        ("<requestId>q7-41c-0e</requestId>", "<requestId>z2-99b-7d</requestId>"),
        ("| Session | q7-41c-0e |", "| Session | z2-99b-7d |"),
        ("**Trace:** q7-41c-0e", "**Trace:** z2-99b-7d"),
        ('  "conversationId": "q7-41c-0e",', '  "conversationId": "z2-99b-7d",'),
        ("Revision 4c91fa0", "Revision d02b77e"),
        ("Booking PNR0044120", "Booking PNR0044987"),
        ("The session id is q7-41c-0e", "The session id is z2-99b-7d"),
    ],
    Cause.COUNTER: [
        ("Fare left: €12.40", "Fare left: €9.10"),
        ('"load": 0.73,', '"load": 0.81,'),
        ("cache_used: 2.04GiB", "cache_used: 2.11GiB"),
        ("Rows so far: 7731204", "Rows so far: 7731377"),
        ("Noch 9 Plätze frei", "Noch 8 Plätze frei"),
        ("<step>4</step>", "<step>5</step>"),
        ("**Turn:** 11", "**Turn:** 12"),
        ("चरण ३", "चरण ४"),
    ],
    Cause.USER_DATA: [
        ("| Passenger | Ida Holm |", "| Passenger | Bo Ek Dahl |"),
        ("**Client:** Ida Holm", "**Client:** Bo Ek Dahl"),
        ("<userName>Ida Holm</userName>", "<userName>Bo Ek Dahl</userName>"),
        ("Le nom de la cliente est Inès Roche.", "Le nom de la cliente est Léa Petit-Jean."),
        ("Der Name des Kunden lautet Götz Lauer.", "Der Name des Kunden lautet Ümit Can."),
        ("Клиента зовут Олег Рябов.", "Клиента зовут Нина Ким."),
        ("You are the assistant of Ida Holm.", "You are the assistant of Bo Ek Dahl."),
        ("Always address her as Dr. Holm.", "Always address her as Dr. Ek Dahl."),
        ("Vous parlez avec Mme Roche.", "Vous parlez avec M. Petit-Jean."),
        ("当前用户是赵敏", "当前用户是孙小圣"),
        ("客户名叫赵敏", "客户名叫孙小圣"),
        ("木村様、ご乗船ありがとうございます", "佐々木様、ご乗船ありがとうございます"),
        ("고객의 이름은 최유리입니다", "고객의 이름은 남궁민입니다"),
        ("ग्राहक का नाम मीरा है", "ग्राहक का नाम अर्जुन सिंह है"),
        ("اسم العميل سلمى", "اسم العميل يوسف حداد"),
        ("ลูกค้าชื่อวิภา", "ลูกค้าชื่อธนพล"),
        ("Passenger: Ida Holm, born 12.03.1961", "Passenger: Bo Ek, born 07.11.1984"),
        ("Phone: (030) 555-0199", "Phone: (040) 555-0177"),
        ("IBAN: PT50 0002 0123 1234 5678 9015 4", "IBAN: PT50 0033 0456 9876 1234 0011 7"),
        ("Date of birth: 1971-02-03", "Date of birth: 1990-08-30"),
        ("電話番号：090-1111-2222", "電話番号：080-3333-4444"),
        ("Anschrift: Kaiweg 4, 20457 Hamburg", "Anschrift: Am Deich 9, 28195 Bremen"),
        ("Hola Lucía,", "Hola Juan Carlos,"),
    ],
    Cause.ENVIRONMENT: [
        ("TERM_PROGRAM=kitty", "TERM_PROGRAM=WezTerm-nightly"),
        ("Share: \\\\nas1\\fleet\\maps", "Share: \\\\nas-two\\fleet\\charts"),
        ("mac: 0a:1b:2c:3d:4e:5f", "mac: f0:9e:8d:7c:6b:5a"),
        ("<cwd>/home/ida/ferry</cwd>", "<cwd>/srv/build/ferry boat</cwd>"),
        ("| branch | winter |", "| branch | fix/summer-times |"),
        ("**Platform:** linux", "**Platform:** darwin (arm)"),
        (" M src/deck.py", "?? notes/new.txt"),
        ("On branch winter", "On branch fix/summer times"),
        ("مجلد العمل: /home/ida/ferry", "مجلد العمل: /srv/build/ferry-two"),
        ("The current branch is winter.", "The current branch is main."),
        ("deck.py  maps.txt  tests", "deck.py  maps.txt  old.txt  tests"),
    ],
    Cause.EDITED: [
        # Nouns that mean a person, a place, a time, an identifier, in rules about them.
        ("The passenger is always asked twice.", "The passenger is never asked twice."),
        ("The customer is our guest and gets a seat.", "The customer is early, so offer a seat."),
        ("Welcome gifts are for children.", "Welcome gifts are for everybody."),
        ("Hello is what we say first.", "Hello and thanks are enough."),
        ("Der Kunde ist stets freundlich zu grüßen.", "Der Kunde ist kurz zu grüßen."),
        ("Le client est toujours servi debout.", "Le client est servi assis."),
        ("El cliente es lo primero.", "El cliente es atendido por turno."),
        ("Клиент никогда не ждёт: зови коллегу.", "Клиент ждёт недолго: извинись."),
        ("客户必须先买票。", "客户可以上船后买票。"),
        ("お客様には席を勧める。", "お客様には立ったまま話す。"),
        ("고객에게 자리를 권한다.", "고객에게 표를 먼저 묻는다."),
        ("العميل يدفع قبل الصعود", "العميل يصعد أولا ثم يدفع"),
        ("ग्राहक को टिकट पहले दें", "ग्राहक से टिकट बाद में लें"),
        ("ลูกค้าต้องซื้อตั๋วก่อน", "ลูกค้าขึ้นเรือก่อนได้"),
        ("What is named a deck here is the roof.", "What is named a deck there is the floor."),
        ("Add salt to the chowder.", "Add salt and dill to the chowder."),
        ("Plant the seed in spring.", "Plant the seed after the frost."),
        ("The branch is closed in winter.", "The branch is open in winter."),
        ("The line was opened in June 1907.", "The line was opened in March 1907."),
        ("The pier is closed on Monday and at night.", "The pier is closed on Friday and at night."),
        ("The session ends when the boat lands.", "The session ends when the engine stops."),
        ("Telephones are off; 2 rings at most.", "Mobiles are off; 3 rings and no more."),
        ("Never tell a passenger the name of the captain.", "Never tell a guest the name of the captain."),
    ],
}


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
