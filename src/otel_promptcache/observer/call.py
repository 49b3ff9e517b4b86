"""One call, from the prepared request to the settled account."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter, thread_time, time_ns
from typing import TYPE_CHECKING, Any, Final

from otel_promptcache import diagnosis, paths, pricing
from otel_promptcache._collection import collected, collecting
from otel_promptcache.history import Sight, Write
from otel_promptcache.journal import Where
from otel_promptcache.model import (
    Answer,
    Observation,
    Prompt,
    Scope,
)
from otel_promptcache.observer import witness
from otel_promptcache.observer.breaker import GROSS_OVERRUN, STRIKES
from otel_promptcache.observer.reckoning import chosen, describe, error_kind, fingerprint_of
from otel_promptcache.observer.recording import Recorder
from otel_promptcache.observer.wall import walled
from otel_promptcache.observer.witness import Question
from otel_promptcache.providers import Dialect, native, provider_for
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.settings import Mode, Settings

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer
    from otel_promptcache.observer.shared import Asking

TENANT: Final = "tenant"
"""The attribution key by which the shared history keeps an application's customers apart."""
DETAIL_JOBS: Final = 64
"""Jobs that hold text of prompts, at most: line hashes are dispensable, memory is not."""
MAX_NAME: Final = 256
"""Characters kept of an id, a model's name, an error type: they come over the wire, and go into spans and labels."""


