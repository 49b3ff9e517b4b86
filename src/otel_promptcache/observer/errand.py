"""One request that carries no prompt: a count of tokens, or one of a batch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any, Final

from otel_promptcache._collection import collecting
from otel_promptcache.model import Answer
from otel_promptcache.observer.batches import Submission
from otel_promptcache.observer.call import MAX_NAME, Call
from otel_promptcache.observer.reckoning import error_kind
from otel_promptcache.observer.recording import ErrandRecorder, Trip
from otel_promptcache.observer.sums import Sum
from otel_promptcache.observer.wall import walled
from otel_promptcache.providers import Dialect, anthropic, errands, openai_chat
from otel_promptcache.providers.endpoints import provider_at
from otel_promptcache.providers.errands import Errand, Kind
from otel_promptcache.providers.limits import Header
from otel_promptcache.settings import Mode, Settings

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer

_ANTHROPIC: Final[Dialect] = anthropic
_OPENAI: Final[Dialect] = openai_chat


class ErrandCall:
    """What the hooks tell of an errand, as they tell a ``Call``."""

    question = None

    def __init__(self, observer: Observer, errand: Errand, settings: Settings, path: str) -> None:
        self.observer = observer
        self.errand = errand
        self.settings = settings
        self.spent: dict[str, float] = {}
        self.dialect = _ANTHROPIC if "/messages/" in path else _OPENAI
        self.items = errand.kind is Kind.FETCH
        """Whether the body is a file of items rather than a document."""
        self._started, self._started_ns = perf_counter(), time_ns()
        self._trip: Trip | None = None
        self._told: ErrandRecorder | None = None
        self._submission: Submission | None = None
        self._reader: Submission | None = None
        """Whose the items are where nobody knows who submitted them."""
        self._platform = ""
        self._sum = Sum()
        self._results = False
        """Whether the body had lines of results."""
        self._closed = False

    @property
    def recorder(self) -> ErrandRecorder | None:
        return self._told

    @walled("request", "request")
    def prepared(
        self,
        body: Mapping[str, Any],
        host: str,
        port: int,
        credential: str,  # noqa: ARG002
        platform: str = "",
        said: object = None,  # noqa: ARG002
    ) -> None:
        if self._trip is not None:
            return
        model = body["model"][:MAX_NAME] if isinstance(body.get("model"), str) else ""
        self._platform = platform
        named = platform or provider_at(host, port, self.settings.provider_hosts)
        self._trip = Trip(
            operation=self.errand.kind.value,
            provider=named or self.observer.learned.get((host, port, model)) or self.dialect.provider,
            endpoint=host,
            port=port,
            model=model,
        )
        if self.errand.kind is Kind.SUBMIT:
            self._submission = Submission(self.observer.telemetry.origin(), self.observer.clock())
            self._trip.requests = errands.submitted(body)
        if self.items:
            self._reader = Submission(self.observer.telemetry.origin(), self.observer.clock())
        self._trip.batch = self.errand.subject[:MAX_NAME]
        if self.errand.kind is not Kind.LOOK:
            self._told = self.observer.telemetry.errand(self._trip, self._started_ns)

    def unasked(self) -> None: ...

    def refused(self, *, certain: bool) -> None: ...

    def heard(self, status: int, headers: Iterable[Header]) -> None:
        """Counting tokens and batches have limits of their own, which cache reads have no part in."""

    def begun(self, *, streaming: bool) -> None: ...

    def answered(self, answer: Answer) -> None: ...

    @walled("response", "response")
    def complete(self) -> None:
        if self._results:
            self.observer.batches.read(self.errand.subject)

    @walled("response", "response")
    def loaded(self, document: object) -> None:
        """A whole body that is there already, parsed."""
        trip = self._trip
        if trip is None or not isinstance(document, dict):
            return
        if self.errand.kind is Kind.COUNT:
            trip.counted = errands.counted(document)
        else:
            self._heard_of(document, trip)
        if self._told is not None:
            self._told.answered(trip)

    def _heard_of(self, document: Mapping[str, Any], trip: Trip) -> None:
        for identity, files in errands.batches(document):
            if self._submission is not None:
                trip.batch = identity[:MAX_NAME]
                self.observer.batches.submitted(identity, self._submission)
            for file in files:
                self.observer.batches.wrote(file, identity)

    @walled("response", "response")
    def item(self, line: Mapping[str, Any]) -> None:
        """One line of a batch's results. What it cost is the submitter's, once."""
        found, trip, batches = errands.item(line), self._trip, self.observer.batches
        subject = self.errand.subject
        self._results = True
        if found is None or trip is None or self._told is None or not batches.count(subject, found.custom_id):
            return
        trip.items = (trip.items or 0) + 1
        known = batches.submission(subject)
        trip.submitter = known.origin if known is not None else None
        submission = known or self._reader
        assert submission is not None
        call = Call(
            self.observer,
            found.dialect,
            self.settings,
            batch=subject[:MAX_NAME],
            mode=Mode.TOKENS,
            origin=submission.origin,
        )
        call.prepared({"model": found.answer.model}, trip.endpoint, trip.port, "", self._platform)
        call.dated(submission.at)
        call.answered(found.answer)
        # Asked before the call ends: prices may be there a moment later, and its own still be waited for.
        final = self.observer.prices_known() or self.observer.no_prices or not self.settings.prices
        call.finished()
        if call.seen is not None and not self.settings.batch_spans:
            self._sum.add(call.seen, final=final)

    def later(self, job: Callable[[], None]) -> bool:
        """A file may have items by the ten thousand: they are counted when the caller has been served."""
        if self._trip is not None:
            self._trip.duration = perf_counter() - self._started
        if self.observer.worker.submit(job):
            return True
        job()
        return False

    @walled("response", "response")
    def finished(self) -> None:
        self._close("")

    def left(self) -> None:
        if collecting():
            self.observer.worker.hand_over(self.finished)
        else:
            self.finished()

    @walled("response", "response")
    def failed(self, error_type: str) -> None:
        self._close(error_kind(error_type))

    def _close(self, error_type: str) -> None:
        if self._closed:
            return
        self._closed = True
        trip, told = self._trip, self._told
        if told is None or trip is None:
            return
        trip.error_type = error_type
        trip.duration = trip.duration or perf_counter() - self._started
        # Costs may wait for prices that are still being loaded; the worker does one thing after another.
        if not (self._sum.waits and self.observer.worker.submit(self._end)):
            self._end()

    def _end(self) -> None:
        if self._trip is not None and self._told is not None:
            self._trip.total = self._sum.total()
            self._told.end(self._trip)
