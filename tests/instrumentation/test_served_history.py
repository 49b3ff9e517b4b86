"""History that the server holds: only an id is on the wire, and still nothing is called a miss that is none."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

from otel_promptcache.instrumentation import runtime

MINUTE = 60
INSTRUCTIONS = "You are a patient assistant. " * 80


def openai_usage(total, read, write=None):
    details = {"cached_tokens": read} | ({} if write is None else {"cache_write_tokens": write})
    return {"input_tokens": total, "output_tokens": 20, "input_tokens_details": details, "total_tokens": total + 20}


def anthropic_usage(fresh, read, write):
    return {
        "input_tokens": fresh,
        "output_tokens": 20,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write,
    }


def verdicts(telemetry):
    """(status, reason) of each call, in order."""
    return [
        (span.attributes["promptcache.status"], span.attributes.get("promptcache.reason")) for span in telemetry.spans
    ]


def lineages(telemetry):
    return [span.attributes["promptcache.lineage.id"] for span in telemetry.spans]


HIT, COLD = ("hit", None), ("cold", None)

# GPT-5.6 and later report what they write and are exact; earlier models read in steps of 128 tokens.
GROWING = {
    "gpt-5.6": [openai_usage(2000, 0, 1990), openai_usage(2200, 1990, 200), openai_usage(2400, 2190, 200)],
    "gpt-4.1": [openai_usage(2000, 0), openai_usage(2200, 1920), openai_usage(2400, 2176)],
}


# --- previous_response_id -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", GROWING)
def test_a_chain_of_responses(model, clients, provider, telemetry, quiet):
    """Each turn sends its own words and an id: hits all, and one conversation."""
    provider.will_report(*GROWING[model])
    previous = None
    for turn in ("Hello.", "Tell me more.", "And then?"):
        chained = {} if previous is None else {"previous_response_id": previous}
        previous = clients.openai.responses.create(model=model, instructions=INSTRUCTIONS, input=turn, **chained).id
    assert verdicts(telemetry) == [COLD, HIT, HIT]
    assert len(set(lineages(telemetry))) == 1
    assert all(span.links == () for span in telemetry.spans)
    assert telemetry.total("promptcache.lost.tokens") == 0


@pytest.mark.parametrize("model", GROWING)
def test_a_chain_of_streams(model, clients, provider, telemetry, quiet):
    """The id of a streamed response is known too."""
    provider.will_report(*GROWING[model])
    previous = None
    for turn in ("Hello.", "Tell me more.", "And then?"):
        chained = {} if previous is None else {"previous_response_id": previous}
        with clients.openai.responses.stream(model=model, instructions=INSTRUCTIONS, input=turn, **chained) as stream:
            previous = stream.get_final_response().id
    assert verdicts(telemetry) == [COLD, HIT, HIT]
    assert len(set(lineages(telemetry))) == 1


def test_a_chain_without_instructions(clients, provider, telemetry, quiet):
    """Instructions are not inherited; leaving them out of later turns changes nothing that was cached of the rest."""
    provider.will_report(*GROWING["gpt-5.6"])
    first = clients.openai.responses.create(model="gpt-5.6", input="Hello. " * 300)
    second = clients.openai.responses.create(model="gpt-5.6", input="More.", previous_response_id=first.id)
    clients.openai.responses.create(model="gpt-5.6", input="Then?", previous_response_id=second.id)
    assert verdicts(telemetry) == [COLD, HIT, HIT]


def test_two_answers_to_one_response(clients, provider, telemetry, quiet):
    """A fork of a conversation continues it as well."""
    fork = openai_usage(2200, 1990, 200)
    provider.will_report(GROWING["gpt-5.6"][0], fork, fork)
    first = clients.openai.responses.create(model="gpt-5.6", instructions=INSTRUCTIONS, input="Hello.")
    for way in ("left", "right"):
        clients.openai.responses.create(
            model="gpt-5.6", instructions=INSTRUCTIONS, input=f"Go {way}.", previous_response_id=first.id
        )
    assert verdicts(telemetry) == [COLD, HIT, HIT]
    assert len(set(lineages(telemetry))) == 1


def test_many_conversations_at_once(connect, provider, telemetry, quiet):
    """Interleaved chains do not touch one another."""
    provider.will_report(*[GROWING["gpt-5.6"][0]] * 5, *[GROWING["gpt-5.6"][1]] * 5)

    async def talk():
        clients = connect()
        create = clients.async_openai.responses.create
        turns = [create(model="gpt-5.6", instructions=INSTRUCTIONS, input=f"I am {n}.") for n in range(5)]
        firsts = await asyncio.gather(*turns)
        for first in firsts:
            await create(model="gpt-5.6", instructions=INSTRUCTIONS, input="More.", previous_response_id=first.id)
        await clients.aclose()

    asyncio.run(talk())
    ids = lineages(telemetry)
    assert [status for status, _ in verdicts(telemetry)[5:]] == ["hit"] * 5
    assert sorted(ids[:5]) == sorted(ids[5:])


@pytest.mark.parametrize("read", [0, 1990])
def test_an_id_from_another_process(read, clients, provider, telemetry, quiet):
    """What we did not see we do not expect: nothing read is no miss."""
    provider.will_report(openai_usage(2200, read, 2190 - read))
    clients.openai.responses.create(
        model="gpt-5.6", instructions=INSTRUCTIONS, input="More.", previous_response_id="resp_of_yesterday"
    )
    assert verdicts(telemetry) == [HIT if read else COLD]


def test_instructions_that_change_within_a_chain(clients, provider, telemetry, quiet):
    """A real miss is still one: what is resent can differ, and does."""
    provider.will_report(GROWING["gpt-5.6"][0], openai_usage(2200, 0, 2190))
    first = clients.openai.responses.create(
        model="gpt-5.6", instructions="It is 09:00. " + INSTRUCTIONS, input="Hello."
    )
    clients.openai.responses.create(
        model="gpt-5.6", instructions="It is 09:01. " + INSTRUCTIONS, input="More.", previous_response_id=first.id
    )
    assert verdicts(telemetry) == [COLD, ("miss", "system_changed")]
    (link,) = telemetry.spans[1].links
    assert link.context.span_id == telemetry.spans[0].context.span_id


@pytest.mark.parametrize(("minutes", "verdict"), [(20, HIT), (40, ("miss", "ttl_expired"))])
def test_a_chain_that_pauses(minutes, verdict, clients, provider, telemetry, quiet):
    """After a pause longer than the lifetime nothing read is the lifetime's fault."""
    read = 1990 if verdict is HIT else 0
    provider.will_report(GROWING["gpt-5.6"][0], openai_usage(2200, read, 2190 - read))
    observer = runtime.running().observer
    first = clients.openai.responses.create(model="gpt-5.6", instructions=INSTRUCTIONS, input="Hello.")
    now = observer.clock()
    observer.clock = lambda: now + minutes * MINUTE
    clients.openai.responses.create(
        model="gpt-5.6", instructions=INSTRUCTIONS, input="More.", previous_response_id=first.id
    )
    assert verdicts(telemetry) == [COLD, verdict]


