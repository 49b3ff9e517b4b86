"""What a worker says that shares its history with others and was not told of it in time: what it knows itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from history.test_fleet import ANSWER, KEY, QUESTION, SYSTEM, body, read, words, wrote

from otel_promptcache import diagnosis
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Diagnosis, Link, Prompt, Scope, Usage
from otel_promptcache.providers import BY_NAME
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Confidence, Reason, Status

OTHER = SYSTEM.replace("briefly", "at length")


class Local:
    """A worker's own history, asked without the others'."""

    def __init__(self, dialect: str = "anthropic") -> None:
        self.memory = Memory(KEY, 100_000)
        self.dialect = BY_NAME[dialect]

    def call(
        self, request: dict[str, Any], usage: Usage, at: float, *, alone: bool = True, name: str = ""
    ) -> Diagnosis:
        prompt, sight = self.sent(request, at, name)
        return self.over(prompt, sight, usage, at, alone=alone)

    def sent(self, request: dict[str, Any], at: float, name: str = "") -> tuple[Prompt, Sight]:
        prompt = self.dialect.prompt(request)
        scope = Scope(self.dialect.provider, "api", "k", prompt.model, "")
        sight = self.memory.sent(prompt, scope, now=at, route="r", conversation=name, link=Link(1, int(at)))
        self.memory.describe(prompt, sight)
        return prompt, sight

    def over(self, prompt: Prompt, sight: Sight, usage: Usage, at: float, *, alone: bool) -> Diagnosis:
        sight.alone = alone
        self.memory.begun(sight, at + 0.5)
        said = diagnosis.diagnose(prompt, sight, usage, rules_for(self.dialect.provider, prompt.model))
        self.memory.ended(sight, usage, "", None)
        return said


def test_a_first_request_may_have_been_somebody_elses_second() -> None:
    """Nothing was read, and whether anything could have been is for the others to say."""
    said = Local().call(body(SYSTEM, QUESTION), wrote(2000), 100.0)
    assert (said.status, said.reason, said.lost) == (Status.UNKNOWN, None, 0)
    assert "shared history" in diagnosis.explanation(said)


def test_what_was_read_is_a_hit_whoever_wrote_it() -> None:
    assert Local().call(body(SYSTEM, QUESTION), read(2000, 1500), 100.0).status is Status.HIT


def test_what_the_rules_forbid_needs_no_history() -> None:
    said = Local().call(body("Be brief.", "hello"), Usage(20, 0, 0, 5), 100.0)
    assert (said.status, said.reason) == (Status.UNCACHEABLE, Reason.BELOW_MINIMUM)


def test_a_prefix_of_its_own_that_must_still_be_there_proves_the_miss() -> None:
    """Others can only have kept it alive for longer."""
    worker = Local()
    worker.call(body(SYSTEM, QUESTION), wrote(2000), 100.0)
    said = worker.call(body(SYSTEM, QUESTION), wrote(2000), 160.0)
    assert (said.status, said.reason) == (Status.MISS, Reason.PROVIDER_EVICTED)
    assert (said.expected, said.lost, said.link) == (2000, 2000, Link(1, 100))


def test_a_prefix_that_another_worker_may_have_kept_alive() -> None:
    """It was there, and was not read: but whether it had run out, only those know who may have read it meanwhile."""
    worker = Local()
    worker.call(body(SYSTEM, QUESTION), wrote(2000), 100.0)
    said = worker.call(body(SYSTEM, QUESTION), wrote(2000), 700.0)
    assert (said.status, said.reason, said.confidence) == (Status.MISS, Reason.UNKNOWN, Confidence.POSSIBLE)
    assert (said.also, said.lost) == ((Reason.TTL_EXPIRED,), 2000)


def test_a_change_that_another_worker_may_have_sent_before() -> None:
    worker = Local()
    worker.call(body(SYSTEM, QUESTION), wrote(2000), 100.0, name="c")
    said = worker.call(body(OTHER, QUESTION), wrote(2000), 160.0, name="c")
    assert (said.status, said.reason, said.cause) == (Status.MISS, Reason.UNKNOWN, None)
    assert said.also == (Reason.SYSTEM_CHANGED,)
    assert said.confidence is Confidence.POSSIBLE


def test_a_change_behind_which_something_was_read_is_no_miss() -> None:
    """The turn in between was another worker's, and left what was read."""
    worker = Local()
    turns = QUESTION, ANSWER, QUESTION
    worker.call(body(SYSTEM, *turns), wrote(9000), 100.0, name="c")
    changed = body(SYSTEM, QUESTION.upper(), *turns[1:], ANSWER, QUESTION)
    assert worker.call(changed, read(9000, 5000), 160.0, name="c").status is Status.HIT


