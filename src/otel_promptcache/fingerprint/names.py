"""Names of things that change by themselves: identifiers, headers, signed addresses, machines and places on them."""

from __future__ import annotations

import re
from typing import Final

from otel_promptcache.fingerprint.times import EDGE, LETTER, without_times

_I: Final = re.IGNORECASE

BEHIND: Final = r"[\"'*`_\])]{0,3}\s{0,4}(?:[:=>|#]|=>|->)\s{0,4}[\"'*`_\[(]{0,3}\s{0,4}"
"""What parts a label from its value: in prose, a configuration, JSON, Markdown, a table, XML."""
_TO_END: Final = r"[\"'*`_)\]|;,.。]{0,4}\s{0,4}(?:</|/?>|\||$|[,;。]|\.\s)"
"""What a value is followed by, if it is one word."""

URL_SIGNATURE: Final = re.compile(
    r"https?://[^\s\"'<>]+[?&;](?:x-amz-\w+|x-goog-\w+|signature|sig|sv|se|expires|policy|key-pair-id|token|auth|hmac"
    r"|hdnts|verify|md5|st|exp|e|oh|oe|_nc_\w+|ver|t|ts|nonce)=",
    _I,
)
CLIENT_HEADER: Final = re.compile(
    r"^\W{0,8}(?:x-[\w-]+|user-agent|traceparent|tracestate|baggage|sec-[\w-]+|via|forwarded)[\"'*`]{0,3}\s*[:=]"
    r"|\bcch=\w+|\bcc_version=|\bbilling-header\b|\bclient[-_ ](?:version|build|sdk)\b|\bsdk[-_ ]version\b",
    _I,
)

# --- Identifiers --------------------------------------------------------------------------------------------

IDENTIFIER: Final = re.compile(
    # Letters and digits of ASCII end where letters of another script begin.
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\beyJ[\w-]{10,}"  # a token of JSON
    r"|\b(?=[0-9A-HJKMNP-TV-Z]{0,25}\d)[0-9A-HJKMNP-TV-Z]{26}\b"  # ULID
    r"|\b(?=[0-9a-fA-F]{0,40}\d)(?=\d{0,40}[a-fA-F])[0-9a-fA-F]{12,128}\b"
    r"|\b[A-Za-z]{1,14}[_:-](?=[\w-]{0,40}\d)(?=[\w-]{0,40}[A-Za-z])[A-Za-z0-9][\w-]{7,80}\b"  # req_9p1wq761mdqa
    r"|\b(?=[A-Za-z]{0,40}\d)(?=\d{0,40}[A-Za-z])[A-Za-z0-9]{16,128}\b"
    r"|\b(?=[\w-]{0,21}\d)(?=[\w-]{0,21}[A-Z])(?=[\w-]{0,21}[a-z])[\w-]{20,22}\b"
    r"|\b\d{9,1000}\b",
    re.ASCII,
)
_FIGURED: Final = r"(?=[^\s,;|<>\"']{0,60}\d)[^\s,;|<>\"']{2,}"
"""A value of one word with a digit in it."""
_IS: Final = rf"(?:{BEHIND}|[\"'*`]{{0,3}}\s+(?:is|ist|lautet|est|es|è|é|är|to|=)\s+)"
_ID_LABEL: Final = re.compile(
    r"(?:^|[^a-z])(?:request|session|trace|span|correlation|conversation|thread|run|job|invocation|message|transaction|call"
    r"|task|event|execution|instance|build|deployment|batch|ticket|workflow|chat|process|order|case|commit|revision)"
    rf"[ _-]?(?:id|uuid|guid|token|key|nonce|hash|no\.?|number|identifier|sha)?{_IS}{_FIGURED}"
    r"|(?a:(?:^|[^a-z]|(?<=[a-z])(?=(?-i:I))))(?:\w{0,30}[_-])?(?:u?u?id|guid|nonce|salt|seed|etag|checksum|request_?id"
    rf"|trace_?id|run_?id|sid|rid|cid|token|hash|sha\d*|digest){_IS}{_FIGURED}"
    r"|\b(?:sitzung|anfrage|vorgang|kennung|sesi[óo]n|solicitud|requ[êe]te|sess[ãa]o|sessione|richiesta|sessie|oturum"
    rf"|сессия|запрос|сеанс)\w*(?:[ _-]?(?:id|nr\.?|kennung))?{BEHIND}{_FIGURED}"
    rf"|(?:会话|會話|请求|請求|セッション|リクエスト|세션|요청)\s*(?:ID|id|编号|番号|번호)?{BEHIND}{_FIGURED}",
    _I,
)
_MIXED: Final = r"(?=[\w-]{0,60}\d)(?=[\w-]{0,60}[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]{5,63}(?a:(?![\w/:]))"
_LABELLED_TOKEN: Final = re.compile(rf"{BEHIND}({_MIXED}){_TO_END}|{LETTER}\s({_MIXED}){_TO_END}")
_PRODUCT: Final = re.compile(r"\b(?:model|version|engine|release|runtime|encoding|format|codec|font|unit)", _I)
_RUNS: Final = re.compile(r"[A-Za-z]+|\d+")
_MAC: Final = re.compile(rf"{EDGE}(?:[0-9a-f]{{2}}[:-]){{5}}[0-9a-f]{{2}}{EDGE}", _I)
_MEASURE: Final = re.compile(r"^\d+x\d+$|\d{4}-\d{2}", _I)


