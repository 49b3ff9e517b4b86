"""Gemini, through the Google SDK: answers, streams, token counts, implicit caching and cache resources."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from otel_promptcache.emulator import Emulator, Reply
from otel_promptcache.emulator.faults import HEADER
from otel_promptcache.semconv import Reason, Status

FLASH = "gemini-2.5-flash"
LONG = "s" * 12_000  # 3,000 tokens
TOOL = types.FunctionDeclaration(
    name="weather", parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}}
)


def ask(client: genai.Client, contents: Any, **config: Any) -> types.GenerateContentResponse:
    config_ = types.GenerateContentConfig(**config)
    return client.models.generate_content(model=FLASH, contents=contents, config=config_)


def turn(role: str, text: str) -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


class TestAnswers:
    """``generateContent`` and ``streamGenerateContent``."""

    def test_usage_in_the_wire_shape(self, provider: Emulator, gemini: genai.Client) -> None:
        """Cached tokens lie inside the prompt's; on a miss their fields are absent."""
        key = {"x-goog-api-key": "key"}
        body = {"contents": [{"parts": [{"text": LONG}]}]}
        url = f"{provider.url}/v1beta/models/{FLASH}:generateContent"
        cold, warm = (httpx2.post(url, json=body, headers=key).json()["usageMetadata"] for _ in range(2))
        total = [{"modality": "TEXT", "tokenCount": 3000}]
        counts = {"promptTokenCount": 3000, "candidatesTokenCount": 6, "totalTokenCount": 3006}
        assert cold == {**counts, "promptTokensDetails": total, "serviceTier": "standard"}
        assert warm == {**cold, "cachedContentTokenCount": 3000, "cacheTokensDetails": total}

    def test_stream(self, provider: Emulator, gemini: genai.Client) -> None:
        """The pieces make up the answer; each has the usage, the last the reason for the end."""
        chunks = list(gemini.models.generate_content_stream(model=FLASH, contents="What is new?"))
        assert "".join(chunk.text for chunk in chunks) == ask(gemini, "What is new?").text
        assert [chunk.candidates[0].finish_reason for chunk in chunks] == [None, types.FinishReason.STOP]
        assert {chunk.usage_metadata.prompt_token_count for chunk in chunks} == {3}
        assert len({chunk.response_id for chunk in chunks}) == 1

    def test_without_events_a_stream_is_an_array(self, provider: Emulator, gemini: genai.Client) -> None:
        """As REST clients get it that do not say ``alt=sse``. The key may stand in the URL."""
        url = f"{provider.url}/v1beta/models/{FLASH}:streamGenerateContent?key=key"
        chunks = httpx2.post(url, json={"contents": [{"parts": [{"text": "a"}]}]}).json()
        assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None, "STOP"]

    async def test_async(self, provider: Emulator, gemini: genai.Client) -> None:
        """One answer, one stream."""
        assert (await gemini.aio.models.generate_content(model=FLASH, contents=LONG)).text
        stream = await gemini.aio.models.generate_content_stream(model=FLASH, contents=LONG)
        usages = [chunk.usage_metadata async for chunk in stream]
        assert usages[-1].cached_content_token_count == 3000
        await gemini.aio.aclose()

    def test_count_tokens(self, provider: Emulator, gemini: genai.Client) -> None:
        """Without touching the cache."""
        assert gemini.models.count_tokens(model=FLASH, contents=LONG).total_tokens == 3000
        assert ask(gemini, LONG).usage_metadata.cached_content_token_count is None

    @pytest.mark.parametrize("streamed", [False, True])
    def test_function_calls(self, provider: Emulator, gemini: genai.Client, streamed: bool) -> None:
        """The stand-in model calls a function, with words before it."""
        provider.answer = lambda body: Reply("Let me look.", [("weather", {"city": "Rome"})])
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[TOOL])])
        if streamed:
            stream = gemini.models.generate_content_stream(model=FLASH, contents="Rain?", config=config)
            parts = [part for chunk in stream for part in chunk.candidates[0].content.parts]
        else:
            answer = gemini.models.generate_content(model=FLASH, contents="Rain?", config=config)
            parts = answer.candidates[0].content.parts
        assert "".join(part.text or "" for part in parts) == "Let me look."
        assert (parts[-1].function_call.name, parts[-1].function_call.args) == ("weather", {"city": "Rome"})

    def test_a_forced_function_and_a_schema(self, provider: Emulator, gemini: genai.Client) -> None:
        """The plainest call, and the plainest value that fits."""
        calling = types.FunctionCallingConfig(mode="ANY", allowed_function_names=["weather"])
        forced = ask(
            gemini,
            "Rain?",
            tools=[types.Tool(function_declarations=[TOOL])],
            tool_config=types.ToolConfig(function_calling_config=calling),
        )
        assert forced.function_calls[0].name == "weather"
        schema = {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}, "required": ["n"]}
        assert ask(gemini, "?", response_mime_type="application/json", response_schema=schema).text == '{"n": 0}'

    def test_output_limit(self, provider: Emulator, gemini: genai.Client) -> None:
        """A longer answer is cut."""
        candidate = ask(gemini, "?", max_output_tokens=3).candidates[0]
        assert (candidate.finish_reason, len(candidate.content.parts[0].text)) == (types.FinishReason.MAX_TOKENS, 12)


