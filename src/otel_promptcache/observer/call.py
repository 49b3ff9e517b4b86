"""One call, from the prepared request to the settled account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter, thread_time, time_ns
from typing import TYPE_CHECKING, Any, Final

from otel_promptcache import diagnosis, paths, pricing
from otel_promptcache._collection import collected, collecting
from otel_promptcache.history import Sight
from otel_promptcache.model import Answer, Observation, Prompt, Scope, Usage
from otel_promptcache.observer import witness
from otel_promptcache.observer.afterwards import premium_of, tell_journal
from otel_promptcache.observer.batches import NoItems, Submission
from otel_promptcache.observer.breaker import GROSS_OVERRUN, STRIKES
from otel_promptcache.observer.reckoning import DETAIL_JOBS, chosen, describe, error_kind, fingerprint_of
from otel_promptcache.observer.recording import Origin, Recorder
from otel_promptcache.observer.wall import walled
from otel_promptcache.observer.witness import Question
from otel_promptcache.providers import Dialect, limits, native
from otel_promptcache.providers._wire import marks
from otel_promptcache.providers.endpoints import provider_at
from otel_promptcache.providers.limits import Header
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.settings import Mode, Settings

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer
    from otel_promptcache.observer.shared import Asking

REFUSED: Final = 429
TENANT: Final = "tenant"
"""The attribution key by which the shared history keeps an application's customers apart."""
MAX_NAME: Final = 256
"""Characters kept of an id, a model's name, an error type: they come over the wire, and go into spans and labels."""


