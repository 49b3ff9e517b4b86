"""What changes of itself: times, identifiers, counters, a user's data, the machine, told by the new line alone.

The earlier line is known by hashes only, so a pattern is never evidence of a change; it names one that was seen. One
table: each row a cause, what shows it, and how much of the line must have stayed for it to be believed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_promptcache.semconv import Cause

SHORT_LINE: Final = 1_000
"""Characters of a line that are searched; one that differs in more than digits must not be longer."""
_STATUS_LINE: Final = 200
"""Characters up to which a line is taken for a label and a value, or one sentence, and no prose."""

_I: Final = re.IGNORECASE

# --- Times --------------------------------------------------------------------------------------------------

_MONTH: Final = (
    r"(?:jan|feb|f[ée]v|m[aä]r|apr|avr|abr|ma[iyj]|jun|juin|jul|juil|aug|ao[uû]t|ago|se[pt]|o[ck]t|out|nov|de[cz]|d[ée]c"
    r"|янв|фев|мар|апр|мая|июн|июл|авг|сен|окт|ноя|дек)[^\W\d_]*"
)
_WORD: Final = r"[^\W\d_]{3,}"
_YEAR: Final = r"(?:19|20)\d{2}"
_DATE: Final = re.compile(
    rf"\b{_YEAR}-\d{{2}}-\d{{2}}\b"  # 2026-11-21
    r"|\b\d{1,2}[./]\d{1,2}[./](?:\d{4}|\d{2})\b"  # 21.11.2026, 11/21/26
    r"|\b\d{1,2}-\d{1,2}-(?:19|20)\d{2}\b"
    r"|\b\d{4}[./]\d{1,2}[./]\d{1,2}\b"
    r"|\d{1,4} ?[年년] ?\d{1,2} ?[月월]"
    rf"|\b{_MONTH}\.?(?: \d{{1,2}}(?:st|nd|rd|th)?,?)? {_YEAR}\b"  # November 21st, 2026
    # Day, month, year: months have too many names to list, and the order is the same in most languages.
    rf"|\b\d{{1,2}}(?:st|nd|rd|th|\.)?[ -](?:de )?{_WORD}\.?,?(?: de)?[ -]{_YEAR}\b"
    rf"|\b(?:KW|week|semaine|semana|Woche) ?\d{{1,2}}\b|\b{_YEAR}-?W\d{{2}}\b",
    _I,
)
_MONTH_NAME: Final = re.compile(rf"\b{_MONTH}\.?,? {_YEAR}\b", _I)
_WEEKDAY: Final = re.compile(
    r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch"
    r"|lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|mi[ée]rcoles|jueves|viernes|s[áa]bado|domingo"
    r"|segunda-feira|ter[çc]a-feira|quarta-feira|quinta-feira|sexta-feira"
    r"|luned[iì]|marted[iì]|mercoled[iì]|gioved[iì]|venerd[iì]|domenica"
    r"|понедельник|вторник|среда|четверг|пятница|суббота|воскресенье)\b"
    r"|[月火水木金土日]曜日|星期[一二三四五六日天]|周[一二三四五六日]|[월화수목금토일]요일",
    _I,
)
_CLOCK: Final = re.compile(
    r"\b\d{1,2}[:h]\d{2}\b"  # 14:05, 14:05:59, 14h05
    r"|\b\d{4}-\d{2}-\d{2}[T ]\d{2}"
    r"|\b\d{8}T\d{4}"  # 20261121T140559Z
    r"|\b\d{1,2} ?[ap]\.?m\b"  # 2 pm
    r"|\d{1,2} ?[時时시点] ?\d{0,2}"
    r"|\b1[5-9]\d{8}(?:\.\d+|\d{3}(?:\d{3})?)?\b"  # epoch seconds, milliseconds, microseconds
    r"|\b\d+ (?:seconds?|minutes?|mins?|hours?) ago\b|\buptime\b",
    _I,
)

# --- Names of things ----------------------------------------------------------------------------------------

_URL_SIGNATURE: Final = re.compile(
    r"https?://[^\s\"'<>]+[?&;](?:x-amz-\w+|x-goog-\w+|signature|sig|sv|se|expires|policy|key-pair-id|token|auth|hmac"
    r"|hdnts|verify|md5|st|exp|e|oh|oe|_nc_\w+|ver|t|ts|nonce)=",
    _I,
)
_CLIENT_HEADER: Final = re.compile(
    r"^\s*(?:x-[\w-]+|user-agent|traceparent|tracestate|baggage|sec-[\w-]+|via|forwarded)\s*[:=]"
    r"|\bcch=\w+|\bcc_version=|\bbilling-header\b|\bclient[-_ ](?:version|build|sdk)\b|\bsdk[-_ ]version\b",
    _I,
)
_IDENTIFIER: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\beyJ[\w-]{10,}"  # a token of JSON
    r"|\b(?=[0-9A-HJKMNP-TV-Z]*\d)[0-9A-HJKMNP-TV-Z]{26}\b"  # ULID
    r"|\b(?i:(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,})\b"
    r"|\b[A-Za-z]{1,14}[_:-](?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9][\w-]{7,}\b"  # req_9p1wq761mdqa
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}\b|\b(?=[\w-]*\d)(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{20,22}\b"
    r"|\b\d{9,}\b",
)
_ID_LABEL: Final = re.compile(
    r"\b(?:request|session|trace|span|correlation|conversation|thread|run|job|invocation|message|transaction|call|task"
    r"|event|execution|instance|build|deployment|batch|ticket|workflow|chat|process)[ _-]?"
    r"(?:id|uuid|guid|token|key|nonce|hash|no\.?|number|identifier)?\s*[:=#]\s*\S"
    r"|\b(?:\w*[_-])?(?:uuid|guid|nonce|salt|seed|etag|checksum|request_?id|trace_?id|run_?id|sid|rid|cid)\b\s*[:=#]?\s*\S"
    r"|\b(?:sitzung|anfrage|vorgang|sesi[óo]n|solicitud|requ[êe]te|sess[ãa]o|sessione|richiesta|сессия|запрос|сеанс)"
    r"\w*(?:[ _-]?(?:id|nr\.?|kennung))?\s*[:=#]\s*\S"
    r"|(?:会话|會話|请求|請求|セッション|リクエスト|세션|요청)\s*(?:ID|id|编号|番号|번호)?\s*[:：=]",
    _I,
)
_SURROUNDINGS: Final = (
    r"(?:cwd|pwd|host(?: ?name)?|platform|kernel|branch|arch(?:itecture)?|shell|os(?: version)?|uname|node|python"
    r"|runtime|terminal|time ?zone|tz|workspace|sandbox|container|pod|region|datacenter|zone|ip(?: address)?"
    r"|git (?:status|branch|commit|root|repo\w*)|is (?:a )?git repo\w*|current branch|machine|device|worktree"
    r"|(?:(?:current|working|project|home|root|base) )+(?:dir(?:ectory)?|folder|path|root)|working ?copy"
    r"|repo(?:sitory)?)"
)
_PLACE_LABEL: Final = re.compile(
    r"<env\b|</env>|<environment"
    rf"|(?:^|[^\w-])(?:{_SURROUNDINGS})[\"'*]*\s*[:=]"
    rf"|^\W*(?:(?:the|your|current|you are (?:in|on))\s+)*{_SURROUNDINGS}\s+is\b"
    r"|^\W*you are (?:running|working|operating) (?:on|in|inside|from)\b"
    r"|\b(?:arbeitsverzeichnis|verzeichnis|rechner|betriebssystem|plattform|zweig|r[ée]pertoire|dossier|syst[èe]me"
    r"|plateforme|branche|directorio|carpeta|sistema|plataforma|rama|diret[óo]rio|cartella|ramo)\b[^:=\n]{0,24}[:=]"
    r"|(?:рабочий каталог|каталог|платформа|ветка|作業ディレクトリ|ホスト|プラットフォーム|ブランチ"
    r"|工作目录|主机|平台|分支|작업 디렉터리|호스트|브랜치)[^:=：\n]{0,12}[:=：]"
    r"|\b\d+ (?:files?|dateien|fichiers|archivos) (?:modified|changed|untracked|staged|ge[äa]ndert|modifi|modificad)",
    _I,
)
_PLACE: Final = re.compile(
    r"(?:^|[\s\"'`=(:])(?:~|\.{1,2})?/(?:home|users|root|tmp|var|opt|usr|mnt|srv|workspaces?|app|data|private|builds?|etc"
    r"|volumes|code|src|repo|worktrees?)(?:/[\w.@+-]+)+"
    r"|\b[A-Za-z]:\\[\w\\ .-]+|(?:^|\s)~/[\w./-]+"
    r"|\b(?:darwin|linux|ubuntu|debian|windows(?: nt)?|macos|alpine|freebsd)[ /-]?v?\d"
    r"|\bip-\d+-\d+-\d+-\d+\b|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[a-z0-9-]+\.(?:internal|local|lan|corp)\b",
    _I,
)

# --- People -------------------------------------------------------------------------------------------------

_WHO: Final = (
    r"(?:user|customer|client|member|patient|student|employee|tenant|account|subscriber|guest|caller|contact|owner"
    r"|recipient|visitor|person|buyer|learner|player|reader"
    r"|benutzer|nutzer|kunde|kundin|anwender|mitglied|utilisateur|utilisatrice|cliente?|abonn[ée]e?|usuari[oa]|utente"
    r"|gebruiker|klant|kund|anv[äa]ndare|bruker|u[żz]ytkownik|klient|kullan[ıi]c[ıi]|m[üu][şs]teri"
    r"|пользователь|клиент|користувач|χρήστης|πελάτης|người dùng|khách hàng)"
)
_ABOUT: Final = (
    r"(?:name|id|info|profile|plan|tier|role|e-?mail|phone|address|language|locale|country|city|age|type|segment"
    r"|preferences?|since|data|details|context|birthday|dob|birthdate|subscription|membership|loyalty|company"
    r"|organi[sz]ation|department|job title|team|interests|hobbies|vorname|nachname|anschrift|sprache|pr[ée]nom|nom"
    r"|langue|nombre|apellido|idioma|nome|sobrenome|cognome|lingua|naam|imi[ęe]|имя|фамилия|язык)"
)
_PERSON: Final = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"
    r"|\+\d{1,3}[ ()-]?\d[\d ()/-]{6,}"
    # Label and value: "Customer name: …", "user.plan=…", "Benutzer: …".
    rf"|(?:^|[\s\"'<{{(\[-])(?:(?:first|last|full|display|given|family)[ ._-]?)?(?:{_WHO}|{_ABOUT})"
    r"(?:['’]s)?(?:[ ._-]?(?:first|last|full|display|given|family))?"
    rf"(?:[ ._-]?{_ABOUT})?[\"'*]*\s*[:=>]"
    # "The user's name is …", at the start of a line.
    rf"|^\W*(?:(?:the|this|your|current|our|der|die|das|le|la|l['’]|el|il|o|a)\s*)*{_WHO}\b[^.:=\n]{{0,24}}"
    r"\b(?:is|ist|hei[ßs]+t|est|s['’]appelle|es|se llama|è|si chiama|é|se chama)\b"
    r"|\b(?:helping|assisting|serving|talking (?:to|with)|speaking (?:to|with)|chatting with|on behalf of|signed in as"
    r"|logged in as|address(?:ing)? (?:them|the user) as|(?:is|are) (?:called|named)|my name is|named)\b"
    r"|\b(?:sie helfen|du hilfst|sie sprechen mit|angemeldet als|vous (?:aidez|assistez|parlez)|connect[ée]e? en tant"
    r"|ayuda(?:s|ndo)? a|hablas con|atendiendo a|ajudando|atendendo|stai (?:aiutando|parlando)|помога(?:ешь|ете))"
    r"|^\W*(?:welcome(?: back)?|dear|hello|hi|hey|greetings|hallo|guten (?:tag|morgen|abend)|sehr geehrte[rs]?|bonjour"
    r"|ch[eè]re?|hola|estimad[oa]|buenos d[íi]as|ciao|buongiorno|gentile|ol[áa]|prezad[oa]|beste|geachte|hej|witaj"
    r"|здравствуй\w*|привет|уважаем\w*|xin chào)\b"
    r"|المستخدم|العميل|اسم|مرحبا|משתמש|לקוח|שלום|उपयोगकर्ता|ग्राहक|नाम|नमस्ते|ผู้ใช้|ลูกค้า|ชื่อ|สวัสดี"
    r"|ユーザー|お客様|利用者|名前|氏名|\w様|\wさん|用户|用戶|客户|客戶|姓名|名字|\w先生|\w女士|您好|사용자|고객|이름|\w님",
    _I,
)
_NAMED: Final = re.compile(
    rf"\b(?i:{_WHO})(?: (?:is|named|called))?,? [^\W\d_a-z][^\W\d_]+(?:[ -][^\W\d_a-z][^\W\d_]*)*"
)
"""Somebody's name behind what they are: "customer Jane Doe"."""

