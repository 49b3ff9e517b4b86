"""One emulator for a module, and the unmodified SDKs that talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from otel_promptcache.emulator import Emulator, emulator

OPTIONS = (
    *("answer", "latency", "retry_after", "stall", "workspaces"),
    *("machine_rate", "context_window", "batch_seconds", "personality"),
)
"""What a test may change."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of httpx2 wait for a minute unless a test says otherwise: of themselves they give up after five
    seconds, and machines are busy at times."""
    for name in ("get", "post", "delete", "stream"):
        monkeypatch.setattr(httpx2, name, partial(getattr(httpx2, name), timeout=60))


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with emulator() as running:
        yield running


@pytest.fixture
def provider(server: Emulator) -> Iterator[Emulator]:
    """The running emulator, as new."""
    fresh = Emulator()
    server.reset()
    yield server
    for name in (
        "answer",
        "latency",
        "retry_after",
        "stall",
        "workspaces",
        "machine_rate",
        "context_window",
        "batch_seconds",
    ):
        setattr(server, name, getattr(fresh, name))


@pytest.fixture(scope="module")
def claude(server: Emulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gemini(server: Emulator) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=server.url, retry_options=types.HttpRetryOptions(attempts=1))
    with genai.Client(api_key="key", http_options=options) as client:
        yield client


@pytest.fixture(scope="module")
def gpt(server: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_claude(server: Emulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_gpt(server: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="key", max_retries=0) as client:
        yield client
