"""Several observers of the same calls, each with a history, settings and telemetry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from otel_promptcache.model import Answer
from otel_promptcache.observer import Question, Recorder
from otel_promptcache.observer.batches import NoItems
from otel_promptcache.observer.recording import ErrandRecorder
from otel_promptcache.providers import Dialect
from otel_promptcache.providers.errands import Errand
from otel_promptcache.providers.limits import Header


class Opener(Protocol):
    """What the hooks need of an observer."""

    def open(self, dialect: Dialect) -> Told | None:
        """A call that is about to be made, or None when nothing is to be observed."""
        ...

    def run(self, errand: Errand, path: str) -> Told | None:
        """A request that carries no prompt, or None when nothing is to be observed."""
        ...

    def trouble(self, where: str, error: Exception) -> None: ...


class Told(Protocol):
    """What is told of one call: ``observer.Call``, or several of them as one."""

    @property
    def dialect(self) -> Dialect: ...
    @property
    def observer(self) -> Opener: ...
    @property
    def items(self) -> bool:
        """Whether the body is a file of items rather than an answer."""
        ...

    @property
    def recorder(self) -> Recorder | ErrandRecorder | None: ...
    @property
    def question(self) -> Question | None:
        """What is to be added to the request, once it has been prepared."""
        ...

    def prepared(
        self,
        body: Mapping[str, Any],
        host: str,
        port: int,
        credential: str,
        platform: str = "",
        said: object = None,
    ) -> None: ...
    def unasked(self) -> None: ...
    def refused(self, *, certain: bool) -> None: ...
    def heard(self, status: int, headers: Iterable[Header]) -> None: ...
    def begun(self, *, streaming: bool) -> None: ...
    def answered(self, answer: Answer) -> None: ...
    def item(self, line: Mapping[str, Any]) -> None: ...
    def later(self, job: Callable[[], None]) -> bool: ...
    def loaded(self, document: object) -> None: ...
    def complete(self) -> None: ...
    def finished(self) -> None: ...
    def left(self) -> None: ...
    def failed(self, error_type: str) -> None: ...


class Together:
    """Opens every call with each of its observers. The first one's span is the one that becomes current."""

    def __init__(self, observers: Sequence[Opener]) -> None:
        self._observers = observers

    def open(self, dialect: Dialect) -> Told | None:
        calls = [call for observer in self._observers if (call := observer.open(dialect)) is not None]
        return Calls(calls) if len(calls) > 1 else calls[0] if calls else None

    def run(self, errand: Errand, path: str) -> Told | None:
        """The first observer's alone: the others look at prompts."""
        return self._observers[0].run(errand, path)

    def trouble(self, where: str, error: Exception) -> None:
        for observer in self._observers:
            observer.trouble(where, error)


class Calls(NoItems):
    """One call as several observers see it."""

    def __init__(self, calls: Sequence[Told]) -> None:
        self._calls = calls
        self.dialect = calls[0].dialect
        self.observer: Opener = Together([call.observer for call in calls])

    @property
    def recorder(self) -> Recorder | ErrandRecorder | None:
        return self._calls[0].recorder

    @property
    def question(self) -> Question | None:
        return next((question for call in self._calls if (question := call.question) is not None), None)

    def prepared(
        self,
        body: Mapping[str, Any],
        host: str,
        port: int,
        credential: str,
        platform: str = "",
        said: object = None,
    ) -> None:
        for call in self._calls:
            call.prepared(body, host, port, credential, platform, said)

    def unasked(self) -> None:
        for call in self._calls:
            call.unasked()

    def refused(self, *, certain: bool) -> None:
        for call in self._calls:
            call.refused(certain=certain)

    def heard(self, status: int, headers: Iterable[Header]) -> None:
        for call in self._calls:
            call.heard(status, headers)

    def begun(self, *, streaming: bool) -> None:
        for call in self._calls:
            call.begun(streaming=streaming)

    def answered(self, answer: Answer) -> None:
        for call in self._calls:
            call.answered(answer)

    def loaded(self, document: object) -> None:
        for call in self._calls:
            call.loaded(document)

    def complete(self) -> None:
        for call in self._calls:
            call.complete()

    def finished(self) -> None:
        for call in self._calls:
            call.finished()

    def left(self) -> None:
        for call in self._calls:
            call.left()

    def failed(self, error_type: str) -> None:
        for call in self._calls:
            call.failed(error_type)