# --- conversation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["conv_1", {"id": "conv_1"}], ids=["string", "object"])
def test_a_conversation_object(form, clients, provider, telemetry, quiet):
    """All turns of a conversation carry its id, and the later ones hit."""
    provider.will_report(*GROWING["gpt-5.6"])
    for turn in ("Hello.", "Tell me more.", "And then?"):
        clients.openai.responses.create(model="gpt-5.6", instructions=INSTRUCTIONS, input=turn, conversation=form)
    assert verdicts(telemetry) == [COLD, HIT, HIT]
    assert len(set(lineages(telemetry))) == 1
    assert [span.attributes["gen_ai.conversation.id"] for span in telemetry.spans] == ["conv_1"] * 3


def test_two_conversations(clients, provider, telemetry, quiet):
    """Another conversation with the same words is another lineage, and its first turn is no miss."""
    provider.will_report(GROWING["gpt-5.6"][0], openai_usage(2000, 0, 1990))
    for name in ("conv_1", "conv_2"):
        clients.openai.responses.create(model="gpt-5.6", instructions=INSTRUCTIONS, input="Hello.", conversation=name)
    assert [status for status, _ in verdicts(telemetry)] == ["cold", "cold"]
    assert len(set(lineages(telemetry))) == 2


# --- Anthropic threads --------------------------------------------------------------------------------------

