"""Watching a response's bytes on their way to the application.

Nothing that the caller holds is replaced but ``response.stream``, by an object that is the same kind of stream and
passes every byte on untouched. SDK streams, helpers, ``close()``, ``break``, cancellation and garbage collection
therefore work as they do without us.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, Final

from otel_promptcache.instrumentation.reading import ERROR, EVENT_STREAM, TIMINGS, USAGE, Reader, known, parsed, reader
from otel_promptcache.instrumentation.sieve import Sieve
from otel_promptcache.instrumentation.together import Told

# --- The stream in between ----------------------------------------------------------------------------------


class Tapped:
    """Passes a byte stream on and shows each chunk to a ``Reader``. Mixed with the inner stream's own base classes.

    Like the hooks it stands in the application's stack: nothing of ours may raise here, whatever became of the reader.
    """

    _promptcache_inner: Any
    _promptcache_reader: Reader

    def __init__(self, inner: Any, reader: Reader) -> None:
        self._promptcache_inner = inner
        self._promptcache_reader = reader
        # The anthropic SDK asks for this at every event: found is a tenth of missed.
        self.stream_observer = getattr(inner, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_promptcache"):
            raise AttributeError(name)
        return getattr(self._promptcache_inner, name)

    def __iter__(self) -> Iterator[bytes]:
        reader = self._promptcache_reader
        chunks = iter(self._promptcache_inner)
        try:
            for chunk in chunks:
                try:
                    # Said in place: this is all that most chunks of a stream cost.
                    if not reader.idle or USAGE in chunk or ERROR in chunk or TIMINGS in chunk or chunk[-1:] != b"\n":
                        reader.feed(chunk)
                except Exception:  # noqa: S110 - told further in; entering a try costs nothing
                    pass
                yield chunk
            with contextlib.suppress(Exception):
                reader.complete()
        except GeneratorExit:
            raise
        except BaseException as error:
            with contextlib.suppress(Exception):
                reader.failed(error)
            raise
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader = self._promptcache_reader
        chunks = self._promptcache_inner.__aiter__()
        try:
            async for chunk in chunks:
                try:
                    # Said in place: this is all that most chunks of a stream cost.
                    if not reader.idle or USAGE in chunk or ERROR in chunk or TIMINGS in chunk or chunk[-1:] != b"\n":
                        reader.feed(chunk)
                except Exception:  # noqa: S110 - told further in; entering a try costs nothing
                    pass
                yield chunk
            with contextlib.suppress(Exception):
                reader.complete()
        except GeneratorExit:
            raise
        except BaseException as error:
            with contextlib.suppress(Exception):
                reader.failed(error)
            raise
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def close(self) -> None:
        try:
            self._promptcache_inner.close()
        finally:
            with contextlib.suppress(Exception):
                self._promptcache_reader.left()

    async def aclose(self) -> None:
        try:
            await self._promptcache_inner.aclose()
        finally:
            with contextlib.suppress(Exception):
                self._promptcache_reader.left()

    def __del__(self) -> None:
        reader = self.__dict__.get("_promptcache_reader")
        if reader is not None:
            try:  # noqa: SIM105 - at the end of the interpreter there may be no contextlib any more
                reader.left()
            except Exception:  # noqa: S110
                pass


class Sifted(Tapped):
    """The same, less one chunk."""

    _promptcache_sieve: Sieve
    _promptcache_decoding_error: type[Exception]

    def __iter__(self) -> Iterator[bytes]:
        chunks = super().__iter__()
        try:
            for chunk in chunks:
                if passed := self._promptcache_sift(chunk):
                    yield passed
            if rest := self._promptcache_rest():
                yield rest
        finally:
            chunks.close()  # type: ignore[attr-defined]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = super().__aiter__()
        try:
            async for chunk in chunks:
                if passed := self._promptcache_sift(chunk):
                    yield passed
            if rest := self._promptcache_rest():
                yield rest
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    def _promptcache_sift(self, chunk: bytes) -> bytes:
        sieve = self._promptcache_sieve
        if sieve.decode is not None:
            try:
                chunk = sieve.decode(chunk)
            except Exception as error:  # as the HTTP library would have put it, had it decoded the body
                raise self._promptcache_decoding_error(str(error)) from error
        passed: bytes | None = None
        with contextlib.suppress(Exception):
            passed = sieve.sift(chunk)
        return sieve.packed(chunk if passed is None else passed)

    def _promptcache_rest(self) -> bytes:
        rest = b""
        with contextlib.suppress(Exception):
            rest = self._promptcache_sieve.rest()
        return self._promptcache_sieve.packed(rest, last=True)


_A_RANGE: Final = 206
_BASES: Final = ("SyncByteStream", "AsyncByteStream")


@lru_cache(maxsize=64)
def _tapped_class(kind: type, ours: type[Tapped]) -> type[Tapped]:
    """``ours`` with the HTTP library's stream classes as bases, taken by name: httpx, httpx2 or a fork of them."""
    bases = tuple(base for base in kind.__mro__ if base.__name__ in _BASES)
    return type(ours.__name__ + kind.__name__, (ours, *bases), {})


def tap(response: Any, call: Told, *, sifted: bool = False) -> bool:
    """Watches a response; True when its body is still to come, so that the call ends with the body. ``sifted``: without
    the chunk that only our question brought."""
    headers = response.headers
    content_type = headers.get("content-type", "")
    streamed = EVENT_STREAM in content_type
    if response.is_closed:
        watching = reader(call, content_type, "")
        watching.whole = getattr(response, "status_code", None) != _A_RANGE
        if call.items:
            content = response.content
            return call.later(lambda: watching.loaded(content))
        if watching.streams:
            watching.loaded(response.content)
            if sifted:
                sieve = Sieve()
                response._content = sieve.sift(response.content) + sieve.rest()
        else:
            call.loaded(parsed(response.content))
        return False
    encoding = headers.get("content-encoding", "")
    watching = reader(call, content_type, encoding)
    watching.whole = getattr(response, "status_code", None) != _A_RANGE
    stream = response.stream
    if sifted and streamed and known(encoding):
        made = _tapped_class(stream.__class__, Sifted)(stream, watching)
        sieve = Sieve(encoding)
        made._promptcache_sieve = sieve  # type: ignore[attr-defined]
        made._promptcache_decoding_error = _decoding_error(response)  # type: ignore[attr-defined]
        if sieve.decode is not None and sieve.encode is None:  # the body comes decoded from here on
            del headers["content-encoding"]
        response.stream = made
    else:
        response.stream = _tapped_class(stream.__class__, Tapped)(stream, watching)
    return True


def _decoding_error(response: Any) -> type[Exception]:
    library = sys.modules.get(type(response).__module__.partition(".")[0])
    found: type[Exception] = getattr(library, "DecodingError", ValueError)
    return found
