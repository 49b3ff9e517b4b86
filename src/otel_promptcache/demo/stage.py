"""Plays a run: local provider, local OTLP receiver, the agent between them as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import IO, Final, NamedTuple

from otel_promptcache.demo import standin
from otel_promptcache.demo.interrupts import put_off
from otel_promptcache.demo.receiver import Arrived, Receiver, receiver
from otel_promptcache.demo.script import FAULTS_VARIABLE, Fault
from otel_promptcache.emulator import Emulator, Received, emulator

AGENT: Final = "otel_promptcache.demo.agent"
SERVICE: Final = "support-agent"
PATIENCE: Final = 180.0
"""Seconds an agent may take, on whatever machine."""

# As the command opentelemetry-instrument does, which need not be on the path.
_INSTRUMENT: Final = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"

_FOREIGN: Final = ("OTEL_", "ANTHROPIC_", "OPENAI_")
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


class AgentFailedError(Exception):
    """The agent did not come to its end, or left no record; the message ends with what it said."""


class Run(NamedTuple):
    """One run of the agent: what arrived over OTLP, and what the provider saw and billed."""

    arrived: Arrived
    received: list[Received]
    said: str = ""
    """What the agent wrote on standard error: nothing, when all is well."""


class Playing:
    """A run under way: the agent's process between a provider that has never seen it and a receiver."""

    def __init__(
        self, provider: Emulator, collector: Receiver, said: IO[bytes], environment: Mapping[str, str]
    ) -> None:
        self._provider = provider
        self._collector = collector
        self._said = said
        self._agent = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", _INSTRUMENT, sys.executable, "-m", AGENT],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )

    def finish(self) -> Run:
        """Waits for the agent to end. It exports what is left before it does: nothing else has to be waited for."""
        try:
            status = self._agent.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AgentFailedError(f"the agent was not done after {PATIENCE:g} s") from None
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        if status:
            raise AgentFailedError(f"the agent ended with exit status {status}:\n{said}")
        return Run(self._collector.take(), self._provider.requests, said)

    def stop(self) -> None:
        """Ends the agent, wherever it is."""
        self._agent.kill()
        self._agent.wait()


@contextmanager
def playing(faults: Collection[Fault], key: str) -> Iterator[Playing]:
    """Starts a run of the agent with these faults; when the block ends so does everything that was started."""
    # What the agent says goes to a file, not a pipe: nobody reads it while the agent talks.
    with emulator(answer=standin.answer) as provider, receiver() as collector, tempfile.TemporaryFile() as said:
        run = None
        try:
            with put_off():
                run = Playing(provider, collector, said, _environment(provider.url, collector.endpoint, faults, key))
            yield run
        finally:
            if run is not None:
                run.stop()


def _environment(provider: str, collector: str, faults: Collection[Fault], key: str) -> dict[str, str]:
    """The caller's environment without what belongs to another provider, collector or proxy, and with ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(_FOREIGN) and name.lower() not in _PROXIES
    }
    return kept | {
        "NO_PROXY": "127.0.0.1",
        "ANTHROPIC_BASE_URL": provider,
        "ANTHROPIC_API_KEY": "no-key-needed",
        "OPENAI_BASE_URL": f"{provider}/v1",
        "OPENAI_API_KEY": "no-key-needed",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(_others()),
        "OTEL_PROMPTCACHE_LEDGER": "true",
        "OTEL_PROMPTCACHE_PROMPT_MAP": "true",
        "OTEL_PROMPTCACHE_HASH_KEY": key,
        # On a machine under load nothing may be left out: the demo's figures are the same everywhere.
        "OTEL_PROMPTCACHE_BUDGET_MS": "5000",
        FAULTS_VARIABLE: ",".join(faults),
    }


def _others() -> list[str]:
    """Instrumentations that happen to be installed and play no part here."""
    names = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    return sorted(name for name in names if not name.startswith("promptcache-"))
