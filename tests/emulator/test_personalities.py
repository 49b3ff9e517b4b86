"""Who answers: DeepSeek, the engines that people run themselves, and everybody else who speaks OpenAI's formats."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import openai
import pytest

from otel_promptcache.emulator import PERSONALITIES, Emulator, Reply, emulator
from otel_promptcache.semconv import Reason, Status

SYSTEM = {"role": "system", "content": "s" * 8000}  # 2,000 tokens


def at(provider: Emulator, name: str, path: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{provider.url}/{name}{path}", api_key="key", max_retries=0)


def talk(*texts: str) -> list[dict[str, Any]]:
    """A system prompt, then user and assistant in turn."""
    return [SYSTEM, *({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts))]


def usage(client: openai.OpenAI, *texts: str, **more: Any) -> dict[str, Any]:
    return client.chat.completions.create(model="m", messages=talk(*texts), **more).usage.to_dict()


class TestChoosing:
    """By the beginning of the path, or by an option."""

    @pytest.mark.parametrize("name", [who.name for who in PERSONALITIES if "openai_chat" in who.dialects])
    @pytest.mark.parametrize("path", ["/v1", ""])
    def test_by_path(self, provider: Emulator, name: str, path: str) -> None:
        """With and without ``/v1``; the usage fields are each one's own."""
        client = at(provider, name, path)
        assert client.chat.completions.create(model="m", messages=talk("a")).usage.prompt_tokens == 2001
        assert client.responses.create(model="m", input="a").usage.input_tokens == 1

    @pytest.mark.parametrize("name", ["deepseek", "vllm"])
    def test_by_option(self, name: str) -> None:
        """Then the OpenAI paths are that one's."""
        with emulator(personality=name) as fresh:
            client = openai.OpenAI(base_url=fresh.url + "/v1", api_key="key")
            field = {"deepseek": "prompt_cache_miss_tokens", "vllm": "completion_tokens_details"}[name]
            assert field in usage(client, "a")

    def test_a_name_that_is_none(self) -> None:
        """Says which there are."""
        with pytest.raises(ValueError, match="unknown personality 'vlm'; known are anthropic, openai"):
            Emulator(personality="vlm")

    @pytest.mark.parametrize(("name", "status"), [("vllm", 200), ("llamacpp", 200), ("deepseek", 401), ("openai", 401)])
    def test_keys(self, provider: Emulator, name: str, status: int) -> None:
        """Engines at home take requests without."""
        url = f"{provider.url}/{name}/v1/chat/completions"
        assert httpx2.post(url, json={"model": "m", "messages": talk("a")}).status_code == status


class TestDeepSeek:
    """Whole units only: where a prompt or an answer ended, or where two prompts were seen to part."""

    def hits(self, provider: Emulator, *prompts: tuple[str, ...]) -> list[int]:
        client = at(provider, "deepseek")
        return [usage(client, *texts)["prompt_cache_hit_tokens"] for texts in prompts]

    def test_usage_in_the_wire_shape(self, provider: Emulator) -> None:
        """Hit and miss add up to the prompt."""
        client = at(provider, "deepseek")
        assert usage(client, "a") == {
            "prompt_tokens": 2001,
            "completion_tokens": 6,
            "total_tokens": 2007,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": 2001,
        }
        warm = usage(client, "a")
        assert (warm["prompt_cache_hit_tokens"], warm["prompt_cache_miss_tokens"]) == (1920, 81)

    def test_the_example_of_the_documentation(self, provider: Emulator) -> None:
        """A+B, then A+B+C hits A+B; A+C misses but stores A; then A+D hits A. In granules of 128."""
        b, c, d = "b" * 2000, "c" * 2000, "d" * 2000
        assert self.hits(provider, (b,), (b, "ok", c), (c,), (d,)) == [0, 2432, 0, 1920]
        assert "only a whole unit can be read" in provider.requests[2].why

    def test_the_answer_is_part_of_the_next_prompt(self, provider: Emulator) -> None:
        """Stored behind the prompt that it answers."""
        provider.answer = lambda body: Reply("r" * 4000)
        assert self.hits(provider, ("a",), ("a", "r" * 4000, "b")) == [0, 2944]

    def test_streams_have_usage_in_the_chunk_that_ends_the_choice(self, provider: Emulator) -> None:
        """Not in one of its own."""
        stream = at(provider, "deepseek").chat.completions.create(
            model="m", messages=talk("a"), stream=True, stream_options={"include_usage": True}
        )
        last = list(stream)[-1]
        assert (last.choices[0].finish_reason, last.usage.prompt_tokens) == ("stop", 2001)

    def test_accounts_are_apart(self, provider: Emulator) -> None:
        """As everywhere but at home."""
        assert self.hits(provider, ("a",), ("a",)) == [0, 1920]
        other = at(provider, "deepseek").with_options(api_key="other")
        assert usage(other, "a")["prompt_cache_hit_tokens"] == 0


