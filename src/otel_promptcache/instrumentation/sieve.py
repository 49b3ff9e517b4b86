"""A stream without the one chunk that came only because we asked for usage."""

from __future__ import annotations

import json
import re
import zlib
from typing import Final

from otel_promptcache.instrumentation.reading import MAX_BODY, USAGE, deflater, inflater
from otel_promptcache.providers import native

_END_OF_EVENT: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class Sieve:
    """Passes an event stream on without the chunk that came only because we asked for usage.

    An event is passed on when it is whole, which is when its reader can do something with it.
    """

    __slots__ = ("_held", "decode", "encode")

    def __init__(self, encoding: str = "") -> None:
        self.decode = inflater(encoding)
        """What makes plain bytes of the body's, None where they are plain."""
        self.encode = deflater(encoding)
        """What makes such bytes as the body had of plain ones, None where they stay plain."""
        self._held = b""

    def packed(self, plain: bytes, *, last: bool = False) -> bytes:
        """Bytes for whoever expects the body's encoding."""
        if self.encode is None:
            return plain
        if not plain and not last:
            return b""
        return self.encode.compress(plain) + self.encode.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    def sift(self, chunk: bytes) -> bytes:
        """What of the plain bytes so far may pass now."""
        if not self._held and chunk.endswith(b"\n\n") and USAGE not in chunk:
            return chunk
        try:
            return self._sifted(self._held + chunk)
        except Exception:  # whatever it is, it is the application's
            held, self._held = self._held, b""
            return held + chunk

    def _sifted(self, body: bytes) -> bytes:
        passed, start = [], 0
        for end in _END_OF_EVENT.finditer(body):
            event = body[start : end.end()]
            start = end.end()
            if not _surplus(event):
                passed.append(event)
        self._held = body[start:]
        if len(self._held) > MAX_BODY:
            passed.append(self._held)
            self._held = b""
        return b"".join(passed)

    def rest(self) -> bytes:
        """What was left at the end of the body."""
        rest, self._held = self._held, b""
        return b"" if _surplus(rest) else rest


def _surplus(event: bytes) -> bool:
    if USAGE not in event:
        return False
    data = b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        return native.brought_by_asking(json.loads(data))
    except (ValueError, RecursionError):
        return False
