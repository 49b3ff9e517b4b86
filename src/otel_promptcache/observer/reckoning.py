"""What a call works out from what it was told: small functions without a state."""

from __future__ import annotations

import random
import re
from typing import Final

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import SHORT, HashKey
from otel_promptcache.history import History, Sight
from otel_promptcache.model import Fingerprint, Prompt

DETAIL_JOBS: Final = 64
"""Jobs that hold text of prompts, at most: line hashes are dispensable, memory is not."""

TRUNCATED: Final = ",truncated"
"""Behind the sections of a fingerprint that covers the beginning of a prompt only."""
_ERROR_KIND: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def error_kind(text: str) -> str:
    """An error type that is fit to be a label: it comes from the wire, where anything may stand."""
    return text if _ERROR_KIND.fullmatch(text) else "_OTHER"


def chosen(percent: float) -> bool:
    """Whether a call is among so many in a hundred."""
    return percent >= 100 or random.random() * 100 < percent  # noqa: S311


def describe(history: History, prompt: Prompt, sight: Sight) -> None:
    """Hashes of new segments, on the worker's thread."""
    # The patterns are compiled here rather than while the first miss is diagnosed.
    from otel_promptcache.fingerprint import volatile  # noqa: F401

    history.describe(prompt, sight)


def fingerprint_of(key: HashKey, prompt: Prompt, sight: Sight) -> Fingerprint:
    """The exportable identity of a request that the history has seen; it says so where it is that of a beginning."""
    identity = _leading(key, sight)
    chain = sight.nodes.chain(key)
    if identity is None or chain is None:  # the worker has not come to it, or would not take it
        for info, segment in zip(sight.infos, prompt.segments, strict=True):
            info.sign(key, segment)
        identity, chain = _leading(key, sight), sight.nodes.chain(key)
        assert identity is not None
        assert chain is not None
    whole = chain.hex()
    messages = f"messages:{whole[: 2 * SHORT]}" + (TRUNCATED if prompt.truncated else "")
    return Fingerprint(identity[0], whole, f"{identity[1]},{messages}" if identity[1] else messages, key.id)


def _leading(key: HashKey, sight: Sight) -> tuple[str, str] | None:
    """Chain and sections of what stands in front of the messages; None while a digest is missing."""
    leading = sight.leading
    if leading is None:
        return "", ""
    if leading.identity is None:
        chain = sight.nodes.chain(key, leading.length)
        digests = [(info.section, info.digest) for info in sight.infos[: leading.length]]
        if chain is None:
            return None
        named = fingerprint.identity((section, digest) for section, digest in digests if digest is not None)
        leading.identity = chain.hex(), ",".join(named)
    return leading.identity
