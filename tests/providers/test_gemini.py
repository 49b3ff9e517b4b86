"""Gemini's wire format as prompts and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.model import Kind, Section
from otel_promptcache.providers import gemini

FULL: dict[str, Any] = {
    "model": "models/gemini-2.5-flash",
    "tools": [{"functionDeclarations": [{"name": "find"}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    "systemInstruction": {"parts": [{"text": "Be short."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "What is it?"}, {"inlineData": {"mimeType": "image/png", "data": "AA"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "find", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "find", "response": {}}}]},
    ],
    "generationConfig": {"maxOutputTokens": 64},
    "stream": True,
}


def test_order_and_places() -> None:
    """Tools, system instruction, contents: what a cache resource holds, in that order."""
    prompt = gemini.prompt(FULL)
    assert [gemini.path(segment) for segment in prompt.segments] == [
        "tools[0]",
        "toolConfig",
        "systemInstruction.parts[0]",
        "contents[0].parts[0]",
        "contents[0].parts[1]",
        "contents[1].parts[0]",
        "contents[2].parts[0]",
    ]
    assert [segment.kind for segment in prompt.segments[3:]] == [Kind.TEXT, Kind.IMAGE, Kind.TOOL_USE, Kind.TOOL_RESULT]
    assert (prompt.model, prompt.stream, prompt.max_tokens, prompt.automatic) == ("gemini-2.5-flash", True, 64, True)


def test_both_spellings_are_one_prompt() -> None:
    """The API takes ``systemInstruction`` and ``system_instruction``."""
    other = {**FULL, "system_instruction": FULL["systemInstruction"], "tool_config": FULL["toolConfig"]}
    del other["systemInstruction"], other["toolConfig"]
    assert gemini.prompt(other) == gemini.prompt(FULL)


@pytest.mark.parametrize("part", [{"text": "x"}, {"text": "x", "thought": False}, {"text": "x", "thought": None}])
def test_fields_left_out(part: dict[str, Any]) -> None:
    """A null, and a thought that is none, say nothing."""
    (segment,) = gemini.prompt({"contents": [{"parts": [part]}]}).segments
    assert (segment.kind, segment.role, segment.value) == (Kind.TEXT, "user", "x")
    thought = gemini.prompt({"contents": [{"parts": [{**part, "thought": True}]}]}).segments[0]
    assert thought.kind is Kind.REASONING


def test_what_the_server_holds_stands_in_front() -> None:
    """A cache resource is known by its name only."""
    prompt = gemini.prompt({**FULL, "cachedContent": "cachedContents/a"})
    assert prompt.segments[0].section is Section.HELD
    assert (gemini.path(prompt.segments[0]), prompt.previous_id) == ("cachedContent", "cachedContents/a")


@pytest.mark.parametrize("body", [{}, {"contents": None}, {"contents": [None, 5, {}, {"parts": "x"}]}, {"tools": 5}])
def test_nothing_stumbles(body: dict[str, Any]) -> None:
    """Whatever is sent."""
    for segment in gemini.prompt(body).segments:
        assert gemini.path(segment)


def test_recorded(recorded: Path) -> None:
    """Every recorded answer has its usage, and every request its prompt."""
    seen = 0
    for file in sorted((recorded / "cassettes").glob("*gemini*.json")):
        for exchange in json.loads(file.read_text(encoding="utf-8"))["sequence"]:
            if not gemini.handles(exchange["endpoint"].partition("?")[0]):
                continue
            response, wanted = exchange["response"], exchange["cache_usage"]
            if "sse" in response:
                lines = [line for line in response["sse"].splitlines() if line.startswith("data: ")]
                answers = [gemini.event(json.loads(line[6:]), {}) for line in lines]
            else:
                answers = [gemini.answer(response["body"])]
            last = answers[-1]
            assert last is not None
            assert last.usage is not None
            assert last.usage.read == wanted.get("cachedContentTokenCount"), file.stem
            assert last.model.startswith("gemini-")
            assert last.finish_reasons
            assert gemini.prompt(exchange["request_body"]).segments
            seen += 1
    assert seen >= 10