# --- Counts -------------------------------------------------------------------------------------------------

_COUNT: Final = re.compile(
    r"\b\d{1,6}\s*(?:/|of|von|de|di|из|sur|out of|van|af|av|od|的|中)\s*\d{1,6}\b"
    r"|#\s?\d{1,8}\b|\b(?:no|nr|n[º°o])\.? ?\d{1,6}\b|第 ?\d{1,6}|\d{1,6} ?(?:回目|件目|番目|次|轮|회|번째)"
    r"|\b(?:turns?|steps?|attempts?|tr(?:y|ies)|iterations?|rounds?|retr(?:y|ies)|messages?|requests?|calls?|loops?|pass"
    r"|counter|count|index|seq(?:uence)?|remaining|left|used|budget|tokens?|credits?|queue|unread|pending|visits?"
    r"|epoch|cycle|total|score|balance|quota|items?|schritt|versuch|runde|nachricht|[ée]tape|essai|tour"
    r"|paso|intento|turno|ronda|mensaje|passo|tentativa|rodada|tentativo|messaggio|stap|poging|шаг|попытка|ход|сообщение"
    r"|ステップ|ターン|試行|步骤|轮次|次数|단계|시도|턴)\b[^\d\n]{0,16}\d",
    _I,
)
_NUMBER: Final = re.compile(r"(?<![\w.:])\d{1,6}(?![\w.:]*\d)")


