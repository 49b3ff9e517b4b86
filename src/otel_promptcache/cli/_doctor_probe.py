"""Asks an OTLP endpoint as often as it takes to say what is the matter with it."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from otel_promptcache.cli import _doctor_requests as requests
from otel_promptcache.cli._doctor_export import GRPC, HTTP, Answer, Outcome, Target, listens, send, takes_tls

_BATCHES: Final = {"traces": "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "logs": "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"}
BATCH: Final = 512
"""Records that the SDK sends at once by default."""
_OTHER: Final = {GRPC: HTTP, HTTP: GRPC}


class Probe(NamedTuple):
    """What is sent beside an empty request, and for how long an answer is waited for."""

    timeout: float
    trace_id: bytes
    """Of the record that is sent; empty where none is to be."""


def ask(target: Target, probe: Probe) -> Answer:
    """The answer to an empty request; if it is well, that to a record, and that to a request as large as a full batch.
    The first that is not well is told, as closely as further questions can."""
    answer = _answered(target, probe, b"")
    if answer.outcome is Outcome.ANSWERS and probe.trace_id:
        taken = _answered(target, probe, requests.one(target.signal, probe.trace_id))
        answer = taken if taken.outcome is not Outcome.ANSWERS else _at_once(target, probe, answer)
    return answer._replace(body=b"") if answer.outcome is Outcome.ANSWERS else _closer(target, probe, answer)


def _answered(target: Target, probe: Probe, body: bytes) -> Answer:
    answer = send(target, probe.timeout, body)
    if answer.outcome is not Outcome.ANSWERS:
        return answer
    said = requests.understood(target.signal, answer.body)
    if said is None:
        return Answer(Outcome.WRONG_PROTOCOL, "what comes back is no OTLP")
    if said.rejected:
        return Answer(Outcome.REJECTS, said.message or f"{said.rejected} of 1")
    return answer


def _at_once(target: Target, probe: Probe, answer: Answer) -> Answer:
    """The answer, unless a full batch of the largest records of ours is too much."""
    if target.signal not in _BATCHES:
        return answer
    said = os.environ.get(_BATCHES[target.signal], "")
    records = int(said) if said.isdecimal() else BATCH
    body = requests.as_large_as(target.signal, records)
    found = send(target, probe.timeout, body)
    if found.outcome in (Outcome.TOO_LARGE, Outcome.BREAKS_OFF):
        size = f"{records:,} records can have {len(body) / 2**20:.1f} MiB"
        return Answer(Outcome.TOO_LARGE, f"{found.detail}; {size}")
    return answer


def _closer(target: Target, probe: Probe, answer: Answer) -> Answer:
    """What else can be found out about an answer that is none."""
    outcome = answer.outcome
    if outcome is Outcome.NO_ROUTE and listens(target, probe.timeout):
        return Answer(Outcome.HANGS)
    if outcome is Outcome.NO_SUCH_SIGNAL and target.protocol == HTTP:
        usual = _at_root(target)
        if usual.url != target.url and send(usual, probe.timeout).outcome is Outcome.ANSWERS:
            return Answer(Outcome.WRONG_PATH, f"{answer.detail} at {urlsplit(target.url).path or '/'}")
    if outcome is Outcome.UNTRUSTED and not takes_tls(target, probe.timeout):
        return Answer(Outcome.WITHOUT_TLS)
    if outcome in (Outcome.WRONG_PROTOCOL, Outcome.BREAKS_OFF, Outcome.FAILS):
        if not target.secure and takes_tls(target, probe.timeout):
            return Answer(Outcome.TLS_ONLY)
        if outcome is not Outcome.FAILS and _speaks_the_other(target, probe.timeout):
            return Answer(Outcome.WRONG_PROTOCOL, _OTHER[target.protocol])
    return answer


def _speaks_the_other(target: Target, timeout: float) -> bool:
    other = _at_root(target) if target.protocol == GRPC else target
    said = send(other._replace(protocol=_OTHER[target.protocol]), timeout).outcome
    return said in (Outcome.ANSWERS, Outcome.DENIED)


def _at_root(target: Target) -> Target:
    """The same endpoint, over HTTP by the usual path."""
    parts = urlsplit(target.url if "://" in target.url else f"//{target.url}")
    scheme = parts.scheme or ("https" if target.secure else "http")
    return target._replace(url=f"{scheme}://{parts.netloc}/v1/{target.signal}")
