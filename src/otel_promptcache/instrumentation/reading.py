"""Reading what a response says of itself out of bytes that pass by."""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

from otel_promptcache.instrumentation.together import Told
from otel_promptcache.model import Answer
from otel_promptcache.providers import errands

MAX_BODY: Final = 4 * 2**20
"""Bytes of a body that is no event stream, or of a single event, that are kept for reading."""

_USAGE_WINDOW: Final = 16_384
EVENT_STREAM: Final = "event-stream"
USAGE: Final = b'"usage"'
ERROR: Final = b'"error"'
TIMINGS: Final = b'"timings"'
"""Where llama.cpp's server counts tokens when nobody asked for usage."""
_INTERESTING: Final = (USAGE, ERROR, TIMINGS)
_NULL: Final = b"null"


class Reader:
    """Reads usage out of a response body while it passes. No method raises; each is told once."""

    _always: ClassVar[bool] = False
    """Whether every body is a stream of events to this reader."""
    __slots__ = (
        "_begun",
        "_call",
        "_done",
        "_event_stream",
        "_first",
        "_held",
        "_inflate",
        "_parts",
        "_size",
        "_state",
        "idle",
        "whole",
    )

    def __init__(self, call: Told, content_type: str, encoding: str) -> None:
        self._call = call
        self._event_stream = EVENT_STREAM in content_type or self._always
        self._inflate = inflater(encoding)
        self._parts: list[bytes] = []
        self._size = 0
        self._held = 0
        """Bytes of an unfinished line so far, also of one too long to be kept."""
        self._state: dict[str, Any] = {}
        self._begun = False
        self._first = True
        self._done = False
        self.idle = False
        """True while a chunk of whole lines without usage or error needs no look."""
        self.whole = True
        """False where the body is a range of a file, and its end not the file's."""

    @property
    def streams(self) -> bool:
        """Whether the body is read piece by piece, even where it is there already."""
        return self._event_stream

    def feed(self, chunk: bytes) -> None:
        """Bytes as they came over the network."""
        if self._done:
            return
        try:
            if not self._begun:
                self._begun = True
                self._call.begun(streaming=self._event_stream)
            if self._inflate is not None:
                chunk = self._inflated(chunk)
            if self._event_stream:
                self._watch(chunk)
            elif self._size <= MAX_BODY:
                self._parts.append(chunk)
                self._size += len(chunk)
        except Exception as error:
            self._give_up(error)
        self.idle = self._event_stream and not self._first and self._inflate is None and not self._held

    def _inflated(self, chunk: bytes) -> bytes:
        try:
            return b"" if self._inflate is None else self._inflate(chunk)
        except Exception:  # each library has its own: the application meets the same, or reads on without us
            self._read_no_more()
            return b""

    def _watch(self, chunk: bytes) -> None:
        """Looks for usage and errors in whole lines; an unfinished line waits for its end."""
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            self._hold(chunk)
            return
        if self._parts:
            self._parts.append(chunk[:cut])
            lines = b"".join(self._parts)
            self._parts.clear()
        else:
            lines = chunk
            if cut != len(chunk):
                lines = chunk[:cut]
        self._held = 0
        if cut != len(chunk):
            self._hold(chunk[cut:])
        if self._first:
            self._first = not self._read_first(lines)
        elif USAGE in lines or ERROR in lines or TIMINGS in lines:
            self._read(lines)

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held <= MAX_BODY:
            self._parts.append(part)
        else:  # an event beyond all measure: what is kept of it would not parse
            self._parts.clear()

    def _read_first(self, lines: bytes) -> bool:
        """The first event names the response's id and model, whether or not it has usage."""
        start = lines.find(b"data:")
        if start < 0:
            return False
        self._event(lines[start:].partition(b"\n")[0])
        rest = lines[start:].partition(b"\n")[2]
        if any(name in rest for name in _INTERESTING):
            self._read(rest)
        return True

    def _read(self, lines: bytes) -> None:
        for line in lines.splitlines():
            if any(_says(line, name) for name in _INTERESTING):
                self._event(line)

    def _event(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            line = line[5:]
        try:
            document = json.loads(line)
        except ValueError:
            return  # [DONE], a comment, or a line that only looks like one
        if isinstance(document, dict):
            answer = self._call.dialect.event(document, self._state)
            if answer is not None:
                self._call.answered(answer)

    def complete(self) -> None:
        """The body has been read to its end."""
        if self._done:
            return
        self._done = True
        try:
            rest = b"".join(self._parts)
            self._parts.clear()
            if self._event_stream:
                if rest:
                    self._read(rest)
            elif self._size <= MAX_BODY:
                self._whole(rest)
            if self.whole:
                self._call.complete()
        except Exception as error:
            self._give_up(error)
        self._call.finished()

    def _whole(self, body: bytes) -> None:
        document = parsed(body)
        if isinstance(document, dict):
            self._call.answered(self._call.dialect.answer(document))

    def loaded(self, body: bytes) -> None:
        """An event stream that is there already, decoded."""
        self.feed(body)
        self.complete()

    def left(self) -> None:
        """Closed or dropped before the end: nothing more will come."""
        if not self._done:
            self._done = True
            self._call.left()

    def failed(self, error: BaseException) -> None:
        """Reading failed. Anything but an ``Exception`` is the application's own will to stop."""
        if not isinstance(error, Exception):
            self.left()
        elif not self._done:
            self._done = True
            self._call.failed(type(error).__name__)

    def _give_up(self, error: Exception) -> None:
        self._read_no_more()
        self._call.observer.trouble("tap", error)

    def _read_no_more(self) -> None:
        self._event_stream, self._size = False, MAX_BODY + 1
        self._inflate = None
        self._parts.clear()


def parsed(body: bytes) -> object:
    """The body as JSON, None for a proxy's page or half a body: the application will say what it thinks of it."""
    try:
        return json.loads(body) if len(body) <= MAX_BODY else {"usage": _usage_in(body)}
    except (ValueError, RecursionError):
        return None


def _usage_in(body: bytes) -> object:
    """The last usage object of a body too large to be parsed as a whole (pictures, mostly)."""
    at = body.rfind(USAGE)
    start = body.find(b"{", at) if at >= 0 else -1
    text = body[start : start + _USAGE_WINDOW].decode("utf-8", "replace") if start >= 0 else "null"
    return json.JSONDecoder().raw_decode(text)[0]


def _says(line: bytes, name: bytes) -> bool:
    """Whether a field of this name has a value other than null somewhere in the line."""
    at = line.find(name)
    while at >= 0:
        value = line[at + len(name) : at + len(name) + 8].lstrip(b" :")
        if not value.startswith(_NULL):
            return True
        at = line.find(name, at + len(name))
    return False


def inflater(encoding: str) -> Callable[[bytes], bytes] | None:
    """A private decoder for a content encoding, None for plain bytes. Unknown encodings decode to nothing."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=47).decompress
    if encoding == "deflate":
        return _deflate()
    # The others are decoded by what the HTTP library has imported for the same purpose.
    if encoding == "br":
        brotli = sys.modules.get("brotli") or sys.modules.get("brotlicffi")
        if brotli is not None:
            decoder = brotli.Decompressor()
            return getattr(decoder, "process", None) or decoder.decompress  # type: ignore[no-any-return]
    if encoding == "zstd":
        zstd = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
        if zstd is not None:
            return zstd.ZstdDecompressor().decompress  # type: ignore[no-any-return]
        zstandard = sys.modules.get("zstandard")
        if zstandard is not None:
            return zstandard.ZstdDecompressor().decompressobj().decompress  # type: ignore[no-any-return]
    return _nothing


def _nothing(_: bytes) -> bytes:
    return b""


def known(encoding: str) -> bool:
    """Whether there is a decoder for a content encoding."""
    return inflater(encoding) is not _nothing


def _deflate() -> Callable[[bytes], bytes]:
    """Says zlib's format and often means the bare one: HTTP libraries try the other when the first bytes are wrong."""
    decoder = zlib.decompressobj()
    begun = False

    def inflate(chunk: bytes) -> bytes:
        nonlocal decoder, begun
        first, begun = not begun, True
        try:
            return decoder.decompress(chunk)
        except zlib.error:
            if not first:
                raise
            decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            return decoder.decompress(chunk)

    return inflate


class Deflater(Protocol):
    """What compresses a body piece by piece."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


def deflater(encoding: str) -> Deflater | None:
    """What makes a body of a content encoding again, None where we have nothing that does. Packed is nothing: the bytes
    go no further than this process."""
    wbits = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}.get(encoding.strip().lower())
    return None if wbits is None else zlib.compressobj(0, wbits=wbits)


# --- Frames of AWS ------------------------------------------------------------------------------------------

_FRAMES: Final = "vnd.amazon.eventstream"
_PRELUDE: Final = struct.Struct(">III")
"""Lengths of the whole frame and of its headers, and a checksum; another one, of 4 bytes, ends the frame
(docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html)."""
_EXCEPTION: Final = re.compile(rb":exception-type\x07..([\w.]+)", re.DOTALL)


class FrameReader(Reader):
    """Reads the stream of a model on Bedrock: binary frames, with an event in each."""

    __slots__ = ()
    _always = True

    def _watch(self, chunk: bytes) -> None:
        self._hold(chunk)
        body = b"".join(self._parts)
        self._parts.clear()
        start = 0
        while len(body) - start >= _PRELUDE.size:
            length, headers, _ = _PRELUDE.unpack_from(body, start)
            if not _PRELUDE.size + headers + 4 <= length <= MAX_BODY:
                self._read_no_more()
                return
            if len(body) - start < length:
                break
            payload = start + _PRELUDE.size + headers
            self._frame(body[start + _PRELUDE.size : payload], body[payload : start + length - 4])
            start += length
        self._parts = [body[start:]]
        self._held = len(body) - start

    def _frame(self, headers: bytes, payload: bytes) -> None:
        refused = _EXCEPTION.search(headers)
        if refused is not None:
            self._call.answered(Answer(None, error_type=refused[1].decode("ascii", "replace")))
            return
        document = json.loads(payload)
        if isinstance(document, dict) and isinstance(document.get("bytes"), str):
            self._event(base64.b64decode(document["bytes"]))

    def _read(self, lines: bytes) -> None:
        """Half a frame, at the end of the body, says nothing."""


class ItemReader(Reader):
    """Reads the results of a batch, line by line; any other file not beyond its first line."""

    __slots__ = ()
    _always = True

    def feed(self, chunk: bytes) -> None:
        super().feed(chunk)
        self.idle = False

    def _watch(self, chunk: bytes) -> None:
        lines, ended, rest = chunk.rpartition(b"\n")
        if not ended:
            self._hold(chunk)
            return
        # Only what is unfinished is held: a whole file may come in one piece. Of a line that was too long to be kept,
        # the end is not read either.
        whole = self._held <= MAX_BODY
        lines = b"".join([*self._parts, lines]) if whole else lines.partition(b"\n")[2]
        self._parts, self._held = [], 0
        self._hold(rest)
        self._read(lines)

    def _read(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            if line.strip():
                document = parsed(line)
                if errands.is_line_of_results(document):
                    self._call.item(document)  # type: ignore[arg-type]
                elif self._first:
                    self._read_no_more()
                    return
                self._first = False


def reader(call: Told, content_type: str, encoding: str) -> Reader:
    """The reader for a body of this type."""
    kind = ItemReader if call.items else FrameReader if _FRAMES in content_type else Reader
    return kind(call, content_type, encoding)