class Line(NamedTuple):
    """A differing line of the new text, and what the hashes say of how it differs."""

    text: str
    only_digits: bool
    """All that changed in the whole text is digits."""
    only_words: bool
    """All that changed is words: blanks and punctuation are the same."""
    same_digits: bool = False
    """No digit changed in the whole text."""


def cause_of(line: Line) -> Cause | None:
    """What changed in a line of itself, as far as it shows; None where it reads like text that somebody wrote."""
    text = line.text[:SHORT_LINE]
    if not line.only_digits and len(line.text) > (SHORT_LINE if line.only_words else _STATUS_LINE):
        return None
    for cause, holds in _RULES:
        if holds(text, line):
            return cause
    return None


_OF_ITSELF: Final = (
    # What a whole line may consist of, beside its label; the most specific first.
    (Cause.CLIENT_HEADER, _CLIENT_HEADER),
    (Cause.TIMESTAMP, _CLOCK),
    (Cause.IDENTIFIER, _IDENTIFIER),
    (Cause.DATE_ROLLOVER, _DATE),
)
_LABEL_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_LABEL_WORDS: Final = 4


def announced(text: str) -> Cause | None:
    """What a line, or a sentence, that was put in is nothing else than: a time, an identifier, a header, with its
    label. It will not be the same in the next request."""
    if len(text) > _STATUS_LINE:
        return None
    for cause, pattern in _OF_ITSELF:
        if pattern.search(text) is not None:
            rest = text if cause is Cause.CLIENT_HEADER else _IDENTIFIER.sub("", _DATE.sub("", pattern.sub("", text)))
            return cause if len(_LABEL_WORD.findall(rest)) <= _LABEL_WORDS else None
    return None


