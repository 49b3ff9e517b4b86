"""What other backends show of our spans, by the keys that they document: as they are, with keys, with a transform.

A real one is asked in ``test_phoenix.py``.
"""

from __future__ import annotations

import re
import runpy
import subprocess
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path

import pytest
import yaml
from backends.collecting import Transforming, transforming
from backends.mapping import ROOT, TRANSFORMS, Shown, load
from backends.recording import TALK, Recorded, record, span_id
from opentelemetry.trace import SpanKind
from servers import built
from servers.application import Clients, message, observed, provider, text

from otel_promptcache.vocabulary.backends import Backend

BACKENDS = load()
NAMES = tuple(BACKENDS)
PAGE = ROOT / "docs" / "backends.md"
OWN_LIST = {"hour", "batch"}
"""Calls that cost something else than a public list says: half price, or twice."""
LEFT: dict[str, set[str]] = {
    # Of which calls the cost stays wrong, because a backend works it out itself.
    "datadog": OWN_LIST,
    "honeycomb": OWN_LIST,
    "phoenix": {*OWN_LIST, "compatible"},
}


@cache
def recorded(*backends: str) -> Recorded:
    """The calls, with the keys of these backends."""
    return record(backends=",".join(backends))


def wrong(seen: Recorded, shown: dict[str, Shown]) -> dict[str, set[str]]:
    """Per kind of call, what is not as it should be."""
    found: dict[str, set[str]] = {}
    for key, truth in seen.truths.items():
        fields = shown[key].wrong(truth)
        if fields:
            found.setdefault(truth.name, set()).update(fields)
    return found


def shown(name: str, seen: Recorded) -> dict[str, Shown]:
    return {key: BACKENDS[name].shows(span) for key, span in seen.attributes.items()}


# --- What is recorded ---------------------------------------------------------------------------------------


def test_calls_of_every_kind_are_recorded() -> None:
    """By the provider's own account: four bytes are a token, and every answer has 50."""
    truths = list(recorded().truths.values())
    assert {truth.status for truth in truths} == {"", "cold", "hit", "miss", "partial", "uncacheable", "unknown"}
    assert {truth.provider for truth in truths} == {"anthropic", "openai", "groq"}
    assert sum(truth.error for truth in truths) == 1
    first, second, third = (truth for truth in truths if truth.session == TALK)
    assert (first.input, first.read, first.write, first.output) == (3500, 0, 3500, 50)
    assert (second.input, second.read, second.write, second.output) == (6500, 3500, 3000, 50)
    assert (third.input, third.read, third.write, third.output) == (9502, 2000, 7502, 50)
    # claude-sonnet-4-6, USD a million: input 3, read 0.30, 5-minute write 3.75, output 15.
    assert second.usd == pytest.approx((3500 * 0.3 + 3000 * 3.75 + 50 * 15) / 1e6, abs=1e-12)


def test_every_backend_is_described() -> None:
    """Its sources, and the day on which they were read; each of the setting has a mapping."""
    for backend in BACKENDS.values():
        assert backend.sources
        assert all(source.startswith("https://") for source in backend.sources)
        assert isinstance(backend.read_on, date)
        assert (TRANSFORMS / backend.transform).is_file()
    assert {backend.setting for backend in BACKENDS.values()} == set(Backend)


# --- As they are --------------------------------------------------------------------------------------------

WRITTEN = {"write", "uncached"}
ALL = {"input", "read", "write", "uncached", "output", "usd", "model", "provider", "session"}
AS_THEY_ARE: dict[str, set[str]] = {
    # Which fields are wrong on at least one call.
    "arize": ALL,
    "datadog": {*WRITTEN, "usd"},
    "grafana": {*WRITTEN, "usd"},
    "honeycomb": {*WRITTEN, "usd"},
    "langfuse": {"usd", "session"},
    "langfuse-4.16": {*WRITTEN, "usd", "session", "input"},
    "langsmith": {*WRITTEN, "read", "usd", "provider", "session"},
    "phoenix": {*ALL} - {"provider", "session"},
}


@pytest.mark.parametrize("name", NAMES)
def test_spans_as_they_are(name: str) -> None:
    """What each gets wrong, and nothing else."""
    found = wrong(recorded(), shown(name, recorded()))
    assert set().union(*found.values()) == AS_THEY_ARE[name]


def test_phoenix_loses_the_sums_of_a_batch_only() -> None:
    """Its input and reads are right of everything else."""
    found = wrong(recorded(), shown("phoenix", recorded()))
    assert {call for call, fields in found.items() if fields & {"input", "read", "output", "model"}} == {"batch"}


def test_an_older_langfuse_counts_written_tokens_twice() -> None:
    """As a class of their own, and within the input."""
    seen = recorded()
    found = shown("langfuse-4.16", seen)
    for key, truth in seen.truths.items():
        assert (found[key].input or 0) == (truth.input or 0) + (truth.write or 0)


