"""Two bodies: the first place that breaks the prefix as live traffic would name it, and what breaks it next."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.analysis.comparison import compare, where
from otel_promptcache.analysis.documents import TrafficError
from otel_promptcache.analysis.findings import Shown
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.semconv import Cause, Reason
from otel_promptcache.settings import Privacy

SHOWN = Shown(Privacy.NAMES, HashKey("a key"))
RULES = "\n".join(f"Règle {number} : rester poli, ne rien promettre, citer la politique." for number in range(60))


def tool(name: str) -> dict[str, Any]:
    described = f"{name} : " + "consulte les documents internes du service. " * 4
    return {"name": name, "description": described, "input_schema": {"type": "object", "properties": {"id": {}}}}


def body(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(turns)
    return {
        "model": "claude-sonnet-5",
        "max_tokens": 64,
        "tools": [tool(name) for name in ("commande", "livraison", "facture")],
        "system": [{"type": "text", "text": f"{RULES}\nNous sommes le 21.11.2026 à 14:05.\nMerci."}],
        "messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)],
    }


QUESTION, ANSWER = "Où est ma commande numéro 7, s'il vous plaît ?", "Elle est en route et arrive demain avant midi."


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(body(QUESTION), id="the same again"),
        pytest.param(body(QUESTION, ANSWER, "Merci !"), id="the next turn"),
        pytest.param(body("Une autre question ?"), id="another question behind the same prefix"),
        pytest.param(body(QUESTION) | {"temperature": 1, "max_tokens": 9, "stream": True}, id="sampling"),
    ],
)
def test_what_keeps_the_prefix(later: dict[str, Any]) -> None:
    found = compare(body(QUESTION), later)
    assert found.differences == []
    assert found.shared >= 4


def test_a_rolled_marker_keeps_it() -> None:
    first, second = body(QUESTION), body(QUESTION, ANSWER, "Merci !")
    for one in (first, second):
        text = one["messages"][-1]["content"]
        one["messages"][-1]["content"] = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    assert compare(first, second).differences == []


def changed(change: str) -> dict[str, Any]:
    later = body(QUESTION, ANSWER, "Merci !")
    if change == "time":
        later["system"][0]["text"] = later["system"][0]["text"].replace("14:05", "14:06")
    elif change == "order":
        later["tools"].reverse()
    elif change == "more":
        later["tools"].insert(1, tool("retour"))
    elif change == "less":
        del later["tools"][0]
    elif change == "rewritten":
        later["messages"][0]["content"] = QUESTION.upper()
    elif change == "model":
        later["model"] = "claude-haiku-4-5"
    return later


@pytest.mark.parametrize(
    ("change", "reason", "cause", "place"),
    [
        ("time", Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, "system[0].text, line 61"),
        ("order", Reason.TOOLS_CHANGED, Cause.REORDERED, "tools[0].name, line 1"),
        ("more", Reason.TOOLS_CHANGED, Cause.ADDED, "tools[1].name, line 1"),
        ("less", Reason.TOOLS_CHANGED, Cause.REMOVED, "tools[0].name, line 1"),
        ("rewritten", Reason.MESSAGES_CHANGED, None, "messages[0].content, line 1"),
        ("model", Reason.MODEL_CHANGED, None, "model"),
    ],
)
def test_the_first_difference(change: str, reason: Reason, cause: Cause | None, place: str) -> None:
    first = compare(body(QUESTION, ANSWER, "Et ?"), changed(change)).differences[0]
    assert first.reason is reason
    assert cause is None or first.cause is cause
    assert where(first, SHOWN) == place


def test_what_would_break_it_next() -> None:
    later = changed("time")
    later["tools"].reverse()
    later["messages"][0]["content"] = QUESTION.upper()
    found = compare(body(QUESTION, ANSWER, "Et ?"), later).differences
    assert [one.reason for one in found if one.reason is not Reason.TOOLS_CHANGED] == [
        Reason.SYSTEM_CHANGED,
        Reason.MESSAGES_CHANGED,
    ]
    assert found[0].reason is Reason.TOOLS_CHANGED


def test_other_dialects() -> None:
    old = {"model": "gpt-5.4", "instructions": RULES, "input": QUESTION}
    found = compare(old, old | {"instructions": RULES.replace("poli", "bref", 1)}).differences
    assert [where(one, SHOWN) for one in found] == ["instructions, line 1"]
    with pytest.raises(TrafficError, match="--dialect says which it is"):
        compare(old, body(QUESTION))
    with pytest.raises(TrafficError, match="no prompt in one of the bodies"):
        compare(old, {"model": "gpt-5.4", "input": []})


@given(some.integers(0, len(RULES) - 1), some.sampled_from("xÿ字"))
def test_any_change_is_found_where_it_is(at: int, character: str) -> None:
    """At the very character, whatever stands there."""
    old, new = body(QUESTION), body(QUESTION)
    text = old["system"][0]["text"]
    new["system"][0]["text"] = text[:at] + character + text[at + 1 :]
    found = compare(old, new).differences
    if text[at] == character:
        assert found == []
        return
    place = found[0].place
    assert place is not None
    assert (place.path, place.offset, place.line) == (("system", 0, "text"), at, 1 + text.count("\n", 0, at))


@given(some.permutations(range(3)))
def test_any_other_order_is_reordered(order: list[int]) -> None:
    old, new = body(QUESTION), body(QUESTION)
    new["tools"] = [copy.deepcopy(old["tools"][index]) for index in order]
    found = compare(old, new).differences
    assert bool(found) == (order != sorted(order))
    assert all(one.reason is Reason.TOOLS_CHANGED for one in found)
    assert not found or found[0].cause is Cause.REORDERED


def test_the_bodies_are_left_alone() -> None:
    old, new = body(QUESTION), changed("order")
    before = json.dumps([old, new])
    compare(old, new)
    assert json.dumps([old, new]) == before