def has_identifier(text: str) -> bool:
    """Whether an identifier stands in a text that can be nothing else, wherever it stands."""
    return IDENTIFIER.search(text) is not None


def has_labelled_identifier(text: str, *, digits_alone: bool) -> bool:
    """Whether what stands behind a label is an identifier: by the label, or, whatever the language, because letters and
    digits are mixed as nobody writes them. ``digits_alone``: all that changed is digits."""
    if _ID_LABEL.search(text) is not None and _MAC.search(text) is None:
        return True
    if _PRODUCT.search(text) is not None or len(re.findall(rf"{LETTER}{{2,}}", text)) > 12:
        return False
    found = (one or other for one, other in _LABELLED_TOKEN.findall(text))
    return any(_is_random(token, digits_alone) for token in found)


def _is_random(token: str, digits_alone: bool) -> bool:  # noqa: FBT001
    if _MEASURE.search(token):
        return False
    runs = _RUNS.findall(token)
    longest = max((len(run) for run in runs if run.isalpha()), default=0)
    if digits_alone:
        return any(len(run) >= 4 and run.isdigit() for run in runs)
    # Letters and digits take turns, and make no word.
    return (longest <= 4 and sum(run.isdigit() for run in runs) >= 2) or (
        longest <= 2 and sum(map(str.isdigit, token)) >= 4
    )


# --- Places -------------------------------------------------------------------------------------------------