class Call:
    """One logical call to a provider, retries included. Told of events; finished exactly once."""

    __slots__ = (
        "_asked",
        "_closed",
        "_prompt",
        "_recorder",
        "_seen",
        "_shared",
        "_sight",
        "_started",
        "_started_ns",
        "diagnosing",
        "dialect",
        "observer",
        "question",
        "settings",
        "spent",
    )

    def __init__(self, observer: Observer, dialect: Dialect, settings: Settings) -> None:
        self.observer = observer
        self.dialect = dialect
        self.settings = settings
        self.spent: dict[str, float] = {}
        """Our own seconds on the caller's thread, by phase, waiting included."""
        self.diagnosing = 0.0
        """CPU seconds of it that went into fingerprint and look-up, which grow with the prompt. Waiting for the
        interpreter's lock is not our doing: were it counted, a busy server would lose its diagnosis for being busy."""
        self._started = perf_counter()
        self._started_ns = time_ns()
        self._seen: Observation | None = None
        self._recorder: Recorder | None = None
        self._prompt: Prompt | None = None
        self._sight: Sight | None = None
        self._shared: Asking | None = None
        """What the shared history is asked, where there is one."""
        self._closed = False
        self._asked: str | None = None
        """The response that the application itself asks the provider to compare with; empty where it only opts in."""
        self.question: Question | None = None
        """What is to be added to the request, and then: what was."""

    @property
    def recorder(self) -> Recorder | None:
        """Telemetry's side of this call, once the request has been prepared."""
        return self._recorder

    # --- events, in the order of a happy call ---------------------------------------------------------------

    @walled("request", "request")
    def prepared(self, body: Mapping[str, Any], host: str, port: int, credential: str) -> None:
        """The final body is about to be serialised (first attempt) or sent again (later ones)."""
        if self._seen is not None:
            self._seen.attempts += 1
            self._sent_again()
            return
        observer, settings = self.observer, self.settings
        model = body.get("model")
        seen = self._seen = Observation(
            call_id=observer.next_id(),
            dialect=self.dialect.name,
            provider=provider_for(host, self.dialect),
            endpoint=host,
            port=port,
            model=model[:MAX_NAME] if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            at=observer.clock(),
        )
        self._recorder = observer.telemetry.begin(seen, self._started_ns)
        seen.attribution = self._recorder.attribution
        seen.conversation = seen.attribution.conversation
        self._asked = native.asked(self.dialect.name, body)
        if settings.mode is Mode.DIAGNOSE and not observer.breaker.open and chosen(settings.percent):
            self._look_up(body, credential)

    def _look_up(self, body: Mapping[str, Any], credential: str) -> None:
        """Fingerprints the prompt and asks the history. An error here costs the diagnosis, not the tokens."""
        observer, seen = self.observer, self._seen
        assert seen is not None
        assert self._recorder is not None
        started, others = thread_time(), collected()
        try:
            prompt = self.dialect.prompt(body)
            seen.max_tokens, seen.text_only = prompt.max_tokens, prompt.text_only
            seen.write_ttls = tuple(place.ttl for place in prompt.breakpoints)
            seen.conversation = seen.conversation or prompt.conversation_id
            if not prompt.segments:
                return
            credentials = observer.credentials(credential)
            tenant = dict(seen.attribution.keys).get(TENANT, "") if observer.sharing is not None else ""
            scope = Scope(seen.provider, seen.endpoint, credentials[0], prompt.model, prompt.cache_key, tenant)
            sight = observer.history.sent(
                prompt,
                scope,
                now=seen.at,
                route=seen.attribution.route,
                conversation=seen.conversation,
                link=self._recorder.link,
            )
            seen.lineage = sight.sent.lineage
            self._prompt, self._sight = prompt, sight
            if sight.previous is not None:
                seen.gap = seen.at - sight.previous.at
            if self.settings.native_diagnostics and self._asked is None:
                self.question = observer.witness.question(seen, sight, self.settings)
            if observer.sharing is not None:
                said = seen.attribution.route, seen.conversation
                self._shared = observer.sharing.ask(prompt, sight, tenant, *said, credentials)
            elif sight.fresh:
                observer.worker.submit(lambda: describe(observer.history, prompt, sight), DETAIL_JOBS)
        except Exception as error:
            observer.trouble("fingerprint", error)
        finally:
            self.diagnosing = thread_time() - started - (collected() - others)

    def _sent_again(self) -> None:
        """A span that stood for the first attempt only, and has ended with it, is not where the rest belongs."""
        if self._recorder is not None:
            self._recorder.sent_again()
            if self._sight is not None:
                self._sight.sent.link = self._recorder.link

    def unasked(self) -> None:
        """The question could not be added to the request, or not to one of this client."""
        self.question = None

    @walled("witness", "request")
    def refused(self) -> None:
        """The provider did not take the question. The request is made again without it, as the same call."""
        question, self.question = self.question, None
        if question is not None:
            self.observer.witness.refused(question)

    @walled("response", "response")
    def begun(self, *, streaming: bool) -> None:
        """The response's first bytes are here: what the request wrote is readable from now on."""
        seen = self._seen
        if seen is None:
            return
        if streaming and seen.first_chunk is None:
            seen.first_chunk = perf_counter() - self._started
        if self._sight is not None:
            now = self.observer.clock()
            self.observer.history.begun(self._sight, now)
            if streaming and self._shared is not None:
                self._shared.begun(now)

    @walled("response", "response")
    def answered(self, answer: Answer) -> None:
        """Something the response says about itself; later counts replace earlier ones."""
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        seen = self._seen
        if seen is None or self._closed:
            return
        if answer.response_id:
            seen.response_id = answer.response_id[:MAX_NAME]
        if answer.model:
            seen.response_model = answer.model[:MAX_NAME]
        if answer.native:
            seen.native = answer.native
        if answer.finish_reasons:
            seen.finish_reasons = tuple(reason[:MAX_NAME] for reason in answer.finish_reasons)
        if answer.error_type:
            seen.error_type = error_kind(answer.error_type)
        if answer.usage is not None:
            seen.usage = answer.usage
            self._judge(seen, over=False)
            self._compare(seen)
            if self._recorder is not None:
                self._recorder.usage(seen)

    @walled("response", "response")
    def loaded(self, document: object) -> None:
        """A whole body that is there already, parsed; None where it is no JSON object."""
        if self._seen is None or self._closed:
            return
        if self._sight is not None:
            self.observer.history.begun(self._sight, self.observer.clock())
        if isinstance(document, dict):
            self._answered(self.dialect.answer(document))
        self._complete()

    @walled("response", "response")
    def complete(self) -> None:
        """The body is over: what it did not say, it will not say. The owner's span may end right after this."""
        self._complete()

    def _complete(self) -> None:
        seen = self._seen
        if seen is None or self._closed or self._recorder is None:
            return
        if seen.duration is None:
            seen.duration = perf_counter() - self._started
        if seen.usage is None or self._waiting(seen):
            self._judge(seen)
            self._compare(seen)
            self._recorder.usage(seen)

    @walled("response", "response")
    def finished(self) -> None:
        """The call is over, without an error."""
        self._close()

    def left(self) -> None:
        """The caller has had enough of the response, or dropped it. That may be in the middle of a collection of
        garbage, which may be in the middle of anything, any lock held: only the worker is told then."""
        if not collecting():
            self.finished()
            return
        seen = self._seen
        if seen is not None and seen.duration is None:
            seen.duration = perf_counter() - self._started
        self.observer.worker.hand_over(self.finished)

    @walled("response", "response")
    def failed(self, error_type: str) -> None:
        """The call failed with an error that the caller sees."""
        if self._seen is not None:
            self._seen.error_type = self._seen.error_type or error_kind(error_type)
        self._close()

    # --- assembling -----------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        seen, recorder = self._seen, self._recorder
        if seen is None or recorder is None:
            return
        if seen.duration is None:
            seen.duration = perf_counter() - self._started
        if seen.usage is None or self._waiting(seen):
            self._judge(seen)
            self._compare(seen)
        self._conclude(seen)
        recorder.close(seen)
        observer = self.observer
        if (
            seen.cost is not None
            or seen.usage is None
            or pricing.ready()
            or not self.settings.prices
            or observer.no_prices
        ):
            recorder.settle(seen)
            self._account()
        else:
            # Price data is still being loaded: the rest is told when it is there.
            observer.worker.submit(lambda: self._settle_late(seen, recorder))

    def _settle_late(self, seen: Observation, recorder: Recorder) -> None:
        try:
            pricing.load()
        except Exception as error:
            self.observer.trouble("pricing", error)
        self._price(seen)
        recorder.settle(seen)
        self._account()

    def _waiting(self, seen: Observation) -> bool:
        """Whether there is no verdict yet because the shared history had not answered."""
        return self._shared is not None and seen.diagnosis is None and not seen.error_type

    def _judge(self, seen: Observation, *, over: bool = True) -> None:
        """Diagnosis and cost from what is known so far; each may fail without the other. Until the response is ``over``
        nobody is waited for."""
        observer = self.observer
        if self._prompt is not None and self._sight is not None and seen.fingerprint is None:
            try:
                seen.fingerprint = fingerprint_of(observer.key, self._prompt, self._sight)
            except Exception as error:
                observer.trouble("fingerprint", error)
        judged = seen.diagnosis is not None or (not over and self._shared is not None and not self._shared.ready)
        if self._prompt is not None and self._sight is not None and not judged and not seen.error_type:
            try:
                self._diagnose(seen, self._prompt, self._known(seen, self._sight))
            except Exception as error:
                observer.trouble("diagnosis", error)
        priced = seen.usage is not None and self.settings.prices and not self.observer.no_prices
        if priced and observer.prices_ready():
            self._price(seen)

    def _compare(self, seen: Observation) -> None:
        """Sets the provider's own verdict beside ours, whoever asked for it."""
        question, asked = self.question, self._asked
        if (question is None or not question.previous_id) and not asked and not seen.native:
            return
        seen.native = seen.native or (("type", native.UNCHANGED),)
        seen.native_asked_by = "application" if asked is not None else "instrumentation" if question is not None else ""
        if seen.diagnosis is not None:
            try:
                seen.agreement = witness.agreement(witness.word(seen.native), seen.diagnosis)
            except Exception as error:
                self.observer.trouble("witness", error)

    def _known(self, seen: Observation, local: Sight) -> Sight:
        """What was known when the request was sent: to all workers, if they have said so in time, else to this one."""
        found = self._shared.sight(self.settings.history_wait_ms / 1000) if self._shared is not None else None
        if found is None:
            return local
        found.sent.began, found.sent.readable = local.sent.began, local.sent.readable
        seen.lineage = local.sent.lineage = found.sent.lineage
        if found.previous is not None:
            seen.gap = found.sent.at - found.previous.at
        return found

    def _diagnose(self, seen: Observation, prompt: Prompt, sight: Sight) -> None:
        rules = rules_for(seen.provider, prompt.model)
        verdict = diagnosis.diagnose(prompt, sight, seen.usage, rules, seen.response_model)
        seen.diagnosis = verdict
        if self._sight is not None and sight is not self._sight:
            self._sight.judged_by(sight)
        if verdict.place is not None:
            seen.path = paths.at(self.dialect, verdict.place, verdict.field, self.settings.privacy, self.observer.key)
        if seen.usage is not None:
            seen.hit_depth = diagnosis.hit_depth(prompt, sight, seen.usage)

    def _price(self, seen: Observation) -> None:
        if seen.usage is None or not seen.usage.available:
            return
        models = (seen.response_model, seen.model)
        try:
            seen.cost = pricing.cost(seen.usage, seen.provider, models, seen.at, seen.write_ttls)
        except pricing.PriceUnknownError:
            self.observer.unpriced(seen.provider, seen.response_model or seen.model)
        except Exception as error:
            self.observer.trouble("pricing", error)
        verdict = seen.diagnosis
        if seen.cost is not None and verdict is not None and verdict.lost:
            seen.lost_usd = pricing.lost(verdict.lost, seen.usage, seen.cost)

    def _conclude(self, seen: Observation) -> None:
        """Tells the history how it ended."""
        sight = self._sight
        if sight is None:
            return
        write = None
        cost = seen.cost
        if cost is not None and seen.usage is not None and seen.usage.write:
            premium = cost.write - seen.usage.write * cost.fresh_price
            if premium > 0:
                ttl = max(seen.write_ttls or (), default=300)
                labels = self._recorder.labels if self._recorder is not None else ()
                places = self._prompt.breakpoints if self._prompt is not None else ()
                implied = not any(place.explicit for place in places)
                write = Write(ttl, seen.at + ttl, float(premium), labels, implied=implied)
        usage = None if seen.error_type else seen.usage
        if seen.response_id and (self.question is not None or self._asked is not None):
            self.observer.witness.recorded(seen.response_id)
        self.observer.history.ended(sight, usage, seen.response_id, write)
        if self._shared is not None:
            self._shared.ended(self.observer.clock(), sight.sent, usage, seen.response_id)
        if self.settings.journal:
            self._journal(seen)
        if self.settings.prompt_map and self._prompt is not None:
            prompt = self._prompt
            self.observer.worker.submit(lambda: self.observer.telemetry.prompt_map(seen, prompt, sight))

    def _journal(self, seen: Observation) -> None:
        """Has a stable prefix that is new to its route looked at, once the caller has been served."""
        prompt, print_ = self._prompt, seen.fingerprint
        if prompt is None or print_ is None or not print_.prefix_id:
            return
        observer, said = self.observer, seen.attribution
        where = Where(said.route, seen.provider, seen.model)
        digest = print_.sections.rpartition(",messages:")[0]
        if observer.journal.settled(where, digest, seen.at):
            return
        link = self._recorder.link if self._recorder is not None else None

        def look() -> None:
            try:
                observer.journal.saw(
                    where,
                    digest,
                    prompt,
                    now=seen.at,
                    service=observer.telemetry.service_version,
                    name=(said.prompt_name, said.prompt_version),
                    link=link,
                )
            except Exception as error:
                observer.trouble("journal", error)

        observer.worker.submit(look, DETAIL_JOBS)

    def _account(self) -> None:
        """Our own time, and what follows when it was too much."""
        observer = self.observer
        observer.telemetry.overhead(self.spent)
        budget = self.settings.budget_ms / 1000
        if budget and self.diagnosing > budget:
            gross = self.diagnosing > GROSS_OVERRUN * budget
            observer.breaker.strike(f"a call cost {self.diagnosing * 1000:.1f} ms", STRIKES if gross else 1)
