"""Snippets: only on the upper steps of the ladder, and on the third without anybody's secrets."""

from __future__ import annotations

import pytest

from otel_promptcache.analysis.places import parting
from otel_promptcache.analysis.redaction import masked, snippet
from otel_promptcache.semconv import Cause
from otel_promptcache.settings import Privacy

SECRETS = [
    "sk-ant-api03-Zk3jWqPl0aXbYc",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP",
    "amelie.leclerc@exemple.fr",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "+49 30 901820",
    "10.11.12.13",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "Bonjour, {} est à vous.", '{{"value": "{}"}}', "客户 {}。"])
def test_secrets_are_masked(secret: str, around: str) -> None:
    shown = masked(around.format(secret))
    assert secret not in shown
    assert secret[-6:] not in shown
    assert "[" in shown


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.def-ghi_jkl", "abc.def"),
        ("password=hunter2hunter2", "hunter2"),
        ("https://x.example/y.png?X-Amz-Signature=0f1e2d3c4b5a&v=1", "0f1e2d"),
        ("postgres://app:s3cr3t-pass@db/prod", "s3cr3t"),
        ("cwd: /home/annika/project", "annika"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----", "MIIEv"),
    ],
)
def test_what_only_its_surroundings_betray(text: str, hidden: str) -> None:
    assert hidden not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "Today is 2026-11-21T14:05:59Z, week 47.",
        "Return within 30 days; orders above 250 EUR ship free.",
        "## Règles de remboursement\n- toujours polie",
        "今天是2026年11月21日。请用中文回答。",
        "Turn 7 of 20",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Times and counters are what a snippet is for."""
    assert masked(text) == text


def test_the_ladder() -> None:
    place = parting("It is 14:05. Mail to a@b.example", "It is 14:06. Mail to a@b.example")
    assert snippet(place, Cause.TIMESTAMP, Privacy.HASHES) is None
    assert snippet(place, Cause.TIMESTAMP, Privacy.NAMES) is None
    redacted = snippet(place, Cause.TIMESTAMP, Privacy.REDACTED)
    assert redacted == ("It is 14:05. Mail to [email]", "It is 14:06. Mail to [email]")
    full = snippet(place, Cause.TIMESTAMP, Privacy.FULL)
    assert full is not None
    assert full.new == "It is 14:06. Mail to a@b.example"


def test_half_a_secret_is_none_of_ours_to_show() -> None:
    """The cut at forty characters falls into an address, and the difference lies inside a key."""
    text = "x" * 30 + " contact someone.with.a.long.name@example.org "
    place = parting(text + "sk-live-aaaaaaaaaaaa1", text + "sk-live-aaaaaaaaaaaa2")
    found = snippet(place, None, Privacy.REDACTED)
    assert found is not None
    for shown in found:
        assert "long.name" not in shown
        assert "aaaa" not in shown


def test_what_cannot_be_seen_is_written_out() -> None:
    found = snippet(parting("a b", "a\u00a0b"), Cause.WHITESPACE, Privacy.REDACTED)
    assert found == ("a b", "a\\xa0b")


def test_structures_have_no_snippet() -> None:
    assert snippet(parting({"a": 1}, {"a": 2}), None, Privacy.FULL) is None
    assert snippet(None, None, Privacy.FULL) is None
