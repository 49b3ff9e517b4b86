"""Questions to traces. Jaeger's tags are asked of a real Jaeger. TraceQL is read by Grafana's own parser, and its
filters are held against the spans in Jaeger: Tempo itself is in no package that could be built from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from boards.model import QUERIES
from servers import Span, built, until
from servers.stack import Stack  # noqa: TC002 - pytest reads it

from otel_promptcache import semconv

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("stack")]
PAGE = QUERIES.parent / "traces.md"
SERVICES = ("shop", "bot")
ELSEWHERE = {"in Prometheus", "in the ledger", "the link of the span"}
ANY = "..."
"""What is to be filled in."""


class Row(NamedTuple):
    question: str
    traceql: str
    jaeger: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0] not in ("question", "---"):
            found.append(Row(cells[0], cells[1].strip("`").replace("\\|", "|"), cells[2]))
    return found


ROWS = rows()


# --- What there is ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spans(stack: Stack) -> list[Mapping[str, Any]]:
    """Every span, by the names that TraceQL has for what it says."""
    found = []
    for service in SERVICES:
        for status in ("hit", "miss", "partial", "cold", "uncacheable", "unknown"):
            found += [_named(span, service) for span in stack.jaeger.find(service, promptcache__status=status)]
        found += [_named(span, service) for span in stack.jaeger.find(service, error__type="api_error")]
    assert len(found) > 20
    return found


def _named(span: Span, service: str) -> Mapping[str, Any]:
    links = [reference for reference in span.references if reference[0] == "FOLLOWS_FROM"]
    return {
        **{f"span.{name}": value for name, value in span.tags.items()},
        "resource.service.name": service,
        "resource.service.version": "1",
        "trace:id": span.trace_id,
        "span:id": span.span_id,
        "span:duration": 1.0,
        **({"link:traceID": links[0][1], "link:spanID": links[0][2]} if links else {}),
    }


# --- TraceQL ------------------------------------------------------------------------------------------------

PARSE = """
const { createRequire } = require("node:module");
const { parser } = createRequire(process.argv[1] + "/")("@grafana/lezer-traceql");
const { readFileSync } = require("node:fs");
function tree(node, text) {
  const children = [];
  for (let child = node.firstChild; child; child = child.nextSibling) children.push(tree(child, text));
  return { name: node.type.isError ? "error" : node.name, text: text.slice(node.from, node.to), children };
}
const queries = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(queries.map((text) => tree(parser.parse(text).topNode, text))));
"""


class Node(NamedTuple):
    """A piece of a query."""

    name: str
    text: str
    children: Sequence[Node]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Node:
        return cls(raw["name"], raw["text"], [cls.of(child) for child in raw["children"]])

    def all(self, *names: str) -> Iterator[Node]:
        """The pieces below that are called so, from left to right."""
        for child in self.children:
            if child.name in names:
                yield child
            yield from child.all(*names)


def parsed(*queries: str) -> list[Node]:
    folder = built("traceql")
    node = shutil.which("node")
    assert node is not None
    done = subprocess.run(
        [node, "-e", PARSE, folder], input=json.dumps(queries), capture_output=True, text=True, check=True
    )
    return [Node.of(one) for one in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def trees() -> dict[str, Node]:
    return dict(zip([row.traceql for row in ROWS], parsed(*(row.traceql for row in ROWS)), strict=True))


def meets(condition: Node, span: Mapping[str, Any]) -> bool:
    """Whether a span meets a condition, as TraceQL has it: what a span does not say meets none but ``= nil``. A
    number is there or not: what costs half a dollar in the page costs less in a test."""
    left, operator, right = condition.children
    if operator.name == "And":
        return meets(left, span) and meets(right, span)
    value, wanted = span.get(left.text), right.text
    if wanted == "nil":
        return (value is None) == (operator.text == "=")
    if value is None:
        return False
    if operator.text in (">", ">=", "<", "<="):
        return isinstance(value, int | float)
    assert operator.text == "="
    literal: Any = {"true": True, "false": False}.get(wanted, wanted.strip('"'))
    return bool(literal == ANY or value == literal)


def selected(tree: Node, spans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    (selection,) = tree.all("SpansetFilter")
    return [span for span in spans if meets(selection.children[0], span)]


def test_the_parser_knows_what_is_wrong() -> None:
    """That its word means something."""
    for wrong in ("{ span.a = }", "{ span.a = 1 } | rate( by (span.b)", "{ span.a = 1 ", "{ } | of_tomorrow()"):
        assert list(parsed(wrong)[0].all("error")), wrong


@pytest.mark.verifies("TraceQL, by Grafana's grammar")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.question)
def test_traceql_is_read_without_an_error(trees: dict[str, Node], row: Row) -> None:
    assert list(trees[row.traceql].all("error")) == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.question)
def test_traceql_finds_spans(trees: dict[str, Node], row: Row, spans: list[Mapping[str, Any]]) -> None:
    """In the stack as it is shipped; and what is added up or grouped by is there, of the right kind."""
    tree = trees[row.traceql]
    found = selected(tree, spans)
    assert found
    for metric in tree.all("MetricsOperation", "SelectOperation"):
        for number in metric.all("MetricsExpression"):
            assert any(isinstance(span.get(number.text), int | float) for span in found), number.text
        for group in metric.all("GroupOperation", "SelectArgs"):
            for field in group.all("AttributeField"):
                assert any(field.text in span for span in found), field.text


def test_every_field_is_one_of_ours_or_the_conventions(trees: dict[str, Node]) -> None:
    known = set(semconv.FIELDS) | {f"{semconv.ATTRIBUTION}.{key}" for key in ("team", "feature")}
    asked = {one.text.removeprefix("span.") for tree in trees.values() for one in tree.all("AttributeField")}
    assert {name for name in asked if not name.startswith("resource.")} <= known


# --- Jaeger -------------------------------------------------------------------------------------------------


@pytest.mark.verifies("searches in Jaeger")
@pytest.mark.parametrize("row", [row for row in ROWS if row.jaeger not in ELSEWHERE], ids=lambda row: row.question)
def test_jaeger_finds_spans(stack: Stack, row: Row, spans: list[Mapping[str, Any]]) -> None:
    """By its own search, each time one of them that has all tags."""
    quoted = re.match(r"`([^`]+)`", row.jaeger)
    assert quoted is not None, row.jaeger
    tags = dict(pair.split("=", 1) for pair in quoted[1].split(" "))
    for name, value in tags.items():
        if value == ANY:
            tags[name] = next(str(span[f"span.{name}"]) for span in spans if f"span.{name}" in span)

    def found() -> list[Span]:
        asked = {name.replace(".", "__"): value for name, value in tags.items()}
        return [span for service in SERVICES for span in stack.jaeger.find(service, **asked)]

    def has_all(span: Span) -> bool:
        said = {
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in span.tags.items()
        }
        return tags.items() <= said.items()

    assert any(map(has_all, until(found)))
