"""The calls of ``doctor``, and the loopback server that answers them with known token counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple


class Counts(NamedTuple):
    """Tokens of one answer: numbers that nothing else on a span is likely to be."""

    uncached: int
    read: int
    write: int
    output: int

    @property
    def input(self) -> int:
        """All input tokens, cached ones included."""
        return self.uncached + self.read + self.write

    def known(self) -> frozenset[int]:
        """The values by which token counts are recognised."""
        return frozenset((*self, self.input))


class Scripted(NamedTuple):
    """One call and what the provider says it used."""

    name: str
    sdk: str
    path: str
    stream: bool
    usage: Counts
    make: Callable[[Any], Any]


_TALK: Final = [{"role": "user", "content": "Is anybody counting?"}]
_CLAUDE: Final = "claude-sonnet-5"
_GPT: Final = "gpt-5.4"


def _messages(client: Any, **more: Any) -> Any:
    return client.messages.create(model=_CLAUDE, max_tokens=16, messages=_TALK, **more)


def _chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model=_GPT, messages=_TALK, **more)


def _responses(client: Any, **more: Any) -> Any:
    return client.responses.create(model=_GPT, input="Is anybody counting?", **more)


_USAGE_IN_STREAM: Final = {"include_usage": True}

CALLS: Final = (
    Scripted("anthropic messages", "anthropic", "/v1/messages", False, Counts(1009, 30011, 2003, 53), _messages),
    Scripted(
        "anthropic messages, streamed",
        "anthropic",
        "/v1/messages",
        True,
        Counts(1013, 31013, 2011, 59),
        lambda client: _messages(client, stream=True),
    ),
    Scripted("openai chat", "openai", "/v1/chat/completions", False, Counts(1019, 32003, 0, 61), _chat),
    Scripted(
        "openai chat, streamed",
        "openai",
        "/v1/chat/completions",
        True,
        Counts(1021, 33013, 0, 67),
        lambda client: _chat(client, stream=True, stream_options=_USAGE_IN_STREAM),
    ),
    Scripted("openai responses", "openai", "/v1/responses", False, Counts(1031, 34019, 0, 71), _responses),
    Scripted(
        "openai responses, streamed",
        "openai",
        "/v1/responses",
        True,
        Counts(1033, 35023, 0, 73),
        lambda client: _responses(client, stream=True),
    ),
)

# --- answers ------------------------------------------------------------------------------------------------


def _message(model: str, used: Counts) -> dict[str, Any]:
    usage = {
        "input_tokens": used.uncached,
        "cache_read_input_tokens": used.read,
        "cache_creation_input_tokens": used.write,
        "cache_creation": {"ephemeral_5m_input_tokens": used.write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": used.output,
    }
    return {
        "id": "msg_doctor",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _message_events(model: str, used: Counts) -> Iterator[dict[str, Any]]:
    whole = _message(model, used)
    started = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    yield {"type": "message_start", "message": started}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": used.output}}
    yield {"type": "message_stop"}


def _completion(model: str, used: Counts) -> dict[str, Any]:
    return {
        "id": "chatcmpl-doctor",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
        "usage": {
            "prompt_tokens": used.input,
            "completion_tokens": used.output,
            "total_tokens": used.input + used.output,
            "prompt_tokens_details": {"cached_tokens": used.read},
        },
    }


def _completion_events(model: str, used: Counts) -> Iterator[dict[str, Any]]:
    whole = _completion(model, used)
    chunk = whole | {"object": "chat.completion.chunk", "usage": None}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "Yes."}, "finish_reason": None}
    yield chunk | {"choices": [delta]}
    yield chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield chunk | {"choices": [], "usage": whole["usage"]}


def _response(model: str, used: Counts) -> dict[str, Any]:
    text = {"type": "output_text", "text": "Yes.", "annotations": []}
    said = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_doctor",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": model,
        "output": [said],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": used.input,
            "output_tokens": used.output,
            "total_tokens": used.input + used.output,
            "input_tokens_details": {"cached_tokens": used.read},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _response_events(model: str, used: Counts) -> Iterator[dict[str, Any]]:
    whole = _response(model, used)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "sequence_number": 0, "response": begun}
    yield {"type": "response.completed", "sequence_number": 1, "response": whole}


_Whole = Callable[[str, Counts], Mapping[str, Any]]
_Events = Callable[[str, Counts], Iterator[Mapping[str, Any]]]
_ANSWERS: Final[dict[str, tuple[_Whole, _Events]]] = {
    "/v1/messages": (_message, _message_events),
    "/v1/chat/completions": (_completion, _completion_events),
    "/v1/responses": (_response, _response_events),
}


def _event(document: Mapping[str, Any]) -> str:
    name = f"event: {document['type']}\n" if "type" in document else ""
    return f"{name}data: {json.dumps(document)}\n\n"


class _Handler(BaseHTTPRequestHandler):
    """Answers a call by its path and whether it asks for a stream."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        path, stream, model = self.path.partition("?")[0], asked.get("stream") is True, str(asked.get("model"))
        used = next((call.usage for call in CALLS if (call.path, call.stream) == (path, stream)), None)
        if used is None:
            self._answer(404, "application/json", '{"error": {"message": "no such path"}}')
            return
        whole, events = _ANSWERS[path]
        if stream:
            done = "data: [DONE]\n\n" if path == "/v1/chat/completions" else ""
            self._answer(200, "text/event-stream", "".join(map(_event, events(model, used))) + done)
        else:
            self._answer(200, "application/json", json.dumps(whole(model, used)))

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def provider() -> Iterator[str]:
    """The server's address while it runs, on a port that the system chooses."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
