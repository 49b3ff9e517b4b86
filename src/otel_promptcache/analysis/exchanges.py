"""Recorded traffic as files have it, and the neutral ``Exchange`` that all of it becomes.

Known by their shape, not by their name: a labelled corpus, request logs as JSON lines (also the model invocation log
of Bedrock), Claude Code transcripts (``sessions``), recorded cassettes (ours and vcrpy's), HAR files. What has no
prompt, or speaks a dialect that is not known, is counted and passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from otel_promptcache.analysis.documents import TrafficError, documents, opened, parsed
from otel_promptcache.model import Answer
from otel_promptcache.providers import DIALECTS, Dialect, gemini, provider_for
from otel_promptcache.providers._wire import mapping, string

BY_NAME: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (*DIALECTS, gemini)}
"""Every dialect that can be read: more than are observed live."""

APART: Final = 1.0
"""Seconds from one request to the next where a file does not say when they were made."""

INSTANT: Final = 1e-3
"""Seconds an answer is taken to need where nobody measured: so short that no two requests are thought to overlap."""


class Exchange(NamedTuple):
    """A request and what is known of its answer. Times are POSIX seconds."""

    case: str
    """Requests of different cases never share a cache."""
    name: str
    """What the file calls it, or the file itself."""
    number: int
    """Place among the requests of that name, from 0."""
    dialect: Dialect
    provider: str
    endpoint: str
    credential: str
    session: str
    body: Mapping[str, Any]
    answer: Answer
    at: float
    begun: float
    ended: float
    timed: bool = True
    """False where the file does not say when: the order is then all that is known."""
    whole: bool = True
    """False where the body was put together from a transcript: tools, system prompt and markers are not in it."""
    compacted: bool = False
    """Whether the transcript says that its history was summarised in front of this request."""


@dataclass
class Reading:
    """What was found in files, and what was passed over and why."""

    exchanges: list[Exchange] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def cases(self) -> list[list[Exchange]]:
        """The exchanges of each case, in the order of the files."""
        found: dict[str, list[Exchange]] = {}
        for exchange in self.exchanges:
            found.setdefault(exchange.case, []).append(exchange)
        return list(found.values())


def read(names: Iterable[str]) -> Reading:
    """Everything in these files. Raises OSError, and TrafficError for a file without any traffic."""
    from otel_promptcache.analysis import sessions

    reading = Reading()
    for name in names:
        before = len(reading.exchanges), reading.skipped.total()
        transcript: list[Mapping[str, Any]] = []
        for number, document in enumerate(documents(name)):
            if sessions.is_entry(document):
                transcript.append(document)
            else:
                _take(document, name, number, reading)
        reading.exchanges += sessions.exchanges(transcript, name)
        if before == (len(reading.exchanges), reading.skipped.total()):
            raise TrafficError(
                f"{name}: no requests. Readable are a corpus, request logs as JSON lines, Claude Code transcripts, "
                "cassettes (JSON, YAML) and HAR files, plain or .gz"
            )
    return reading


def body_of(name: str) -> Mapping[str, Any]:
    """The request body in a file that holds one: bare, or within a log line or cassette. Raises as ``read`` does."""
    with opened(name) as handle:
        text = handle.read()
    document = parsed(text)
    if document is None:
        raise TrafficError(f"{name}: not one JSON document") from None
    found = _first(document, _BODY, _json_object) if isinstance(document, dict) else None
    body = found if found is not None and not _is_body(mapping(document)) else document
    if not isinstance(body, dict) or not _is_body(body):
        raise TrafficError(f"{name}: no request body (an object with `messages` or `input`)")
    return body


# --- Documents to exchanges ---------------------------------------------------------------------------------


def _take(document: Mapping[str, Any], name: str, number: int, reading: Reading) -> None:
    """The exchanges of one document: a case of a corpus, a cassette (ours, vcrpy's), a HAR file, else one log line."""
    case, common = f"{name}#{number}", {}
    rows = document.get("requests")
    identity = str(document.get("id", number if isinstance(rows, list) else name))
    if isinstance(rows, list):
        common = {"provider": document.get("provider")}
    elif isinstance(rows := document.get("sequence"), list):
        pass
    elif isinstance(rows := document.get("interactions"), list):
        identity = name
    elif isinstance(rows := mapping(document.get("log")).get("entries"), list):
        case, identity = _LOG, name
    else:
        _add(document, _LOG, name, number, reading)
        return
    for index, row in enumerate(rows):
        _add({**common, **mapping(row)}, case, identity, index, reading)


_LOG: Final = "log"
"""The case of all request logs: a log may go on in the next file."""

_BODY: Final = (
    "body", "request_body", "requestBody", "request.body", "request.json", "request.postData.text", "request.content",
    "input.inputBodyJson", "raw_request", "request", "kwargs", "params",
)  # fmt: skip
_ANSWER: Final = (
    "response_body", "responseBody", "response.body", "response.sse", "response.json", "response.content.text",
    "output.outputBodyJson", "raw_response", "response", "result", "completion",
)  # fmt: skip
_URL: Final = ("endpoint", "url", "request.url", "request.uri", "uri", "path", "request.path", "api_base")
_SENT: Final = (
    "t", "at", "time", "timestamp", "start_time", "startTime", "startedDateTime", "started_at", "request_time",
    "created_at", "ts", "recorded_at",
)  # fmt: skip
_DURATION: Final = (
    # Where a file says how long the call took, and in what part of a second.
    ("duration", 1.0), ("duration_s", 1.0), ("duration_seconds", 1.0), ("elapsed", 1.0), ("duration_ms", 1e-3),
    ("latency_ms", 1e-3), ("elapsed_ms", 1e-3), ("response_time_ms", 1e-3),
)  # fmt: skip
_FIRST: Final = (("ttft", 1.0), ("time_to_first_token", 1.0), ("time_to_first_chunk", 1.0), ("ttft_ms", 1e-3))
_ENDED: Final = ("end_time", "endTime", "ended_at", "completed_at")
_SESSION: Final = ("session", "session_id", "sessionId", "conversation_id", "thread_id", "trace_session_id")
_CREDENTIAL: Final = (
    "credential", "api_key_id", "workspace_id", "workspace", "organization", "project_id", "account", "accountId",
)  # fmt: skip
_MODEL: Final = ("model", "model_id", "modelId")
_REGION: Final = ("region", "deployment")

_PROVIDERS: Final[dict[str, str]] = {
    # gen_ai.provider.name where files use another word.
    "xai": "x_ai",
    "llamacpp": "llama_cpp",
    "llama.cpp": "llama_cpp",
    "mistral": "mistral_ai",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "vertex": "gcp.vertex_ai",
    "google": "gcp.gemini",
    "google-gemini": "gcp.gemini",
}


def _add(row: Mapping[str, Any], case: str, name: str, number: int, reading: Reading) -> None:
    body = row if _is_body(row) else _first(row, _BODY, _json_object)
    url = _first(row, _URL, _text) or ""
    if body is None or not _is_body(body):
        reading.skipped[_passed_over(url)] += 1
        return
    if "model" not in body and (model := _first(row, _MODEL, _text) or _model_of(url)):
        body = {"model": model, **body}
    raw = _first(row, _ANSWER, _present)
    dialect = _dialect(row, url, body, raw)
    if dialect is None:
        reading.skipped[_passed_over(url)] += 1
        return
    at = _first(row, _SENT, moment)
    sent = number * APART if at is None else at
    begun, ended = _later(row, _FIRST, sent), _later(row, _DURATION, sent) or _first(row, _ENDED, moment)
    begun = max(begun or ended or sent, sent + INSTANT)
    host = _split(url).hostname or ""
    place = host or _without_path(url)
    where = "/".join(filter(None, (place, *(str(row[one]) for one in _REGION if row.get(one)))))
    reading.exchanges.append(
        Exchange(
            case=case,
            name=name,
            number=number,
            dialect=dialect,
            provider=_provider(row, host, dialect),
            endpoint=where,
            credential=_first(row, _CREDENTIAL, _text) or "",
            session=_first(row, _SESSION, _text) or "",
            body=body,
            answer=_answer(dialect, raw, row),
            at=sent,
            begun=begun,
            ended=max(ended or begun, begun),
            timed=at is not None,
        )
    )


def _model_of(url: str) -> str:
    """The model, where the URL names it: ``/models/gemini-2.5-flash:generateContent``, ``/model/ID/invoke``."""
    found = re.search(r"/models?/([^/:?]+)", url)
    return found[1] if found else ""


def _passed_over(url: str) -> str:
    """What is counted: the kind of request, without the names in it."""
    place = re.sub(r"[\w.%-]*\d[\w.%-]{5,}", "*", _split(url).path or url)
    return place or "no request body"


def _is_body(value: Mapping[str, Any]) -> bool:
    """Whether an object is a request of one of the dialects, and not a log line that contains one."""
    return any(isinstance(value.get(field), list) for field in ("messages", "contents")) or (
        "input" in value and isinstance(value["input"], (str, list)) and "output" not in value
    )


def _dialect(row: Mapping[str, Any], url: str, body: Mapping[str, Any], raw: object) -> Dialect | None:
    """By what the file says, by the path of the request, else by the shape of the request."""
    path = _split(url).path
    named = BY_NAME.get(string(row.get("provider"))) or BY_NAME.get(string(row.get("api")))
    if named is not None and ("/v1/" not in path or named.handles(path.rstrip("/"))):
        return named
    known = next((dialect for dialect in BY_NAME.values() if dialect.handles(path.rstrip("/"))), None)
    if known is not None:
        return known
    if "anthropic_version" in body:
        return BY_NAME["anthropic"]
    if path.strip("/"):
        return None  # an endpoint, but none with a prompt, or of a dialect that is not known
    if "messages" not in body:
        return BY_NAME["gemini" if "contents" in body else "openai_responses"]
    tools = body.get("tools")
    tool = mapping(tools[0]) if isinstance(tools, list) and tools else {}
    usage = mapping(mapping(raw).get("usage")) or mapping(row.get("usage"))
    anthropic = (
        "system" in body
        or "input_schema" in tool
        or "input_tokens" in usage
        or string(body.get("model")).startswith("claude")
    )
    return BY_NAME["anthropic" if anthropic and "function" not in tool else "openai_chat"]


def dialect_of(body: Mapping[str, Any]) -> Dialect:
    """The dialect of a bare request body, by its shape."""
    return _dialect({}, "", body, None) or BY_NAME["openai_chat"]


def _provider(row: Mapping[str, Any], host: str, dialect: Dialect) -> str:
    """``gen_ai.provider.name``: by the host where it is known, by the file's word, else who made the dialect."""
    by_host = provider_for(host, dialect) if host else dialect.provider
    said = string(row.get("provider"))
    if by_host != dialect.provider or not said or said in BY_NAME:
        return by_host
    return _PROVIDERS.get(said, said)


def _answer(dialect: Dialect, raw: object, row: Mapping[str, Any]) -> Answer:
    """What the answer says: a body, the text of a stream, or nothing but usage."""
    if isinstance(raw, Mapping) and isinstance(raw.get("string"), str):  # vcrpy
        raw = raw["string"]
    if isinstance(raw, str):
        document = parsed(raw)
        found = dialect.answer(document) if isinstance(document, dict) else _streamed(dialect, raw)
    else:
        found = dialect.answer(mapping(raw))
    if found.usage is None and "usage" in row:
        found = found._replace(usage=dialect.usage(row["usage"]))
    return found._replace(response_id=found.response_id or string(row.get("response_id")))


def _streamed(dialect: Dialect, text: str) -> Answer:
    """The events of a stream, later counts replacing earlier ones."""
    state: dict[str, Any] = {}
    told = Answer(None)
    for line in text.splitlines():
        event = parsed(line[5:]) if line.startswith("data:") else None
        said = dialect.event(event, state) if isinstance(event, dict) else None
        if said is not None:
            new = {name: value for name, value in said._asdict().items() if value not in (None, "", ())}
            told = told._replace(**new)
    return told


# --- Fields -------------------------------------------------------------------------------------------------


def _first(row: object, names: Iterable[str], wanted: Any) -> Any:
    """The first field that is there and fit to be used; a dotted name leads into nested objects."""
    for name in names:
        value: object = row
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        found = wanted(value)
        if found is not None:
            return found
    return None


def _present(value: object) -> object:
    return value if value not in (None, "", {}) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _json_object(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, str):
        value = parsed(value)
    return value if isinstance(value, dict) and _is_body(value) else None


def moment(value: object) -> float | None:
    """POSIX seconds of a number (seconds, milli-, micro- or nanoseconds) or of an ISO 8601 time."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    number = _seconds(value)
    for limit, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        if number is not None and number >= limit:
            number /= unit
            break
    return number if number is None or number < _FOR_EVER else None


_FOR_EVER: Final = 1e11
"""Seconds beyond which a number is no time."""


def _seconds(value: object) -> float | None:
    """A number that may be an amount of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _FOR_EVER * 1e9:
        return None
    return float(value)


def _later(row: Mapping[str, Any], names: Iterable[tuple[str, float]], sent: float) -> float | None:
    for name, unit in names:
        value = _seconds(row.get(name))
        if value is not None:
            return sent + min(value * unit, _FOR_EVER)
    return None


def _without_path(url: str) -> str:
    """Who is asked, where a file does not write a whole URL: the path says what for, and is another's with each API."""
    return "" if url.startswith("/") else url.partition("/v1/")[0]


def _split(url: str) -> SplitResult:
    """The parts of a URL; what is none of them is all path."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")
