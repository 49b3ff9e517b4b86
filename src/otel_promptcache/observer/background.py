"""Responses that a provider makes in the background: who asked for them, and what they turn out to cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_promptcache.model import Answer
from otel_promptcache.observer.batches import NoItems, Submission
from otel_promptcache.observer.call import Call
from otel_promptcache.observer.wall import walled
from otel_promptcache.providers import Dialect, openai_responses
from otel_promptcache.providers.limits import Header
from otel_promptcache.settings import Mode, Settings

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer

MAX_PENDING: Final = 10_000
_RESPONSES: Final[Dialect] = openai_responses


class Background:
    """The newest responses that are under way, by id. Each step is one operation on a dictionary, so threads may share
    it."""

    def __init__(self) -> None:
        self._pending: OrderedDict[str, Submission] = OrderedDict()

    def __contains__(self, identity: str) -> bool:
        return identity in self._pending

    def submitted(self, identity: str, submission: Submission) -> None:
        self._pending[identity] = submission
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    def take(self, identity: str) -> Submission | None:
        """Who asked for a response that is done: told once, None to everybody else."""
        return self._pending.pop(identity, None)


class Retrieval(NoItems):
    """What the hooks tell of a request for such a response, as they tell a ``Call``. Nothing comes of it unless it is
    the first to bring the end: that is a call then, of whoever asked for the response."""

    question = None
    recorder = None

    def __init__(self, observer: Observer, identity: str, settings: Settings) -> None:
        self.observer = observer
        self.dialect = _RESPONSES
        self.settings = settings
        self.spent: dict[str, float] = {}
        self._identity = identity
        self._server = ("", 0, "")

    @walled("request", "request")
    def prepared(
        self,
        body: Mapping[str, Any],  # noqa: ARG002
        host: str,
        port: int,
        credential: str,  # noqa: ARG002
        platform: str = "",
        said: object = None,  # noqa: ARG002
    ) -> None:
        self._server = (host, port, platform)

    @walled("response", "response")
    def loaded(self, document: object) -> None:
        """A whole body that is there already, parsed."""
        if isinstance(document, dict):
            self._answered(self.dialect.answer(document))

    @walled("response", "response")
    def answered(self, answer: Answer) -> None:
        """Something that a body on its way says."""
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        # Of a body that is too long to be read as a whole nothing but the usage is known: the path named the response.
        if answer.pending or answer.response_id not in ("", self._identity):
            return
        if not answer.response_id and answer.usage is None:
            return
        submission = self.observer.background.take(self._identity)
        if submission is None:
            return
        host, port, platform = self._server
        call = Call(self.observer, self.dialect, self.settings, mode=Mode.TOKENS, origin=submission.origin)
        call.prepared({"model": answer.model or submission.model}, host, port, "", platform)
        call.dated(submission.at)
        call.answered(answer._replace(response_id=self._identity))
        call.complete()
        call.finished()

    def unasked(self) -> None: ...

    def refused(self, *, certain: bool) -> None: ...

    def heard(self, status: int, headers: Iterable[Header]) -> None: ...

    def begun(self, *, streaming: bool) -> None: ...

    def complete(self) -> None: ...

    def finished(self) -> None: ...

    def left(self) -> None: ...

    def failed(self, error_type: str) -> None: ...
