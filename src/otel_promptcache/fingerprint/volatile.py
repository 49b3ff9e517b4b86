"""What changes of itself: times, identifiers, counters, a user's data, the machine, told by the new line alone.

The earlier line is known by hashes only, so a pattern is never evidence of a change; it names one that was seen. One
table: each row a cause, what shows it, and how much of the line must have stayed for it to be believed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_promptcache.fingerprint import names, people, times
from otel_promptcache.fingerprint.detail import STATUS_LINE
from otel_promptcache.fingerprint.signs import readable
from otel_promptcache.semconv import Cause

SHORT_LINE: Final = 1_000
"""Characters of a line that are searched; one that differs in more than digits must not be longer."""
_LABEL_WORDS: Final = 4
"""Words that a time, an identifier or a count has beside it, at most, where a line says nothing else."""
_I: Final = re.IGNORECASE

# --- Counts -------------------------------------------------------------------------------------------------

_COUNT: Final = re.compile(
    r"(?<!\d)\d{1,6}\s{0,3}(?:/|of|von|de|di|из|sur|out of|van|af|av|od|的|中)\s{0,3}\d{1,6}(?!\d)"
    r"|#\s?\d{1,8}\b"
    r"|(?:number|nummer|num[ée]ro|n[úu]mero|номер\w?|번호|番号|编号|رقم|संख्या|หมายเลข)\W{0,3}\d"
    r"|\b(?:no|nr|n[º°o])\.? ?\d{1,6}\b|第 ?\d{1,6}|\d{1,6} ?(?:回目|件目|番目|次|轮|회|번째)"
    r"|\b\d{1,6} (?:more )?(?:\w{1,20} )?(?:left|remaining|übrig|verbleibend\w*|restant\w*"
    r"|rimast\w|осталось|kvar|kaldı)\b"
    r"|\b(?:noch|encore|remains?|осталось|quedan?|restam?|ancora|nog) \d{1,6}\b"
    r"|\b(?:turns?|steps?|attempts?|tr(?:y|ies)|iterations?|rounds?|retr(?:y|ies)|messages?|requests?|calls?|loops?|pass"
    r"|counter|count|index|seq(?:uence)?|remaining|left|used|budget|tokens?|credits?|queue|unread|pending|visits?"
    r"|epoch|cycle|total|score|balance|quota|items?|schritt|versuch|runde|nachricht|[ée]tape|essai|tour"
    r"|paso|intento|turno|ronda|mensaje|passo|tentativa|rodada|tentativo|messaggio|stap|poging|шаг|попытка|ход|сообщение"
    r"|ステップ|ターン|試行|步骤|轮次|次数|단계|시도|턴)\b[^\d\n]{0,16}\d",
    _I,
)
_FIGURE: Final = re.compile(r"(?<![\d.])(?<!\d:)\d{1,20}(?:,\d{3})*(?:[.,]\d{1,9})?(?![\d.:]{0,20}\d)")
"""A number that is no part of a version or a ratio: those somebody changes."""
_BIG_NUMBER: Final = re.compile(r"(?a:(?<![\w.:]))\d{6,8}(?![\d.:])")


class Line(NamedTuple):
    """A differing line of the new text, and what the hashes say of how it differs."""

    text: str
    only_digits: bool
    """All that changed in the whole text is digits."""
    only_words: bool
    """All that changed is words: blanks and punctuation are the same."""
    same_digits: bool = False
    """No digit changed in the whole text."""
    apart: bool = False
    """Other lines changed elsewhere: what is said of the whole text may be true of those."""
    sentence: bool = False
    """A sentence out of a longer line, where a number may be part of what it says."""


def cause_of(line: Line) -> Cause | None:
    """What changed in a line of itself, as far as it shows; None where it reads like text that somebody wrote."""
    if not line.only_digits and len(line.text) > (SHORT_LINE if line.only_words else STATUS_LINE):
        return None
    text = readable(line.text[:SHORT_LINE])[:SHORT_LINE]
    for cause, holds in _RULES:
        if holds(text, line):
            return cause
    return None


def announced(text: str) -> Cause | None:
    """What a line, or a sentence, that was put in is nothing else than: a time, an identifier, a header, with its
    label. It will not be the same in the next request."""
    if len(text) > STATUS_LINE:
        return None
    text = readable(text)
    for cause, holds in _OF_ITSELF:
        if holds(text):
            rest = text if cause is Cause.CLIENT_HEADER else names.without_names(text)
            return cause if times.words(rest) <= _LABEL_WORDS else None
    return None


def _has_header(text: str) -> bool:
    return names.CLIENT_HEADER.search(text) is not None


_OF_ITSELF: Final = (
    # What a whole line may consist of, beside its label; the most specific first.
    (Cause.CLIENT_HEADER, _has_header),
    (Cause.TIMESTAMP, times.has_clock),
    (Cause.IDENTIFIER, names.has_identifier),
    (Cause.DATE_ROLLOVER, times.has_date),
)


def _is_header(text: str, line: Line) -> bool:
    return _has_header(text)


def _is_signed_url(text: str, line: Line) -> bool:
    return names.URL_SIGNATURE.search(text) is not None


def _is_data_of_a_person(text: str, line: Line) -> bool:
    """Figures that are somebody's, or a label in front of a date that is."""
    if len(text) > STATUS_LINE or line.same_digits:
        return False
    return people.says_who(text) or (
        not line.only_digits
        and times.has_date(text)
        and not times.has_clock(text)
        and people.begins_with_somebody(text)
    )


