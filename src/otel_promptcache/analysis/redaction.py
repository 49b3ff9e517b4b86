"""Text with secrets and personal data masked, for the step ``redacted`` of the privacy ladder.

What has a shape is masked by its shape: keys, tokens, signatures, addresses, numbers of cards and telephones. A
person's name has none; where the diagnosis says that what changed is a person's data, all that changed is masked.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_promptcache.analysis.places import Place
from otel_promptcache.semconv import Cause
from otel_promptcache.settings import Privacy

AROUND: Final = 40
"""Characters shown on either side of a difference."""

_SHAPES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "private key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    ),
    ("token", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")),
    ("secret", re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|ghu|github_pat|glpat|xox[abeoprs]|hf|npm|pypi)[-_][\w-]{10,}")),
    ("secret", re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA)[A-Z0-9]{12,}\b|\bAIza[\w-]{30,}")),
    ("secret", re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}|(?<=basic )[\w+/=-]{12,}")),
    (
        "secret",
        re.compile(
            r"(?i)(?<![a-z])(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|token|signature|sig|"
            r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential))[\"']?\s*[=:]\s*[\"']?"
            r"[^\s\"'&,;}]{4,}"
        ),
    ),
    ("userinfo", re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")),
    ("email", re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("card", re.compile(r"\b(?:\d[ -]?){13,19}\b")),
    ("ip", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}\b", re.IGNORECASE)),
    (
        "phone",
        re.compile(r"(?<![\w.:-])(?:\+|00)\d[\d ()./-]{7,}\d\b|(?<![\w.:-])\(?0\d{2,4}\)?[ /-]\d[\d /-]{4,}\d\b"),
    ),
    ("home", re.compile(r"(?<=/home/)[^/\s\"']+|(?<=/Users/)[^/\s\"']+|(?<=\\Users\\)[^\\\s\"']+")),
    ("secret", re.compile(r"\b(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[A-Za-z0-9+/_=-]{32,}")),
)


class Snippet(NamedTuple):
    """The differing stretch of two texts, on one line each."""

    old: str
    new: str


def masked(text: str) -> str:
    """The text with everything that has the shape of a secret or of personal data replaced by what it was."""
    return "".join(_masked(text, 0))


def snippet(place: Place | None, cause: Cause | None, privacy: Privacy) -> Snippet | None:
    """The text around a difference, as this step of the ladder may show it; None where it may not, or there is none."""
    if privacy not in (Privacy.REDACTED, Privacy.FULL) or place is None:
        return None
    if not isinstance(place.old, str) or not isinstance(place.new, str) or place.offset is None:
        return None
    whole = privacy is Privacy.FULL
    return Snippet(*(_shown(text, place.offset, cause, whole=whole) for text in (place.old, place.new)))


def _shown(text: str, offset: int, cause: Cause | None, *, whole: bool) -> str:
    start, end = max(0, offset - AROUND), min(len(text), offset + AROUND)
    if not whole:
        # Masked before it is cut: half an address has no shape. What lies further away makes no difference.
        left, right = max(0, start - 512), min(len(text), end + 512)
        before, after = text[left:offset], text[offset:right]
        if cause == "user_data":
            before, after = masked(before), "[personal data]"
        else:
            before, after = _masked(before + after, len(before))
        text, offset = before + after, len(before)
        start, end = max(0, offset - AROUND), min(len(text), offset + AROUND)
    body = "".join(one if one.isprintable() else _escaped(one) for one in text[start:end])
    return f"{'…' if start else ''}{body}{'…' if end < len(text) else ''}"


def _escaped(character: str) -> str:
    """A character that nobody would see, written out."""
    return character.encode("unicode_escape").decode()


def _masked(text: str, offset: int) -> tuple[str, str]:
    """The masked text, divided where ``offset`` came to lie; a mask that covers it belongs to what follows."""
    spans = sorted((found.start(), found.end(), name) for name, shape in _SHAPES for found in shape.finditer(text))
    before, after, at = "", "", 0
    for start, end, name in spans:
        if start < at:
            continue
        kept = text[at:start]
        cut = max(0, min(len(kept), offset - at))
        before += kept[:cut]
        after += kept[cut:]
        if end <= offset:
            before += f"[{name}]"
        else:
            after += f"[{name}]"
        at = end
    kept = text[at:]
    cut = max(0, min(len(kept), offset - at))
    return before + kept[:cut], after + kept[cut:]