THREADS = hasattr(anthropic.resources.beta.messages.Messages, "thread")
SYSTEM = [{"type": "text", "text": INSTRUCTIONS, "cache_control": {"type": "ephemeral"}}]
TURNS = [anthropic_usage(10, 0, 1200), anthropic_usage(10, 1200, 80), anthropic_usage(10, 1280, 80)]


def thread_of(client, **more):
    return client.beta.messages.thread(
        model="claude-sonnet-4-6", max_tokens=64, system=SYSTEM, cache_control={"type": "ephemeral"}, **more
    )


@pytest.mark.skipif(not THREADS, reason="this anthropic SDK has no message threads")
class TestThreads:
    """The SDK's threads send ``continue`` with the last message's id, and neither system nor tools."""

    def test_a_thread(self, clients, provider, telemetry, quiet):
        """Each turn continues the one before: hits all, and one conversation."""
        provider.will_report(*TURNS)
        thread = thread_of(clients.anthropic)
        for turn in ("Hello.", "Tell me more.", "And then?"):
            thread.send({"role": "user", "content": turn})
        assert [ask.body["thread"]["type"] for ask in provider.asked] == ["create", "continue", "continue"]
        assert "system" not in provider.asked[1].body
        assert verdicts(telemetry) == [COLD, HIT, HIT]
        assert len(set(lineages(telemetry))) == 1
        assert telemetry.total("promptcache.lost.tokens") == 0

    def test_a_thread_of_streams(self, clients, provider, telemetry, quiet):
        """The same with streamed turns."""
        provider.will_report(*TURNS)
        thread = thread_of(clients.anthropic)
        for turn in ("Hello.", "Tell me more.", "And then?"):
            with thread.stream({"role": "user", "content": turn}) as stream:
                stream.get_final_message()
        assert verdicts(telemetry) == [COLD, HIT, HIT]
        assert len(set(lineages(telemetry))) == 1

    def test_a_fork_that_sends_everything_again(self, clients, provider, telemetry, quiet):
        """A fork starts a new thread with the whole history; what it shares it reads."""
        provider.will_report(*TURNS[:2], anthropic_usage(10, 1200, 160))
        thread = thread_of(clients.anthropic)
        for turn in ("Hello.", "Tell me more."):
            thread.send({"role": "user", "content": turn})
        thread.fork().send({"role": "user", "content": "Something else."})
        assert len(provider.asked[2].body["messages"]) == 5
        assert verdicts(telemetry) == [COLD, HIT, HIT]

    @pytest.mark.parametrize("threaded", [True, False], ids=["threads", "whole history"])
    def test_the_tool_runner(self, threaded, clients, provider, telemetry, quiet):
        """The tool runner's loop is one conversation and hits from its second request on."""

        @anthropic.beta_tool
        def weather(city: str) -> str:
            """The weather in a city."""
            return f"Sun in {city}."

        provider.will_report(*TURNS[:2])
        runner = clients.anthropic.beta.messages.tool_runner(
            model="claude-sonnet-4-6+tool",
            max_tokens=64,
            system=SYSTEM,
            cache_control={"type": "ephemeral"},
            tools=[weather],
            messages=[{"role": "user", "content": "How is the weather in Rome?"}],
            **({} if threaded else {"thread": False}),
        )
        assert [message.stop_reason for message in runner] == ["tool_use", "end_turn"]
        assert ("thread" in provider.asked[0].body) is threaded
        assert verdicts(telemetry) == [COLD, HIT]
        assert len(set(lineages(telemetry))) == 1

    async def test_the_async_tool_runner(self, connect, provider, telemetry, quiet):
        """The same for asynchronous tools and streams."""

        @anthropic.beta_async_tool
        async def weather(city: str) -> str:
            """The weather in a city."""
            return f"Sun in {city}."

        provider.will_report(*TURNS[:2])
        clients = connect()
        runner = clients.async_anthropic.beta.messages.tool_runner(
            model="claude-sonnet-4-6+tool",
            max_tokens=64,
            system=SYSTEM,
            cache_control={"type": "ephemeral"},
            tools=[weather],
            messages=[{"role": "user", "content": "How is the weather in Rome?"}],
            stream=True,
        )
        async for stream in runner:
            async for _ in stream:
                pass
        await clients.aclose()
        assert verdicts(telemetry) == [COLD, HIT]
        assert len(set(lineages(telemetry))) == 1
