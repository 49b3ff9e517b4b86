"""The pytest plugin: the fixtures ``promptcache`` and ``promptcache_emulator``, and snapshots of stable prefixes.

pytest loads this in every run where the package is installed, so it imports nothing of weight before a fixture is
used. ``pytest -p no:promptcache`` leaves it out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from otel_promptcache.emulator import Emulator, Options
    from otel_promptcache.snapshot import Prefix, Snapshot
    from otel_promptcache.testing import Recording

UPDATE: Final = "--promptcache-update"
FILE: Final = "promptcache_snapshot"

_ENVIRONMENT: Final[Mapping[str, str]] = {
    # What clients of the SDKs that name no endpoint of their own find: the emulator, and no real key to send it.
    "ANTHROPIC_BASE_URL": "{url}",
    "ANTHROPIC_API_KEY": "no-key-needed",
    "OPENAI_BASE_URL": "{url}/v1",
    "OPENAI_API_KEY": "no-key-needed",
    "GOOGLE_GEMINI_BASE_URL": "{url}",
    "GEMINI_API_KEY": "no-key-needed",
}
_FOREIGN: Final = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "GOOGLE_API_KEY",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "OPENAI_CUSTOM_HEADERS",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("promptcache", "prompt caching")
    group.addoption(
        UPDATE,
        action="store_true",
        default=False,
        help="write the snapshots of stable prefixes anew, in place of comparing with them",
    )
    parser.addini(
        FILE,
        "file with the snapshots of stable prefixes, relative to the root directory",
        default="promptcache.snapshot.json",
    )


# --- Fixtures -----------------------------------------------------------------------------------------------


@pytest.fixture
def promptcache(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """Every call of the anthropic and openai SDKs in this test, and assertions about them."""
    from otel_promptcache.testing import recording

    shelf = _shelf(request.config)
    with recording(key=shelf.key, check=partial(shelf.check, request.node.nodeid, {})) as made:
        if "promptcache_emulator" in request.fixturenames:
            made.clock = request.getfixturevalue("promptcache_emulator").clock.now
        yield made


@pytest.fixture
def promptcache_emulator_options() -> Options:
    """Options of ``promptcache_emulator``; override this fixture to set them (``answer``, ``latency``, ...)."""
    return {}


@pytest.fixture
def promptcache_emulator(monkeypatch: pytest.MonkeyPatch, promptcache_emulator_options: Options) -> Iterator[Emulator]:
    """A local provider that caches by the real rules. Clients that the test makes without an endpoint talk to it."""
    from otel_promptcache.emulator import emulator

    with emulator(**promptcache_emulator_options) as provider:
        for name, value in _ENVIRONMENT.items():
            monkeypatch.setenv(name, value.format(url=provider.url))
        for name in _FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1"))))
        yield provider


# --- Snapshots ----------------------------------------------------------------------------------------------


class Shelf:
    """The snapshot file of a run. Only one process writes it: with pytest-xdist the workers hand over what is new."""

    def __init__(self, config: pytest.Config) -> None:
        self.update = bool(config.getoption(UPDATE))
        self._root = config.rootpath
        self._folder = config.invocation_params.dir
        self.path = Path(self._root, str(config.getini(FILE)))
        self.changed: dict[str, Sequence[Prefix]] = {}
        self.collected: set[str] = set()
        """Node ids of the tests of this run, those left out by ``-k`` or ``-m`` too."""
        self.whole_files = not any("::" in argument for argument in config.args)
        self.said: list[str] = []
        self._input: Mapping[str, Any] = getattr(config, "workerinput", {})
        self._snapshot: Snapshot | None = None

    @property
    def shown(self) -> str:
        """The file as a person would name it where pytest was called."""
        try:
            return os.path.relpath(self.path, self._folder)
        except ValueError:  # on another drive of Windows
            return str(self.path)

    @property
    def is_worker(self) -> bool:
        """Whether this is a worker of pytest-xdist."""
        return bool(self._input)

    @property
    def snapshot(self) -> Snapshot:
        """What the file held when it was first asked for; a new one where there is none. Raises SnapshotError."""
        from otel_promptcache.snapshot import Snapshot, loaded

        if self._snapshot is None:
            if self.path.exists():
                self._snapshot = loaded(self.path.read_text(encoding="utf-8"), self.shown)
            else:
                given = self._input.get(_WORKER_KEY)
                self._snapshot = Snapshot(given) if given else Snapshot()
        return self._snapshot

    @property
    def key(self) -> str:
        return self.snapshot.key

    def check(self, nodeid: str, before: dict[str, Sequence[Prefix]], name: str, prefixes: Sequence[Prefix]) -> None:
        """Compares the prefixes of a test with the snapshot, or takes them over where the run is to renew it.
        ``before``: what this run of the test has asked so far, by name."""
        __tracebackhide__ = True
        from otel_promptcache.snapshot import compare
        from otel_promptcache.testing import report

        full = nodeid + (f"#{name}" if name else "")
        if name in before and compare(before[name], prefixes):
            self.changed.pop(full, None)
            raise AssertionError(
                f"assert_matches_snapshot({name!r}) was called twice in {nodeid}, with other prefixes the second time, "
                "and no snapshot can be both: give each a name="
            )
        before[name] = list(prefixes)
        if self.update:
            self.changed[full] = list(prefixes)
            return
        old = self.snapshot.tests.get(full)
        if old is None:
            raise AssertionError(f"{full} has no snapshot in {self.shown} yet; make one: pytest {UPDATE}")
        found = compare(old, prefixes)
        if found:
            raise AssertionError(report.not_as_snapshot(full, self.shown, found))

    def gone(self) -> list[str]:
        """Snapshots whose test is no more: its file is not there, or was collected as a whole and does not have it."""
        files = {nodeid.partition("::")[0] for nodeid in self.collected} if self.whole_files else set()
        found = []
        for name in self.snapshot.tests:
            file = name.partition("::")[0]
            test = name if name in self.collected else name.rpartition("#")[0]
            if test not in self.collected and (file in files or not Path(self._root, file).exists()):
                found.append(name)
        return found

    def write(self) -> None:
        """Renews the file, if anything is to be renewed."""
        from otel_promptcache.snapshot import dumped

        if self.is_worker or not self.update:
            return
        if not self.changed and not self.path.exists():
            return
        before, gone = self.snapshot, self.gone()
        after = before.updated(self.changed, gone)
        added = [name for name in self.changed if name not in before.tests]
        renewed = [name for name in self.changed if name in before.tests and after.tests[name] != before.tests[name]]
        if not (added or renewed or gone):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        beside.write_text(dumped(after), encoding="utf-8")
        beside.replace(self.path)
        self.said.append(f"{self.shown}: {len(added)} added, {len(renewed)} renewed, {len(gone)} removed")
        if any(prefix.production is None for name in (*added, *renewed) for prefix in after.tests[name]):
            self.said.append(
                "without OTEL_PROMPTCACHE_HASH_KEY the new ones have no digests that production knows them by, which "
                "otel-promptcache ci needs"
            )


_SHELF: Final = pytest.StashKey[Shelf]()
_WORKER_KEY: Final = "promptcache_key"
_WORKER_OUTPUT: Final = "promptcache"


def _shelf(config: pytest.Config) -> Shelf:
    """Made when it is first asked for: most runs never do."""
    if _SHELF not in config.stash:
        config.stash[_SHELF] = Shelf(config)
    return config.stash[_SHELF]


def _updates(config: pytest.Config) -> bool:
    return bool(config.getoption(UPDATE))


@contextmanager
def _refusing() -> Iterator[None]:
    """Outside of tests: what is wrong with the file is said as pytest says it of its options."""
    from otel_promptcache.snapshot import SnapshotError

    try:
        yield
    except (SnapshotError, OSError) as error:
        raise pytest.UsageError(f"promptcache: {error}") from None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A snapshot that cannot be renewed is refused before the tests run, not after."""
    if _updates(session.config):
        with _refusing():
            _ = _shelf(session.config).snapshot


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if _updates(item.config):
            _shelf(item.config).collected.add(item.nodeid)


def pytest_collection_finish(session: pytest.Session) -> None:
    if _updates(session.config):
        _shelf(session.config).collected.update(item.nodeid for item in session.items)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not _updates(session.config):
        return
    shelf = _shelf(session.config)
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        with _refusing():
            shelf.write()
    elif shelf.changed or shelf.collected:
        from otel_promptcache.snapshot import Snapshot, dumped

        # Only plain values travel between processes.
        output[_WORKER_OUTPUT] = dumped(Snapshot(shelf.key, shelf.changed)), sorted(shelf.collected)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist is about to start a worker: all of them make a new snapshot under one key."""
    if _updates(node.config):
        node.workerinput[_WORKER_KEY] = _shelf(node.config).key


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001
    """A worker of pytest-xdist has ended: takes over what it hands over. One that crashed hands over nothing."""
    handed = getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT)
    if handed is not None:
        from otel_promptcache.snapshot import loaded

        shelf = _shelf(node.config)
        shelf.changed |= loaded(handed[0]).tests
        shelf.collected |= set(handed[1])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in _shelf(config).said if _updates(config) else ():
        terminalreporter.write_line(f"promptcache: {line}")