# --- With keys, with a transform ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_with_its_keys(name: str) -> None:
    """Everything is as it should be, but for costs that a backend insists on working out."""
    seen = recorded(BACKENDS[name].setting)
    found = wrong(seen, shown(name, seen))
    assert set(found) == LEFT.get(name, set())
    assert set().union(*found.values()) <= {"usd"}


@pytest.mark.parametrize("name", NAMES)
def test_with_the_keys_of_all(name: str) -> None:
    """None disturbs another."""
    seen = recorded(*Backend)
    found = wrong(seen, shown(name, seen))
    assert set(found) == LEFT.get(name, set())
    assert set().union(*found.values()) <= {"usd"}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transforming]:
    with transforming(tmp_path_factory.mktemp("transforms")) as running:
        yield running


@pytest.mark.server
@pytest.mark.verifies("backends' transforms by a Collector")
@pytest.mark.parametrize("name", NAMES)
def test_with_its_transform(name: str, collector: Transforming) -> None:
    """Through a real Collector: the same to be seen as with keys, and nothing of what stood there is gone."""
    seen = recorded()
    out = collector.through(BACKENDS[name].transform, seen)
    mended = {key: BACKENDS[name].shows(out[key]) for key in seen.truths}
    found = wrong(seen, mended)
    assert set(found) == LEFT.get(name, set())
    assert set().union(*found.values()) <= {"usd"}
    for key, span in seen.attributes.items():
        assert {attribute: out[key][attribute] for attribute in span} == {
            attribute: pytest.approx(value) if isinstance(value, float) else value for attribute, value in span.items()
        }


@pytest.mark.server
def test_a_transform_overwrites_nothing(collector: Transforming) -> None:
    """Spans that have a backend's keys come out as they went in."""
    seen = recorded(*Backend)
    for transform in {backend.transform for backend in BACKENDS.values()}:
        out = collector.through(transform, seen)
        for key, span in seen.attributes.items():
            for attribute, value in span.items():
                if isinstance(value, str):
                    assert out[key][attribute] == value, (transform, attribute)


@pytest.mark.server
def test_transforms_leave_alone_what_stands_beside_another_span(collector: Transforming) -> None:
    """Whoever adds up tokens or cost would count the call twice."""
    with provider() as emulated, observed() as seen:
        clients = Clients(emulated.url)
        tracer = seen.tracer_provider.get_tracer("logfire")
        chat = {"gen_ai.operation.name": "chat"}
        with tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=chat):
            stream = clients.anthropic.messages.create(**message(text(2000), text(10), stream=True))
        for _ in stream:
            pass
        clients.close()
        (companion,) = [span for span in seen.spans if "promptcache.cost.total" in (span.attributes or {})]
    assert companion.name.startswith("promptcache")
    for transform in sorted({backend.transform for backend in BACKENDS.values()}):
        out = collector.through(transform, Recorded([companion], {}))
        assert out[span_id(companion)].keys() == (companion.attributes or {}).keys()


@pytest.mark.server
@pytest.mark.verifies("Collector configurations")
@pytest.mark.parametrize("file", sorted(TRANSFORMS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_collector_accepts_it(file: Path, tmp_path: Path) -> None:
    """As docs/backends.md has it, from the root of the repository."""
    (shown_there,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    config = yaml.safe_load(shown_there.replace("langfuse.yaml", file.name))
    config["receivers"] = {"otlp": {"protocols": {"http": {}}}}
    config["processors"]["batch"] = {}
    config["exporters"] = {"otlphttp/langfuse": {"endpoint": "http://127.0.0.1:1"}}
    whole = tmp_path / "collector.yaml"
    whole.write_text(yaml.safe_dump(config))
    command = [built("collector"), "validate", f"--config={whole}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# --- The page -----------------------------------------------------------------------------------------------


def test_the_page_says_what_is_shown() -> None:
    """Its tables are those that ``scripts/backends-page.py`` writes; prices may have changed since."""
    page = PAGE.read_text(encoding="utf-8")
    filled = runpy.run_path(str(ROOT / "scripts" / "backends-page.py"))["filled"]

    def without_prices(text: str) -> str:
        return re.sub(r"\b0\.\d{4}\b", "USD", text)

    assert without_prices(filled(page)) == without_prices(page), "renew it with: python scripts/backends-page.py"


def test_every_name_of_the_page_is_a_backend() -> None:
    """And every backend is on the page."""
    page = PAGE.read_text(encoding="utf-8")
    for backend in BACKENDS.values():
        assert f"| `{backend.setting}` |" in page
        assert f"(../deploy/collector/backends/{backend.transform})" in page