def _is_labelled_place(text: str, line: Line) -> bool:
    if times.has_clock(text):
        return False
    return names.has_labelled_place(text) or (not line.only_digits and names.is_variable(text))


def _is_time(text: str, line: Line) -> bool:
    return times.has_clock_in_words(text) or (not line.same_digits and times.has_clock(text))


def _is_date(text: str, line: Line) -> bool:
    if line.only_digits:
        return times.has_date(text)
    if line.same_digits:
        return line.only_words and times.names_a_day(text) and times.is_of_today(text)
    # More than digits changed: the name of a day or a month can be all of it, a date in figures cannot.
    return times.names_a_day(text) or (line.apart and announced(text) is Cause.DATE_ROLLOVER)


def _is_labelled_count(text: str, line: Line) -> bool:
    counts = line.only_digits or (line.apart and times.words(text) <= _LABEL_WORDS)
    return counts and _COUNT.search(text) is not None and not names.has_identifier(text)


def _is_person(text: str, line: Line) -> bool:
    return not line.only_digits and len(text) <= STATUS_LINE and people.is_about_somebody(text)


def _is_identifier(text: str, line: Line) -> bool:
    return not line.same_digits and names.has_identifier(text)


def _is_labelled_identifier(text: str, line: Line) -> bool:
    if len(text) > STATUS_LINE or line.same_digits:
        return False
    return names.has_labelled_identifier(text, digits_alone=line.only_digits)


def _is_place(text: str, line: Line) -> bool:
    return names.has_place(text)


def _is_number(text: str, line: Line) -> bool:
    """Any figure in a line of few words; in a sentence of a longer line, only one that no rule would have."""
    if not line.only_digits or len(text) > STATUS_LINE:
        return False
    return (_BIG_NUMBER if line.sentence else _FIGURE).search(text) is not None


_RULES: Final = (
    # The order is that of how specific the evidence is.
    (Cause.CLIENT_HEADER, _is_header),
    (Cause.URL_SIGNATURE, _is_signed_url),
    (Cause.USER_DATA, _is_data_of_a_person),
    (Cause.TIMESTAMP, _is_time),
    (Cause.DATE_ROLLOVER, _is_date),
    (Cause.ENVIRONMENT, _is_labelled_place),
    (Cause.COUNTER, _is_labelled_count),
    (Cause.IDENTIFIER, _is_identifier),
    (Cause.IDENTIFIER, _is_labelled_identifier),
    (Cause.USER_DATA, _is_person),
    (Cause.ENVIRONMENT, _is_place),
    (Cause.COUNTER, _is_number),
)

RETRIEVED: Final = re.compile(
    r"^\s*(?:[\[(<]\s*/?(?:doc(?:ument)?s?|chunks?|passages?|sources?|results?|context|snippets?|articles?|search\w*"
    r"|retriev\w*|memor(?:y|ies)|facts?|excerpts?|quelle|fuente|fonte|extrait)\b|\[\d{1,3}\]"
    r"|(?:source|context|document|passage|chunk|excerpt|snippet|title|url|retrieved|search results?|relevant \w+"
    r"|quelle|kontext|auszug|fundstelle|dokument|contexte|extrait|passage|r[ée]sultat|contexto|fragmento|resultado|trecho"
    r"|contesto|estratto|risultato|fuente|fonte|bron|källa|kilde|[źz]r[óo]d[łl]o|kaynak|ngu[ồo]n|t[àa]i li[ệe]u"
    r"|документ|контекст|источник|отрывок|фрагмент|джерело|πηγή|المصدر|مصدر|المستند|مقتطف|نتيجة|منبع|מקור"
    r"|स्रोत|दस्तावेज़|संदर्भ|উৎস|แหล่งที่มา|เอกสาร"
    r"|文書|検索結果|出典|抜粋|資料|资料|来源|上下文|检索结果|搜索结果|片段|文档|문서|출처|검색 결과|발췌|자료)"
    r"[^\n:：]{0,24}[:：])",
    _I,
)
"""A line that begins a piece of retrieved text."""