def _is_header(text: str, line: Line) -> bool:
    return _CLIENT_HEADER.search(text) is not None


def _is_signed_url(text: str, line: Line) -> bool:
    return _URL_SIGNATURE.search(text) is not None


def _is_labelled_place(text: str, line: Line) -> bool:
    return _PLACE_LABEL.search(text) is not None and not _CLOCK.search(text)


def _is_time(text: str, line: Line) -> bool:
    return not line.same_digits and _CLOCK.search(text) is not None


def _is_date(text: str, line: Line) -> bool:
    if not line.same_digits:
        return _DATE.search(text) is not None or (not line.only_digits and _WEEKDAY.search(text) is not None)
    return line.only_words and (_WEEKDAY.search(text) is not None or _MONTH_NAME.search(text) is not None)


def _is_labelled_count(text: str, line: Line) -> bool:
    return line.only_digits and _COUNT.search(text) is not None and not _IDENTIFIER.search(text)


def _is_person(text: str, line: Line) -> bool:
    if line.only_digits or len(text) > _STATUS_LINE:
        return False
    return _PERSON.search(text) is not None or _NAMED.search(text) is not None


def _is_identifier(text: str, line: Line) -> bool:
    return not line.same_digits and _IDENTIFIER.search(text) is not None


def _is_labelled_identifier(text: str, line: Line) -> bool:
    return len(text) <= _STATUS_LINE and _ID_LABEL.search(text) is not None


def _is_place(text: str, line: Line) -> bool:
    return _PLACE.search(text) is not None


def _is_number(text: str, line: Line) -> bool:
    return line.only_digits and len(text) <= _STATUS_LINE // 2 and _NUMBER.search(text) is not None


_RULES: Final = (
    # The order is that of how specific the evidence is.
    (Cause.CLIENT_HEADER, _is_header),
    (Cause.URL_SIGNATURE, _is_signed_url),
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
    r"|(?:source|context|document|passage|chunk|excerpt|title|url|retrieved|search results?|relevant \w+|quelle|kontext"
    r"|contexte|contexto|contesto|fuente|fonte|документ|контекст|источник|文書|検索結果|出典|资料|来源|上下文|문서|출처)"
    r"[^\n:：]{0,24}[:：])",
    _I,
)
"""A line that begins a piece of retrieved text."""
