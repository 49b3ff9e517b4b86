"""The words of a verdict: status, reason, cause, each with its row of meaning, evidence, actor and remedy.

Open-ended for readers, closed for us. The documentation and every piece of advice are made from the tables here.
"""

from otel_promptcache.vocabulary.causes import CAUSE_INFO, CAUSE_MEANING, Cause, CauseInfo
from otel_promptcache.vocabulary.judgements import (
    ADVICE_MEANING,
    AGREEMENT_MEANING,
    PATTERN_MEANING,
    Advice,
    Agreement,
    Pattern,
)
from otel_promptcache.vocabulary.reasons import (
    PROMPT_CHANGED,
    REASON_INFO,
    STATUS_MEANING,
    Confidence,
    Reason,
    ReasonInfo,
    Status,
)

__all__ = [
    "ADVICE_MEANING",
    "AGREEMENT_MEANING",
    "CAUSE_INFO",
    "CAUSE_MEANING",
    "PATTERN_MEANING",
    "PROMPT_CHANGED",
    "REASON_INFO",
    "STATUS_MEANING",
    "Advice",
    "Agreement",
    "Cause",
    "CauseInfo",
    "Confidence",
    "Pattern",
    "Reason",
    "ReasonInfo",
    "Status",
]
