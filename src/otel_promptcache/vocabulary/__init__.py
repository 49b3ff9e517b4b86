"""The words of a verdict: status, reason, cause, each with its row of meaning, evidence, actor and remedy.

Open-ended for readers, closed for us. The documentation and every piece of advice are made from the tables here.
"""

from otel_promptcache.vocabulary.causes import CAUSE_INFO, CAUSE_MEANING, Cause, CauseInfo
from otel_promptcache.vocabulary.reasons import REASON_INFO, STATUS_MEANING, Confidence, Reason, ReasonInfo, Status

__all__ = [
    "CAUSE_INFO",
    "CAUSE_MEANING",
    "REASON_INFO",
    "STATUS_MEANING",
    "Cause",
    "CauseInfo",
    "Confidence",
    "Reason",
    "ReasonInfo",
    "Status",
]