class TestImplicit:
    """Any common prefix of at least the minimum; nothing is promised and nothing is billed for storage."""

    @pytest.mark.parametrize(
        ("model", "minimum"), [(FLASH, 2048), ("gemini-3.8-flash", 4096), ("gemini-4-argon", 4096)]
    )
    def test_the_minimum(self, provider: Emulator, gemini: genai.Client, model: str, minimum: int) -> None:
        """One token short and nothing is kept."""
        for tokens, read in ((minimum - 1, None), (minimum, minimum)):
            for _ in range(2):
                usage = gemini.models.generate_content(model=model, contents="s" * 4 * tokens).usage_metadata
            assert usage.cached_content_token_count == read

    def test_a_conversation_reads_what_it_shares(self, provider: Emulator, gemini: genai.Client) -> None:
        """System instruction and first turn, to the token."""
        first = [turn("user", LONG)]
        ask(gemini, first, system_instruction="Be short.")
        longer = [*first, turn("model", "Yes."), turn("user", "And?")]
        usage = ask(gemini, longer, system_instruction="Be short.").usage_metadata
        assert (usage.cached_content_token_count, usage.prompt_token_count) == (3003, 3005)
        assert ask(gemini, longer, system_instruction="Be long.").usage_metadata.cached_content_token_count is None

    def test_it_is_soon_forgotten(self, provider: Emulator, gemini: genai.Client) -> None:
        """After five idle minutes, as far as an emulator can say."""
        ask(gemini, LONG)
        provider.clock.advance(301)
        assert ask(gemini, LONG).usage_metadata.cached_content_token_count is None
        assert provider.last.accounting.reason is Reason.TTL_EXPIRED