class TestVllm:
    """Blocks of 16 for everybody who comes, until the room is needed."""

    def test_usage_in_the_wire_shape(self, provider: Emulator) -> None:
        """Read and stored tokens in whole blocks."""
        client = at(provider, "vllm")
        cold, warm = (usage(client, "a" * 60)["prompt_tokens_details"] for _ in range(2))
        assert cold == {"cached_tokens": 0, "created_cache_tokens": 2000, "multimodal_tokens": None}
        assert warm == {"cached_tokens": 2000, "created_cache_tokens": 0, "multimodal_tokens": None}

    def test_older_versions_report_null_on_a_miss(self, provider: Emulator) -> None:
        """Nothing read is nothing said."""
        client = at(provider, "vllm-0.10")
        assert [usage(client, "a")["prompt_tokens_details"] for _ in range(2)] == [None, {"cached_tokens": 2000}]

    def test_the_last_block_of_a_full_hit_is_computed_anew(self, provider: Emulator) -> None:
        """A prompt that ends with a block cannot be read whole: its last token has to be computed."""
        client = at(provider, "vllm")
        reads = [usage(client, "a" * 64)["prompt_tokens_details"]["cached_tokens"] for _ in range(2)]
        assert reads == [0, 2000]

    def test_everybody_shares_unless_they_salt(self, provider: Emulator) -> None:
        """No keys, one cache; ``cache_salt`` keeps tenants apart."""
        usage(at(provider, "vllm"), "a")
        client = at(provider, "vllm").with_options(api_key="other")
        assert usage(client, "a")["prompt_tokens_details"]["cached_tokens"] == 2000
        salted = usage(client, "a", extra_body={"cache_salt": "t"})
        assert salted["prompt_tokens_details"]["cached_tokens"] == 0

    def test_nothing_expires(self, provider: Emulator) -> None:
        """Weeks later all is there."""
        usage(at(provider, "vllm"), "a")
        provider.clock.advance(30 * 86_400)
        assert usage(at(provider, "vllm"), "a")["prompt_tokens_details"]["cached_tokens"] == 2000

    def test_block_size_and_room(self) -> None:
        """What was unused for longest leaves first, and of one prompt the end before the beginning."""
        with emulator(block=128, capacity=4096) as fresh:
            client = at(fresh, "vllm")

            def read(name: str) -> int:
                text = [{"role": "user", "content": name * 8192}]  # 2,048 tokens
                counts = client.chat.completions.create(model="m", messages=text).usage
                fresh.clock.advance(1)
                return counts.prompt_tokens_details.cached_tokens

            assert [read(name) for name in "abab"] == [0, 0, 1920, 1920]
            assert [read(name) for name in "cb"] == [0, 1920]
            assert read("a") == 0
            assert fresh.last.accounting.reason is Reason.UNKNOWN
            assert fresh.last.why.endswith("it was evicted")

    def test_its_messages_endpoint(self, provider: Emulator) -> None:
        """Anthropic's format without lifetimes; stored blocks are reported as written."""
        client = anthropic.Anthropic(base_url=provider.url + "/vllm", api_key="key")
        body = {"model": "m", "max_tokens": 9, "system": "s" * 8000, "messages": [{"role": "user", "content": "a"}]}
        cold, warm = (client.messages.create(**body).usage.to_dict() for _ in range(2))
        assert cold == {
            "input_tokens": 1,
            "cache_creation_input_tokens": 2000,
            "cache_read_input_tokens": 0,
            "output_tokens": 6,
        }
        assert (warm["cache_read_input_tokens"], warm["input_tokens"]) == (2000, 1)


