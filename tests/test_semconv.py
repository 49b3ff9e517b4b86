"""Every name that goes on the wire stands once in the tables, and every name in the tables goes on the wire."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import otel_promptcache
from otel_promptcache import semconv
from otel_promptcache.cli import reference
from otel_promptcache.providers.rules import ROWS
from otel_promptcache.semconv import FIELDS, METRICS, Cause, Content, Metric, Reason, Status
from otel_promptcache.settings import meanings

SOURCE = Path(otel_promptcache.__file__).parent
DEPLOY = Path(__file__).parents[1] / "deploy"
CONVENTIONS = ("gen_ai.", "server.", "error.", "http.")
NAME = re.compile(r"(promptcache|gen_ai|server|error|http)(\.[a-z][a-z0-9_]*)+")

constants = {
    name: value
    for name, value in vars(semconv).items()
    if name.isupper() and isinstance(value, str) and value in FIELDS
}
instruments = {name: value for name, value in vars(semconv).items() if isinstance(value, Metric)}
engines = {name: value for name, value in instruments.items() if value in semconv.ENGINE_METRICS}
EVERY = (*METRICS, *semconv.ENGINE_METRICS)


@cache
def elsewhere() -> str:
    """All source but the tables themselves."""
    return "\n".join(
        file.read_text(encoding="utf-8")
        for file in sorted(SOURCE.rglob("*.py"))
        if file.name not in ("semconv.py", "reasons.py", "causes.py")
    )


def words() -> set[str]:
    """Everything in it that could be a constant, and what the gateway's Collector writes in our stead."""
    written = (DEPLOY / "collector" / "engines.yaml").read_text(encoding="utf-8")
    of_engines = {"ENGINE": semconv.ENGINE, **{name: metric.name for name, metric in engines.items()}}
    by_the_gateway = {name for name, value in of_engines.items() if f'"{value}"' in written}
    return set(re.findall(r"[A-Z][A-Z0-9_]*", elsewhere())) | by_the_gateway


class TestFields:
    """Attributes and event fields."""

    def test_each_has_one_constant(self) -> None:
        """Two constants for one name would drift apart."""
        assert sorted(constants.values()) == sorted(FIELDS)
        assert all(field.name == name for name, field in FIELDS.items())

    @pytest.mark.parametrize("name", FIELDS)
    def test_ours_begin_with_our_name(self, name: str) -> None:
        """All others are the conventions'."""
        assert NAME.fullmatch(name)
        assert name.startswith(("promptcache.", *CONVENTIONS))

    @pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
    def test_each_is_described(self, field: semconv.Field) -> None:
        """One line that says what it means, where it appears, how many values it takes, whether it shows content."""
        assert field.meaning.endswith(".")
        assert "\n" not in field.meaning
        assert field.type in ("string", "string[]", "int", "double", "boolean")
        assert set(field.signals.split(", ")) <= {"span", "metric", "ledger", "prompt map", "journal", "advice"}
        assert field.cardinality
        assert isinstance(field.content, Content)

    def test_each_is_used(self) -> None:
        """A name that nobody writes would be a promise that is not kept."""
        assert sorted(constants.keys() - words()) == []

    def test_no_name_is_written_out_elsewhere(self) -> None:
        """As a literal it could be misspelt."""
        assert [name for name in FIELDS if f'"{name}"' in elsewhere()] == []

    def test_labels_are_few_valued(self) -> None:
        """What is on a metric is bounded; cause, path, line, conversation and digests never are."""
        on_metrics = [field for field in FIELDS.values() if "metric" in field.signals.split(", ")]
        assert {field.cardinality for field in on_metrics if field.name != semconv.ERROR_TYPE} <= {"low", "bounded"}
        never = (semconv.CAUSE, semconv.PATH, semconv.LINE, semconv.CONVERSATION_ID, semconv.PREFIX_ID)
        assert {field.name for field in on_metrics}.isdisjoint(never)

    def test_content_is_hashed(self) -> None:
        """Fields made of prompt text are digests, and none else says it is."""
        assert {name for name, field in FIELDS.items() if field.content is Content.HASH} == {
            semconv.PREFIX_ID,
            semconv.FINGERPRINT,
            semconv.PREFIX_CHAIN,
            semconv.MAP_SEGMENTS,
            semconv.MAP_BASE,
            semconv.CHANGE_OLD,
            semconv.CHANGE_NEW,
        }