class Call(NoItems):
    """One logical call to a provider, retries included. Told of events; finished exactly once."""

    __slots__ = (
        "_asked",
        "_background",
        "_batch",
        "_closed",
        "_doubted",
        "_judged_by",
        "_mode",
        "_named",
        "_origin",
        "_prompt",
        "_recorder",
        "_seen",
        "_shared",
        "_sight",
        "_started",
        "_started_ns",
        "_unweighed",
        "diagnosing",
        "dialect",
        "observer",
        "question",
        "settings",
        "spent",
    )

    def __init__(
        self,
        observer: Observer,
        dialect: Dialect,
        settings: Settings,
        *,
        batch: str = "",
        mode: Mode | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.observer = observer
        self.dialect = dialect
        self.settings = settings
        self._batch = batch
        """The batch that it is an item of."""
        self._origin = origin
        """Whose it is, where another part of the application reads the answer."""
        self._background = False
        """Whether the provider is asked to go on in the background."""
        self._mode = mode or settings.mode
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
        self._doubted: Question | None = None
        """What may have been refused: the request is under way without it."""
        self._judged_by: tuple[int | None, ...] | None = None
        """The counts that the verdict rests on."""
        self._unweighed = False
        """Whether output was counted since, which changes the cost."""
        self._named = ""
        """Who answers, where that is known before the answer."""
        self._asked: str | None = None
        """The response that the application itself asks the provider to compare with; empty where it only opts in."""
        self.question: Question | None = None
        """What is to be added to the request, and then: what was."""

    @property
    def recorder(self) -> Recorder | None:
        """Telemetry's side of this call, once the request has been prepared."""
        return self._recorder

    @property
    def seen(self) -> Observation | None:
        """What is known of the call, once the request has been prepared."""
        return self._seen

    # --- events, in the order of a happy call ---------------------------------------------------------------

    @walled("request", "request")
    def prepared(
        self,
        body: Mapping[str, Any],
        host: str,
        port: int,
        credential: str,
        platform: str = "",
        said: object = None,
    ) -> None:
        """The final body is about to be serialised (first attempt) or sent again (later ones). ``platform``: the
        provider that the client itself is made for, where it is made for one. ``said``: the body as the application
        gave it, before the SDK prepared it; it may hold generators."""
        if self._seen is not None:
            self._seen.attempts += 1
            self._sent_again()
            return
        observer, settings = self.observer, self.settings
        model = body["model"][:MAX_NAME] if isinstance(body.get("model"), str) else ""
        self._named = platform or provider_at(host, port, settings.provider_hosts)
        seen = self._seen = Observation(
            call_id=observer.next_id(),
            dialect=self.dialect.name,
            provider=self._named or observer.learned.get((host, port, model)) or self.dialect.provider,
            endpoint=host,
            port=port,
            model=model,
            stream=body.get("stream") is True,
            at=observer.clock(),
        )
        seen.operation = self.dialect.operation
        seen.batch = self._batch
        self._recorder = observer.telemetry.begin(seen, self._started_ns, self._origin)
        seen.attribution = self._recorder.attribution
        seen.conversation = seen.attribution.conversation
        seen.fetched = self._origin is not None and not self._batch
        self._background = body.get("background") is True
        self._asked = native.asked(self.dialect.name, body)
        if settings.stream_usage:
            self.question = observer.witness.usage_question(seen, body)
        if self._mode is Mode.DIAGNOSE and not observer.breaker.open and chosen(settings.percent):
            self._look_up(body, credential, said)

    def _look_up(self, body: Mapping[str, Any], credential: str, said: object) -> None:
        """Fingerprints the prompt and asks the history. An error here costs the diagnosis, not the tokens."""
        observer, seen = self.observer, self._seen
        assert seen is not None
        assert self._recorder is not None
        started, others = thread_time(), collected()
        try:
            prompt = self.dialect.prompt(body)
            if not prompt.breakpoints and isinstance(said, Mapping) and marks(said):
                prompt = prompt._replace(marks_lost=True)
            seen.max_tokens, seen.text_only = prompt.max_tokens, prompt.text_only
            seen.write_ttls = tuple(place.ttl for place in prompt.breakpoints)
            seen.conversation = seen.conversation or prompt.conversation_id
            if not prompt.segments:
                return
            # What is learned of a host comes too late for its first request, whose prefix the next ones are to find.
            provider = self._named or self.dialect.provider
            credentials = observer.credentials(credential)
            tenant = dict(seen.attribution.keys).get(TENANT, "") if observer.sharing is not None else ""
            scope = Scope(provider, seen.endpoint, credentials[0], prompt.model, prompt.cache_key, tenant)
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
            if self.settings.native_diagnostics and self._asked is None and self.question is None:
                self.question = observer.witness.question(seen, sight, self.settings)
            if observer.sharing is not None:
                names = seen.attribution.route, seen.conversation
                self._shared = observer.sharing.ask(prompt, sight, tenant, *names, credentials)
            elif sight.fresh:
                observer.worker.submit(lambda: describe(observer.history, prompt, sight), DETAIL_JOBS)
        except Exception as error:
            observer.trouble("fingerprint", error)
        finally:
            self.diagnosing = thread_time() - started - (collected() - others)

    def dated(self, at: float) -> None:
        """Says when the request was really made, in POSIX seconds: prices have dates."""
        if self._seen is not None:
            self._seen.at = at

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
    def refused(self, *, certain: bool) -> None:
        """The provider did not take the question, or may not have. The request is made again without it, as the same
        call; where it is answered then, the question was to blame."""
        question, self.question = self.question, None
        if question is not None and certain:
            self.observer.witness.refused(question)
        else:
            self._doubted = question

    @walled("limits", "response")
    def heard(self, status: int, headers: Iterable[Header]) -> None:
        """An attempt was answered, by a refusal perhaps. Of its headers only those on rate limits are looked at."""
        seen, recorder = self._seen, self._recorder
        if seen is None or recorder is None:
            return
        seen.refused += status == REFUSED
        told = limits.kept(headers)
        if told:
            recorder.limits(told, self.observer.clock())

    @walled("response", "response")
    def begun(self, *, streaming: bool) -> None:
        """The response's first bytes are here: what the request wrote is readable from now on."""
        seen = self._seen
        if seen is None:
            return
        if streaming and seen.first_chunk is None:
            seen.first_chunk = perf_counter() - self._started
        self._begun(streaming=streaming)

    def _begun(self, *, streaming: bool) -> None:
        if self._sight is not None:
            now = self.observer.clock()
            self.observer.history.begun(self._sight, now)
            if streaming and self._shared is not None:
                self._shared.begun(now)
        if self.question is not None:
            self.observer.witness.took(self.question)
        elif self._doubted is not None:
            self.observer.witness.refused(self._doubted)
            self._doubted = None

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
            seen.native = tuple(
                (name, value[:MAX_NAME] if isinstance(value, str) else value) for name, value in answer.native
            )
        if answer.discount is not None:
            seen.discount = answer.discount
        if not self._named and (answer.provider or answer.guessed) not in ("", seen.provider):
            self._recognise(seen, answer)
        if answer.finish_reasons:
            seen.finish_reasons = tuple(reason[:MAX_NAME] for reason in answer.finish_reasons)
        if answer.error_type:
            seen.error_type = error_kind(answer.error_type)
        if self._background and not self._awaited(seen, answer):
            return
        if answer.usage is not None:
            seen.usage = answer.usage
            told = _input_of(answer.usage)
            if self._judged_by != told:
                self._judged_by = told
                seen.diagnosis = None  # streams tell more as they go on
                self._weigh(seen, over=False)
            elif answer.finish_reasons:
                self._weigh(seen, over=False)
            else:
                self._unweighed = True

    def _awaited(self, seen: Observation, answer: Answer) -> bool:
        """Whether an answer is this call's to count: of one in the background, whoever is told its end first is."""
        if not seen.response_id or self._recorder is None:
            return True
        if seen.pending and not answer.response_id:
            return False  # an error of the stream, which is not the response's: it goes on, and may be asked for
        if answer.pending:
            if not seen.pending:
                seen.pending = True
                submission = Submission(self._recorder.origin, seen.at, seen.model)
                self.observer.background.submitted(seen.response_id, submission)
        elif seen.pending:
            seen.pending = self.observer.background.take(seen.response_id) is None
        return not seen.pending

    def _recognise(self, seen: Observation, answer: Answer) -> None:
        """A host that nobody has named tells by the form of its answer who is there. Its ids are no proof: a gateway to
        the dialect's maker has whatever ids it likes, and sells models that are in the maker's list."""
        provider = answer.provider
        if not provider and not self._of_the_maker(seen):
            provider = answer.guessed
        if not provider:
            return
        seen.provider = self.observer.learn(seen.endpoint, seen.port, seen.model, provider)
        if self._recorder is not None:
            self._recorder.renamed(seen)

    def _of_the_maker(self, seen: Observation) -> bool:
        """Whether the price list of the dialect's maker knows the model, or cannot be asked yet."""
        if not self.settings.prices or self.observer.no_prices:
            return False
        if not self.observer.prices_ready():
            return True
        return self.observer.prices.knows(self.dialect.provider, (seen.response_model, seen.model), seen.at)

    def _weigh(self, seen: Observation, *, over: bool = True) -> None:
        """What the usage so far means, told to whoever's span it is. Some streams have usage in every chunk: of those
        only the one that first says what was read and written is worth it, and the last one."""
        self._unweighed = False
        self._judge(seen, over=over)
        self._compare(seen)
        if self._recorder is not None:
            self._recorder.usage(seen)

    @walled("response", "response")
    def loaded(self, document: object) -> None:
        """A whole body that is there already, parsed; None where it is no JSON object."""
        if self._seen is None or self._closed:
            return
        self._begun(streaming=False)
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
        if seen.usage is None or self._waiting(seen) or self._unweighed:
            self._weigh(seen)

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
        elif self._unweighed:
            self._weigh(seen)
        self._conclude(seen)
        recorder.close(seen)
        observer = self.observer
        if (
            seen.cost is not None
            or seen.usage is None
            or observer.prices_known()
            or not self.settings.prices
            or observer.no_prices
        ):
            recorder.settle(seen)
            self._account()
        else:
            # Price data is still being loaded: the rest is told when it is there.
            observer.worker.submit(lambda: self._settle_late(seen, recorder))

    def _settle_late(self, seen: Observation, recorder: Recorder) -> None:
        self.observer.load_prices_now()
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
            local.alone = self._shared is not None
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
        seen.lost_usd, seen.path = None, ""
        if verdict.place is not None:
            seen.path = paths.at(self.dialect, verdict.place, verdict.field, self.settings.privacy, self.observer.key)
        if seen.usage is not None:
            seen.hit_depth = diagnosis.hit_depth(prompt, sight, seen.usage)

    def _price(self, seen: Observation) -> None:
        try:
            self.observer.prices.price(seen, self.settings)
        except pricing.PriceUnknownError:
            self.observer.unpriced(seen.provider, seen.response_model or seen.model)
        except Exception as error:
            self.observer.trouble("pricing", error)

    def _conclude(self, seen: Observation) -> None:
        """Tells the history how it ended."""
        sight = self._sight
        if sight is None:
            return
        labels = self._recorder.labels if self._recorder is not None else ()
        write = premium_of(seen, self._prompt, labels)
        usage = None if seen.error_type else seen.usage
        asked = self.question is not None and not self.question.for_usage
        if seen.response_id and (asked or self._asked is not None):
            self.observer.witness.recorded(seen.response_id)
        self.observer.history.ended(sight, usage, seen.response_id, write)
        if self._shared is not None:
            self._shared.ended(self.observer.clock(), sight.sent, usage, seen.response_id, write)
        if self.settings.journal and self._prompt is not None:
            link = self._recorder.link if self._recorder is not None else None
            tell_journal(self.observer, seen, self._prompt, link)
        if self.settings.prompt_map and self._prompt is not None:
            prompt = self._prompt
            self.observer.worker.submit(lambda: self.observer.telemetry.prompt_map(seen, prompt, sight))

    def _account(self) -> None:
        """Our own time, and what follows when it was too much."""
        observer = self.observer
        observer.telemetry.overhead(self.spent)
        budget = self.settings.budget_ms / 1000
        if budget and self.diagnosing > budget:
            gross = self.diagnosing > GROSS_OVERRUN * budget
            observer.breaker.strike(f"a call cost {self.diagnosing * 1000:.1f} ms", STRIKES if gross else 1)


def _input_of(usage: Usage | None) -> tuple[int | None, ...] | None:
    return None if usage is None else (usage.input_total, usage.read, usage.write)