class TestExplicit:
    """``cachedContents``: made, named, prolonged, listed, deleted."""

    def create(self, gemini: genai.Client, **config: Any) -> types.CachedContent:
        made = types.CreateCachedContentConfig(**{"system_instruction": "x" * 8000, "ttl": "300s", **config})
        return gemini.caches.create(model=FLASH, config=made)

    def test_it_is_read_whole(self, provider: Emulator, gemini: genai.Client) -> None:
        """Exactly its tokens, whatever is asked, and however often."""
        cache = self.create(gemini, display_name="manual", contents=[turn("user", "y" * 400)])
        assert (cache.usage_metadata.total_token_count, cache.display_name) == (2100, "manual")
        for question in ("a", "a", "b" * 40):
            usage = ask(gemini, question, cached_content=cache.name).usage_metadata
            assert usage.cached_content_token_count == 2100
            assert usage.prompt_token_count == 2100 + -(-len(question) // 4)
        assert provider.last.accounting.status is Status.HIT
        assert provider.last.why.endswith("the request names the cache")

    def test_lifetime(self, provider: Emulator, gemini: genai.Client) -> None:
        """From creation, not from the last read; one hour unless told otherwise; prolonged from now."""
        cache = self.create(gemini)
        assert cache.expire_time - cache.create_time == timedelta(seconds=300)
        provider.clock.advance(200)
        ask(gemini, "a", cached_content=cache.name)
        provider.clock.advance(101)
        with pytest.raises(errors.ClientError, match="not found"):
            ask(gemini, "a", cached_content=cache.name)
        other = self.create(gemini, ttl=None)
        assert other.expire_time - other.create_time == timedelta(hours=1)
        provider.clock.advance(3000)
        gemini.caches.update(name=other.name, config=types.UpdateCachedContentConfig(ttl="3600s"))
        provider.clock.advance(3500)
        assert ask(gemini, "a", cached_content=other.name).usage_metadata.cached_content_token_count == 2000

    def test_expire_time(self, provider: Emulator, gemini: genai.Client) -> None:
        """Instead of a lifetime, and not in the past."""
        cache = self.create(gemini)
        later = cache.expire_time + timedelta(hours=2)
        updated = gemini.caches.update(name=cache.name, config=types.UpdateCachedContentConfig(expire_time=later))
        assert updated.expire_time == later
        with pytest.raises(errors.ClientError, match="future"):
            gemini.caches.update(
                name=cache.name,
                config=types.UpdateCachedContentConfig(expire_time=cache.create_time - timedelta(days=1)),
            )

    def test_list_get_delete(self, provider: Emulator, gemini: genai.Client) -> None:
        """The client sees its own, and what it deletes is gone."""
        names = [self.create(gemini).name for _ in range(3)]
        listed = gemini.caches.list(config=types.ListCachedContentsConfig(page_size=2))
        assert [one.name for one in listed] == names
        assert gemini.caches.get(name=names[0]).name == names[0]
        gemini.caches.delete(name=names[0])
        with pytest.raises(errors.ClientError) as refusal:
            gemini.caches.get(name=names[0])
        assert (refusal.value.code, refusal.value.status) == (403, "PERMISSION_DENIED")
        assert [one.name for one in gemini.caches.list()] == names[1:]

    def test_nobody_else_can_name_it(self, provider: Emulator, gemini: genai.Client) -> None:
        """Another key gets the answer for what does not exist."""
        cache = self.create(gemini)
        options = types.HttpOptions(base_url=provider.url, retry_options=types.HttpRetryOptions(attempts=1))
        other = genai.Client(api_key="other", http_options=options)
        with pytest.raises(errors.ClientError, match="not found"):
            ask(other, "a", cached_content=cache.name)

    def test_storage(self, provider: Emulator, gemini: genai.Client) -> None:
        """Tokens times hours, until it is deleted or expires."""
        self.create(gemini, ttl="7200s")
        provider.clock.advance(1800)
        (shown,) = provider.state()["contents"]
        assert shown["token_hours"] == pytest.approx(1000, rel=0.01)
        provider.clock.advance(100_000)
        (shown,) = provider.state()["contents"]
        assert (shown["token_hours"], shown["alive"]) == (pytest.approx(4000, rel=0.01), False)

    @pytest.mark.parametrize(
        ("model", "config", "message"),
        [
            (FLASH, {"system_instruction": "x" * 4092}, "total_token_count=1023, min_total_token_count=1024"),
            ("gemini-3.8-flash", {"system_instruction": "x" * 8000}, "min_total_token_count=4096"),
            ("gemini-4-argon", {"system_instruction": "x" * 80_000}, "not supported for createCachedContent"),
            (FLASH, {"system_instruction": "x" * 8000, "ttl": "0s"}, "cached_content.ttl"),
            (FLASH, {"system_instruction": "x" * 8000, "ttl": "soon"}, "cached_content.ttl"),
        ],
    )
    def test_refusals(
        self, provider: Emulator, gemini: genai.Client, model: str, config: dict[str, Any], message: str
    ) -> None:
        """Too small, no such feature, no lifetime."""
        with pytest.raises(errors.ClientError, match=message):
            gemini.caches.create(model=model, config=types.CreateCachedContentConfig(**config))

    def test_a_request_brings_nothing_that_belongs_to_the_cache(self, provider: Emulator, gemini: genai.Client) -> None:
        """No system instruction, no tools, and the same model."""
        cache = self.create(gemini)
        for extra in ({"system_instruction": "a"}, {"tools": [types.Tool(function_declarations=[TOOL])]}):
            with pytest.raises(errors.ClientError, match="CachedContent can not be used with"):
                ask(gemini, "a", cached_content=cache.name, **extra)
        config = types.GenerateContentConfig(cached_content=cache.name)
        with pytest.raises(errors.ClientError, match="has to be the same"):
            gemini.models.generate_content(model="gemini-2.5-pro", contents="a", config=config)


class TestErrors:
    """In Google's shape."""

    @pytest.mark.parametrize(
        ("fault", "code", "status"),
        [("429", 429, "RESOURCE_EXHAUSTED"), ("500", 500, "INTERNAL"), ("529", 503, "UNAVAILABLE")],
    )
    def test_outages(self, provider: Emulator, gemini: genai.Client, fault: str, code: int, status: str) -> None:
        """An overload is a 503 there."""
        options = types.HttpOptions(headers={HEADER: fault})
        with pytest.raises(errors.APIError) as refusal:
            ask(gemini, "a", http_options=options)
        assert (refusal.value.code, refusal.value.status) == (code, status)

    def test_bad_requests(self, provider: Emulator, gemini: genai.Client) -> None:
        """No contents, no key, no such path."""
        url = f"{provider.url}/v1beta/models/{FLASH}"
        key = {"x-goog-api-key": "key"}
        for path, headers, body, code, status in (
            (":generateContent", key, {}, 400, "INVALID_ARGUMENT"),
            (":generateContent", key, {"contents": [{"parts": []}]}, 400, "INVALID_ARGUMENT"),
            (":generateContent", {}, {}, 403, "PERMISSION_DENIED"),
            (":embedContent", key, {}, 404, "NOT_FOUND"),
        ):
            answer = httpx2.post(url + path, json=body, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["status"]) == (code, code, status)

    def test_limits(self, provider: Emulator, gemini: genai.Client) -> None:
        """20 MiB of body; the context window."""
        provider.context_window = 100
        with pytest.raises(errors.ClientError, match=r"token count \(3000\) exceeds .* \(100\)"):
            ask(gemini, LONG)
        with pytest.raises(errors.ClientError, match="payload size exceeds the limit: 20971520 bytes"):
            ask(gemini, "s" * (20 * 2**20))