class TestMetrics:
    """Instruments."""

    def test_names_are_unique(self) -> None:
        """And each has one constant."""
        assert [name for name, count in Counter(metric.name for metric in EVERY).items() if count > 1] == []
        assert sorted(metric.name for metric in instruments.values()) == sorted(metric.name for metric in EVERY)

    @pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
    def test_each_is_described(self, metric: Metric) -> None:
        """Name, unit of UCUM, meaning, kind, labels from the table of fields."""
        assert NAME.fullmatch(metric.name)
        assert metric.name.startswith(("promptcache.", "gen_ai.client."))
        assert metric.unit in ("s", "USD", "1") or re.fullmatch(r"\{[a-z]+\}", metric.unit)
        assert metric.meaning.endswith(".")
        assert metric.kind in ("counter", "gauge", "histogram")
        for label in metric.labels:
            assert "metric" in FIELDS[label].signals.split(", "), label

    def test_each_is_used(self) -> None:
        """An instrument that nobody feeds would be an empty panel."""
        assert sorted(instruments.keys() - words()) == []

    def test_common_labels(self) -> None:
        """Provider, model, route; the application's own keys come on top."""
        assert semconv.COMMON_LABELS == ("gen_ai.provider.name", "gen_ai.request.model", "promptcache.route")

    @pytest.mark.parametrize("metric", [one for one in METRICS if one.kind == "histogram"], ids=lambda one: one.name)
    def test_histograms_have_buckets_of_their_own(self, metric: Metric) -> None:
        """The default ones are made for milliseconds."""
        assert len(metric.boundaries) > 5
        assert list(metric.boundaries) == sorted(set(metric.boundaries))


class TestEnumerations:
    """Values, each with its line in a table."""

    def test_every_status_has_a_meaning(self) -> None:
        """And no other has."""
        assert list(semconv.STATUS_MEANING) == list(Status)

    def test_every_reason_has_a_row(self) -> None:
        """What it means, what shows it, who can act, and what to do."""
        assert list(semconv.REASON_INFO) == list(Reason)
        for reason, info in semconv.REASON_INFO.items():
            assert all(text and text.strip() == text for text in info), reason
            assert info.actor in ("application", "configuration", "provider", "none"), reason
            assert info.meaning.endswith("."), reason
            assert info.fix.endswith("."), reason

    def test_every_cause_has_a_meaning(self) -> None:
        """One sentence."""
        assert list(semconv.CAUSE_MEANING) == list(Cause)
        assert all(meaning.endswith(".") for meaning in semconv.CAUSE_MEANING.values())

    @pytest.mark.parametrize("kind", [Status, Reason, Cause])
    def test_values_are_their_names(self, kind: type[Status | Reason | Cause]) -> None:
        """In lower case; they are written to dashboards and compared there."""
        assert [member.value for member in kind] == [member.name.lower() for member in kind]

    @pytest.mark.parametrize("kind", [Status, Reason, Cause])
    def test_each_is_said_by_somebody(self, kind: type[Status | Reason | Cause]) -> None:
        """A value that no rule gives would be documentation of nothing."""
        assert [one for one in kind if f"{kind.__name__}.{one.name}" not in elsewhere()] == []


class TestReference:
    """The documentation's tables are made of these."""

    def test_everything_is_in_it(self) -> None:
        """Every field, metric, status, reason, cause, setting and rule."""
        text = reference.reference(reference._PARTS)
        names = [
            *FIELDS,
            *(metric.name for metric in METRICS),
            *Status,
            *Reason,
            *Cause,
            *(row[0] for row in meanings()),
        ]
        assert [name for name in names if f"`{name}`" not in text] == []
        assert [row for row in ROWS if row.source not in text] == []

    @pytest.mark.parametrize("part", reference._PARTS)
    def test_each_part_is_a_section_of_whole_tables(self, part: str) -> None:
        """A headline, and as many cells in each row as in the head."""
        text = reference.reference([part])
        assert text.startswith("<!-- Generated by `otel-promptcache reference`. Do not edit. -->\n\n## ")
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert tables
        for table in tables:
            head, rule, *rows = table.splitlines()
            cells = head.count("|")
            assert rule.count("|") == cells
            assert rows
            assert [row for row in rows if len(re.findall(r"(?<!\\)\|", row)) != cells] == []

    def test_one_part(self) -> None:
        """Only what was asked for."""
        text = reference.reference(["settings"])
        assert "## Settings" in text
        assert text.count("\n## ") == 1
