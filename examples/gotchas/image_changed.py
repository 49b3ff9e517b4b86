"""A picture that is made anew for each turn.

It looks the same, and its bytes are not: image libraries write the time of making into the file, lossy formats come out
a little different each time, and a signed URL is another URL.
"""

from __future__ import annotations

import base64
import struct
import zlib
from datetime import UTC, datetime
from typing import Any

from anthropic import Anthropic

from otel_promptcache.emulator import Clock

SDK = Anthropic
MODEL = "claude-opus-5-5"
GUIDE = "\n".join(
    f"{rule}. Read the axis first, then the legend, and say which months are missing." for rule in range(99)
)
SEEN = "I see the chart: twelve months of sales in euros, with a legend below it."
QUESTIONS = ("What does the chart show?", "Which month was best?", "And the worst?")


def broken(client: Anthropic, clock: Clock) -> None:
    _conversation(client, clock, lambda: _png(made=clock.now()))


def fixed(client: Anthropic, clock: Clock) -> None:
    encoded = _png(made=clock.now())  # once; or upload it and send its file id
    _conversation(client, clock, lambda: encoded)


def _conversation(client: Anthropic, clock: Clock, picture: Any) -> None:
    turns: list[Any] = []
    for question in QUESTIONS:
        turns.append({"role": "user", "content": question})
        source = {"type": "base64", "media_type": "image/png", "data": picture()}
        chart = {
            "role": "user",
            "content": [{"type": "image", "source": source}, {"type": "text", "text": "Our sales."}],
        }
        answer = client.messages.create(
            model=MODEL,
            max_tokens=100,
            cache_control={"type": "ephemeral"},
            system=[{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral"}}],
            messages=[chart, {"role": "assistant", "content": SEEN}, *turns],
        )
        turns.append({"role": "assistant", "content": answer.content})
        clock.advance(40)


def _png(*, made: float) -> str:
    """A grey square, base64, with the time of making inside as image libraries write it."""
    moment = datetime.fromtimestamp(made, UTC)
    rows = b"".join(b"\0" + b"\x80" * 64 for _ in range(64))
    stamp = struct.pack(">HBBBBB", *moment.timetuple()[:6])
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)),
        (b"tIME", stamp),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(packed)).decode()
