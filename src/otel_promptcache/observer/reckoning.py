"""What a call works out from what it was told: small functions without a state."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import SHORT, HashKey
from otel_promptcache.history import Info, Node, Sight, describe
from otel_promptcache.model import Fingerprint, Section, Segment

TRUNCATED: Final = ",truncated"
"""Behind the sections of a fingerprint that covers the beginning of a prompt only."""
_ERROR_KIND: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def error_kind(text: str) -> str:
    """An error type that is fit to be a label: it comes from the wire, where anything may stand."""
    return text if _ERROR_KIND.fullmatch(text) else "_OTHER"


def chosen(percent: float) -> bool:
    """Whether a call is among so many in a hundred."""
    return percent >= 100 or random.random() * 100 < percent  # noqa: S311


def detail(fresh: Sequence[tuple[Info, Segment]]) -> None:
    """Line and loose hashes of new segments, on the worker's thread."""
    # The patterns are compiled here rather than while the first miss is diagnosed.
    from otel_promptcache.fingerprint import volatile  # noqa: F401

    describe(fresh)


def fingerprint_of(key: HashKey, sight: Sight, *, truncated: bool) -> Fingerprint:
    """The exportable identity of a request that the history has seen; it says so where it is that of a beginning."""
    leading: Node | None = None
    for node in sight.nodes:
        info = node.info
        if info is None or info.section > Section.SYSTEM:
            break
        leading = node
    chain = sight.nodes[-1].chain.hex()
    messages = f"messages:{chain[: 2 * SHORT]}" + (TRUNCATED if truncated else "")
    if leading is None:
        return Fingerprint("", chain, messages, key.id)
    identity = leading.identity
    if identity is None:
        infos = (node.info for node in sight.nodes[: leading.length])
        named = fingerprint.identity((info.section, info.digest) for info in infos if info is not None)
        identity = leading.identity = leading.chain.hex(), ",".join(named)
    return Fingerprint(identity[0], chain, f"{identity[1]},{messages}", key.id)
