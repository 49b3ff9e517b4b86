"""What is said beside the verdict of a call: how a route's prefix changes, what its writes suggest, whether the
provider agrees."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Pattern(StrEnum):
    """How often a route's stable prefix changes."""

    ONCE = "once"
    ROLLOUT = "rollout"
    EVERY_REQUEST = "every_request"


PATTERN_MEANING: Final[dict[Pattern, str]] = {
    Pattern.ONCE: "One edit: the old prefix is not sent any more, and what it had cached is written once anew.",
    Pattern.ROLLOUT: "Two versions are sent at the same time; each keeps its own part of the cache.",
    Pattern.EVERY_REQUEST: "Each request has a version of its own: nothing behind the place is ever read.",
}


class Advice(StrEnum):
    """What a route's cache writes suggest."""

    WRITE_NEVER_READ = "write_never_read"
    ONE_SHOT = "one_shot"
    TTL_TOO_SHORT = "ttl_too_short"
    TTL_TOO_LONG = "ttl_too_long"


ADVICE_MEANING: Final[dict[Advice, str]] = {
    Advice.WRITE_NEVER_READ: "Nine in ten writes run out unread: mark what is repeated, or take the breakpoint out.",
    Advice.ONE_SHOT: "The same of writes that the provider makes by itself (GPT-5.6 and later): tell it not to.",
    Advice.TTL_TOO_SHORT: "With the gaps seen, the longer lifetime costs less.",
    Advice.TTL_TOO_LONG: "With the gaps seen, the shorter lifetime costs less.",
}


class Agreement(StrEnum):
    """How the provider's own verdict goes with ours."""

    AGREE = "agree"
    OURS = "ours"
    THEIRS = "theirs"
    UNDECIDED = "undecided"
    SILENT = "silent"


AGREEMENT_MEANING: Final[dict[Agreement, str]] = {
    Agreement.AGREE: "Both say the same.",
    Agreement.OURS: "They differ, and the token counts bear ours out.",
    Agreement.THEIRS: "They differ, and the provider names a change where we found none.",
    Agreement.UNDECIDED: "They differ, and nothing in the response says who is right.",
    Agreement.SILENT: "One of the two has no verdict: pending, not found, unavailable; nothing was expected, no usage.",
}