def test_a_request_of_its_own_still_on_its_way() -> None:
    worker = Local()
    worker.sent(body(SYSTEM, QUESTION), 100.0)
    said = worker.call(body(SYSTEM, QUESTION), wrote(2000), 101.0)
    assert (said.status, said.reason, said.also) == (Status.MISS, Reason.UNKNOWN, (Reason.CONCURRENT_WRITE,))


def test_a_previous_response_names_the_request_itself() -> None:
    """Who continues a response by its id compares with that one, whoever else sent what."""
    said = {}
    for alone in (True, False):
        memory = Memory(KEY, 1000)
        dialect, rules = BY_NAME["openai_responses"], rules_for("openai", "gpt-5.1")
        verdicts = []
        for number, instructions in enumerate((SYSTEM * 3, OTHER * 3)):
            request = {"model": "gpt-5.1", "instructions": instructions, "input": QUESTION}
            if number:
                request["previous_response_id"] = "resp_1"
            prompt = dialect.prompt(request)
            scope = Scope("openai", "api", "k", prompt.model, "")
            sight = memory.sent(prompt, scope, now=number * 10.0, route="r", conversation="", link=Link(1, number + 1))
            memory.describe(prompt, sight)
            memory.begun(sight, number * 10.0 + 1)
            usage = Usage(8000, 0, 0, 5)
            sight.alone = alone
            verdicts.append(diagnosis.diagnose(prompt, sight, usage, rules))
            memory.ended(sight, usage, f"resp_{number + 1}", None)
        said[alone] = verdicts[1]
    assert said[True].reason is Reason.SYSTEM_CHANGED
    assert said[True] == said[False]


def chat(system: str, *turns: str) -> dict[str, Any]:
    """The same to a provider that caches every prefix by itself."""
    messages = [{"role": "assistant" if at % 2 else "user", "content": turn} for at, turn in enumerate(turns)]
    return {"model": "gpt-4.1", "messages": [{"role": "system", "content": system}, *messages]}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dialect", "asked"), [("anthropic", body), ("openai_chat", chat)])
def test_no_false_miss_whatever_the_others_did(seed: int, dialect: str, asked: Callable[..., dict[str, Any]]) -> None:
    """Conversations wander between three workers that never hear of each other in time. None of them names a miss that
    one process that saw everything does not, and a reason only where the provider did lose what it held."""
    choose = random.Random(seed)
    workers, everything = [Local(dialect) for _ in range(3)], Local(dialect)
    granule = rules_for(everything.dialect.provider, asked("", "")["model"]).granule
    systems, turns = [SYSTEM, OTHER], dict[int, list[str]]()
    now, missed, proven = 1000.0, 0, 0
    for number in range(300):
        now += choose.choice([1.0, 3.0, 20.0, 200.0])
        name = choose.randrange(20)
        history = turns.setdefault(name, [words(choose, 200)])
        request = asked(systems[choose.random() < 0.1], *history)
        worker, conversation = choose.choice(workers), f"c{name}" if name % 2 else ""
        prompt, sight = everything.sent(request, now, conversation)
        total = sight.nodes.size(len(sight.nodes)) // 4
        evicted = sight.live and choose.random() < 0.1
        held = sight.nodes.size(sight.live) // 4 if sight.live and not evicted else 0
        held -= held % granule
        said = worker.call(request, read(total, held), now, name=conversation)
        truth = everything.over(prompt, sight, read(total, held), now, alone=False)
        if said.status in (Status.MISS, Status.PARTIAL):
            missed += 1
            assert truth.status is said.status, number
        if said.reason not in (None, Reason.UNKNOWN):
            proven += 1
            assert evicted, number
            assert (said.expected or 0) <= (truth.expected or 0), number
        history += [words(choose, 150), words(choose, 40)]
    assert missed > 10
    assert proven