_SURROUNDINGS: Final = (
    r"(?:cwd|pwd|host(?: ?name)?|platform|kernel|branch|arch(?:itecture)?|shell|os(?: version)?|uname|node|python"
    r"|runtime|terminal|time ?zone|tz|workspace|sandbox|container|pod|region|datacenter|zone|(?:ip|mac)(?: address)?"
    r"|git (?:status|branch|commit|root|repo\w*)|is (?:a )?git repo\w*|current branch|machine|device|worktree"
    r"|(?:(?:current|working|project|home|root|base) ?_?)+(?:dir(?:ectory)?|folder|path|root)|working ?copy"
    r"|repo(?:sitory)?|screen(?: size)?|display|resolution|gpu|cpu|operating ?system|locale|server)"
)
_LOCAL_WORDS: Final = (
    r"(?:arbeitsverzeichnis|verzeichnis|rechner|betriebssystem|plattform|zweig|r[ée]pertoire|dossier|syst[èe]me"
    r"|plateforme|branche|directorio|carpeta|sistema|plataforma|rama|diret[óo]rio|cartella|ramo|katalog|gałąź|gren"
    r"|рабочий каталог|каталог|платформа|ветка|хост|作業ディレクトリ|ホスト|プラットフォーム|ブランチ"
    r"|工作目录|主机|平台|分支|작업 디렉터리|호스트|브랜치|플랫폼"
    r"|المجلد|مجلد|المنصة|الخادم|निर्देशिका|प्लेटफ़ॉर्म|โฟลเดอร์|แพลตฟอร์ม)"
)
_SYSTEM: Final = (
    r"(?:linux|darwin|macos|windows|win32|ubuntu|debian|alpine|freebsd|bash|zsh|fish|powershell|main|master|develop)"
)
_PLACE_LABEL: Final = re.compile(
    r"<env\b|</env>|<environment"
    # At the start of a line or of a value; somewhere in a sentence it is a word.
    rf"|(?:^|[,;|(<{{\"'])\W{{0,8}}(?:[^\W_]{{1,20}}[ ._-]){{0,2}}(?:{_SURROUNDINGS}){BEHIND}"
    r"|\bon (?:the )?(?:host|machine|server|node|branch) [`\"']?(?=\S{0,40}[\d./_-])[\w./-]+"
    # "The branch is main", and not "The branch is closed".
    rf"|\b{_SURROUNDINGS}\s+is\s+[`\"']?(?:{_SYSTEM}{EDGE}|(?=\S{{0,60}}[/\\\d_~])\S+[.!]?\s*(?:$|\s(?=[A-Z])))"
    r"|\b(?:current|checked[ -]out) branch is\b"
    r"|^\W*you are (?:running|working|operating) (?:on|in|inside|from)\b"
    rf"|{_LOCAL_WORDS}[^:=：\n]{{0,24}}{BEHIND}"
    r"|\b\d+ (?:files?|dateien|fichiers|archivos) (?:modified|changed|untracked|staged|ge[äa]ndert|modifi|modificad)"
    r"|^\s*(?:on branch|your branch is|nothing to commit|untracked files|changes (?:not staged|to be committed)"
    r"|(?:modified|deleted|new file|renamed):)",
    _I,
)
_PLACE: Final = re.compile(
    r"(?:^|[\s\"'`=(:>|]|(?![a-z])"
    + LETTER
    + r")(?:~|\.{1,2})?/(?:home|users|root|tmp|var|opt|usr|mnt|srv|workspaces?|app"
    r"|data|private|builds?|etc|volumes|code|src|repo|worktrees?)(?:/[^\s/\"'<>|,;]+)+"
    r"|\b[A-Za-z]:\\[\w\\ .-]+|(?:^|[\s>|=:])~/[\w./-]+"
    r"|(?:^|[\s>|=:\"'`(])\\\\[\w.-]+\\[\w$. -]+"  # a share
    r"|\b(?:darwin|linux|ubuntu|debian|windows(?: nt)?|macos|alpine|freebsd)[ /-]?v?\d"
    r"|\bip-\d+-\d+-\d+-\d+\b|(?a:(?<![\w.]))\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)"
    r"|\b[a-z0-9-]{1,63}\.(?:internal|local|lan|corp)\b"
    r"|" + _MAC.pattern,
    _I,
)
_VARIABLE: Final = re.compile(r"^\W{0,6}(?:(?:export|set|env) )?[A-Z][A-Z0-9_]{1,40}=\S")
_GIT_STATUS: Final = re.compile(r"^(?: [MADRCTU]|[MADRCTU?!]{2}|[MADRCTU] ) (?=\S*[./])\S+$")
_FILE: Final = re.compile(r"[\w@+-][\w.@+/-]{0,80}")


_VALUE_WORDS: Final = 6


def has_labelled_place(text: str) -> bool:
    """Whether a line says where something runs."""
    found = _PLACE_LABEL.search(text)
    if found is None:
        return _GIT_STATUS.match(text) is not None
    value = text[found.end() :]
    return len(value.split()) <= _VALUE_WORDS or re.search(r"[/\\\d]", value) is not None


def is_variable(text: str) -> bool:
    """Whether a line sets a variable of the environment."""
    return _VARIABLE.match(text) is not None


def has_place(text: str) -> bool:
    """Whether a directory, a system, an address on the network stands in it; or files, listed side by side."""
    if _PLACE.search(text) is not None:
        return True
    listed = re.split(r"\s{2,}|\t", text.strip())
    return len(listed) > 2 and all(map(_FILE.fullmatch, listed)) and sum("." in name for name in listed) >= 2


def without_names(text: str) -> str:
    """A text without the identifiers and the times in it."""
    return without_times(IDENTIFIER.sub("", text))
