"""Nothing that the application said to the model, and nothing that lets anybody in, leaves the process."""

from __future__ import annotations

import base64
import gc
import logging
import random
import string
import sys
import warnings

import anthropic
import pytest
from logged import ours

from otel_promptcache import attribute
from otel_promptcache.instrumentation import runtime

WINDOW = 12
CHANCE = random.Random(11)


def secret(length=48):
    """Letters and digits that occur nowhere by chance."""
    return "".join(CHANCE.choices(string.ascii_letters + string.digits, k=length))


PLACES = (
    "system",
    "system_changed",
    "user",
    "user_changed",
    "tool_name",
    "tool_description",
    "schema_key",
    "tool_input",
    "tool_result",
    "image",
    "metadata",
    "cache_key",
    "answer",
    "api_key",
    "bearer",
    "header",
    "hash_key",
    "wrong_setting",
    "attributed_user",
    "exception",
)
SECRETS = {place: secret() for place in PLACES}


def found_in(text):
    """Names of the secrets of which any twelve characters in a row stand in a text."""
    return [
        name
        for name, value in SECRETS.items()
        if any(value[start : start + WINDOW] in text for start in range(len(value) - WINDOW + 1))
    ]


def conversation(words="", changed=""):
    tool = {
        "name": SECRETS["tool_name"],
        "description": SECRETS["tool_description"],
        "input_schema": {"type": "object", "properties": {SECRETS["schema_key"]: {"type": "string"}}},
    }
    image = {"type": "base64", "media_type": "image/png", "data": SECRETS["image"]}
    use = {"type": "tool_use", "id": "t1", "name": SECRETS["tool_name"], "input": {SECRETS["tool_input"]: 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": SECRETS["tool_result"]}
    return {
        "model": "claude-sonnet-4-6" + words,
        "max_tokens": 64,
        "metadata": {"user_id": SECRETS["metadata"]},
        "tools": [tool],
        "system": [
            {"type": "text", "text": SECRETS["system" + changed] * 40, "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": SECRETS["user"]}, {"type": "image", "source": image}],
            },
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result, {"type": "text", "text": SECRETS["user" + changed] * 3}]},
        ],
    }


def make_every_call(clients):
    """Hits, misses of every section, streams, refusals, and answers that quote the prompt."""
    ask = clients.anthropic.messages.create
    ask(**conversation())
    ask(**conversation(changed="_changed"))
    list(ask(stream=True, **conversation()))
    renamed = conversation()
    renamed["tools"][0]["input_schema"]["properties"] = {SECRETS["schema_key"][::-1]: {}}
    ask(**renamed)
    for words in ("+429", "+500"):
        with pytest.raises(anthropic.APIStatusError):
            ask(**conversation(words))
    messages = [{"role": "system", "content": SECRETS["system"]}, {"role": "user", "content": SECRETS["user"]}]
    chat = clients.openai.chat.completions.create
    chat(model="gpt-5.6", messages=messages, prompt_cache_key=SECRETS["cache_key"], user=SECRETS["metadata"])
    chat(model="gpt-of-nowhere", messages=messages, prompt_cache_key=SECRETS["cache_key"][::-1])
    clients.openai.responses.create(model="gpt-5.6", instructions=SECRETS["system"], input=SECRETS["user"])
    headers = {"authorization": "Bearer " + SECRETS["bearer"], "x-forwarded-secret": SECRETS["header"]}
    clients.openai.responses.create(model="gpt-5.6", input=SECRETS["user"], extra_headers=headers)


@pytest.mark.parametrize("native", [False, True], ids=["alone", "native"])
def test_nothing_leaves(native, connect, observe, caplog):
    """Spans, metrics, ledger, prompt maps, log lines and warnings hold no twelve characters of any secret."""
    with caplog.at_level(logging.DEBUG, logger="otel_promptcache"), warnings.catch_warnings(record=True) as warned:
        telemetry = observe(
            ledger="true", prompt_map="true", hash_key=SECRETS["hash_key"], percent=SECRETS["wrong_setting"]
        )
        clients = connect(telemetry.tracer_provider if native else None, api_key=SECRETS["api_key"])
        with attribute(user=SECRETS["attributed_user"]):
            make_every_call(clients)
        said = [record.getMessage() for record in ours(caplog)]
        exported = telemetry.everything()
    maps = telemetry.events("promptcache.prompt")
    packed = b"".join(base64.b64decode(event["promptcache.map"]) for event in maps)
    assert len(telemetry.events()) == len(telemetry.spans) == 10
    assert len(maps) == 10
    assert "promptcache.reason" in exported
    assert any("OTEL_PROMPTCACHE_PERCENT" in line for line in said)
    assert found_in(exported) == []
    assert found_in("\n".join(said)) == []
    assert found_in("\n".join(str(warning.message) for warning in warned)) == []
    assert found_in(packed.decode("latin-1")) == []


def test_an_error_of_ours_quotes_nothing(clients, observe, caplog, monkeypatch):
    """The message of an exception may quote the prompt: its type and place are said, never its text."""

    def quotes(*_, **__):
        raise ValueError(SECRETS["exception"] + SECRETS["user"])

    telemetry = observe(ledger="true")
    monkeypatch.setattr(runtime.running().observer.history, "sent", quotes)
    clients.anthropic.messages.create(**conversation())
    assert telemetry.total("promptcache.internal.errors") == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("otel-promptcache: ValueError in fingerprint (observer/")
    assert caplog.records[0].exc_info is None
    assert found_in(line + telemetry.everything()) == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_nothing_is_kept_of_the_text(stream, clients, observe):
    """Once a call is over and its details are made, nobody refers to its text who would not without us."""
    text = "".join(CHANCE.choices(string.ascii_letters, k=200))

    def references(flush=lambda: None):
        messages = [{"role": "user", "content": text}]
        create = clients.anthropic.messages.create
        result = create(model="claude-sonnet-4-6", max_tokens=5, messages=messages, stream=stream)
        assert list(result)
        del result, messages
        gc.collect()  # older SDKs leave the end of a stream to it
        flush()
        gc.collect()
        return sys.getrefcount(text)

    references()
    without_us = references()
    telemetry = observe(ledger="true", prompt_map="true")
    assert references(telemetry.flush) == without_us


def test_the_search_would_find_something():
    """Twelve characters are found wherever they stand, and eleven are not."""
    value = SECRETS["system"]
    assert found_in("x" + value[5:17] + "y") == ["system"]
    assert found_in("x" + value[5:16] + "y") == []