class TestSglang:
    """A radix tree: token by token, answers kept."""

    def test_to_the_token(self, provider: Emulator) -> None:
        """All but the last token of a repeated prompt; null on a miss."""
        client = at(provider, "sglang")
        cold, warm = (usage(client, "a" * 40) for _ in range(2))
        assert cold["prompt_tokens_details"] is None
        assert warm["prompt_tokens_details"] == {"cached_tokens": 2009}
        assert warm["reasoning_tokens"] == 0

    def test_a_conversation_reads_its_answers(self, provider: Emulator) -> None:
        """The model's own words are in the tree."""
        client = at(provider, "sglang")
        provider.answer = lambda body: Reply("r" * 400)
        usage(client, "a")
        assert usage(client, "a", "r" * 400, "b")["prompt_tokens_details"] == {"cached_tokens": 2101}

    def test_branches(self, provider: Emulator) -> None:
        """Prompts that part in the middle of a text share what is in front."""
        client = at(provider, "sglang")
        usage(client, "a" * 400 + "b" * 400)
        assert usage(client, "a" * 400 + "c" * 400)["prompt_tokens_details"] == {"cached_tokens": 2100}
        assert usage(client, "a" * 400 + "c" * 40)["prompt_tokens_details"] == {"cached_tokens": 2109}

    def test_room(self) -> None:
        """The branch that was unused for longest leaves; what others share with it stays."""
        with emulator(capacity=2600) as fresh:
            client = at(fresh, "sglang")

            def read(name: str) -> int:
                details = usage(client, name * 1000)["prompt_tokens_details"]
                fresh.clock.advance(1)
                return details["cached_tokens"] if details else 0

            assert [read(name) for name in "abb"] == [0, 2000, 2249]
            assert read("c") == 2000  # 2,000 for the system prompt and 256 for each of three: one too many
            assert [entry["evicted"] for entry in fresh.state()["entries"]].count(True) == 1
            assert [read(name) for name in "bc"] == [2249, 2249]
            assert read("a") == 2000


class TestLlamaCpp:
    """Slots: each holds one prompt with its answer."""

    def test_usage_and_timings(self, provider: Emulator) -> None:
        """What was read and what was computed, beside the usage and in the last chunk of a stream."""
        client = at(provider, "llamacpp")
        usage(client, "a" * 40)
        answer = client.chat.completions.create(model="m", messages=talk("a" * 40)).to_dict()
        assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2009}
        assert (answer["timings"]["cache_n"], answer["timings"]["prompt_n"], answer["timings"]["predicted_n"]) == (
            *(2009, 1, 6),
        )
        stream = client.chat.completions.create(model="m", messages=talk("a" * 40), stream=True)
        assert list(stream)[-1].to_dict()["timings"]["cache_n"] == 2009

    def test_four_conversations_have_a_slot_each(self, provider: Emulator) -> None:
        """The fifth takes the slot unused for longest."""
        client = at(provider, "llamacpp")

        def read(name: str) -> int:
            text = [{"role": "user", "content": name * 4000}]
            counts = client.chat.completions.create(model="m", messages=text).usage
            provider.clock.advance(1)
            return counts.prompt_tokens_details.cached_tokens

        assert [read(name) for name in "abcdabcd"] == [0] * 4 + [999] * 4
        assert [read(name) for name in "ea"] == [0, 0]
        assert [read(name) for name in "cd"] == [999, 999]

    def test_a_similar_prompt_overwrites_its_slot(self, provider: Emulator) -> None:
        """The common beginning is read, the old end is lost."""
        client = at(provider, "llamacpp")
        reads = [usage(client, text * 400)["prompt_tokens_details"]["cached_tokens"] for text in "aba"]
        assert reads == [0, 2000, 2000]

    def test_what_the_client_may_say(self, provider: Emulator) -> None:
        """``cache_prompt: false`` reads nothing; ``id_slot`` insists on a slot."""
        client = at(provider, "llamacpp")
        usage(client, "a", extra_body={"id_slot": 2})
        other = usage(client, "a", extra_body={"id_slot": 3})
        assert other["prompt_tokens_details"] == {"cached_tokens": 0}
        assert usage(client, "a", extra_body={"id_slot": 2})["prompt_tokens_details"] == {"cached_tokens": 2000}
        assert usage(client, "a", extra_body={"cache_prompt": False})["prompt_tokens_details"] == {"cached_tokens": 0}
        assert provider.last.accounting.status is Status.UNCACHEABLE
        assert usage(client, "a")["prompt_tokens_details"] == {"cached_tokens": 2000}

    def test_one_slot(self) -> None:
        """As the server is started with ``--parallel 1``."""
        with emulator(slots=1) as fresh:
            client = at(fresh, "llamacpp")
            texts = [[{"role": "user", "content": name * 4000}] for name in "aba"]
            usages = [client.chat.completions.create(model="m", messages=text).usage for text in texts]
            assert [one.prompt_tokens_details.cached_tokens for one in usages] == [0, 0, 0]

    def test_its_messages_endpoint(self, provider: Emulator) -> None:
        """It reports no writes."""
        client = anthropic.Anthropic(base_url=provider.url + "/llamacpp", api_key="key")
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a" * 4000}]}
        client.messages.create(**body)
        warm = client.messages.create(**body).usage.to_dict()
        assert warm == {"input_tokens": 1, "cache_read_input_tokens": 999, "output_tokens": 6}
