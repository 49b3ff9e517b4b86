"""The pages behind reasons and causes: there for each of them, and their code compiles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from otel_promptcache.analysis import explanations
from otel_promptcache.cli import main
from otel_promptcache.semconv import CAUSE_MEANING, REASON_INFO, Cause, Reason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"
NOTHING_TO_CHANGE = {"provider_evicted", "unsupported", "unknown"}
"""Reasons that no code of the application changes."""


@pytest.mark.parametrize("what", [*Reason, *Cause])
def test_everyone_has_a_page(what: Reason | Cause) -> None:
    """What happened, how it is known, what to change, how to see that it is gone: sentences."""
    told = explanations.of(what)
    for text in (told.happened, told.known, told.verify):
        assert len(text) > 20
        assert text.endswith(".")
    assert bool(told.after) == (what.value not in NOTHING_TO_CHANGE)
    assert bool(told.before) == bool(told.after)
    assert told.before != told.after or not told.after


@pytest.mark.parametrize("kind", [Reason, Cause])
def test_the_code_compiles(kind: type[Reason | Cause]) -> None:
    """As it would inside a coroutine: some of it awaits."""
    for name, told in explanations.table(kind).items():
        for code in (told.before, told.after):
            body = "\n".join(f"    {line}" for line in code.splitlines()) or "    pass"
            ast.parse(f"async def shown():\n{body}\n    pass", filename=name)


def test_the_documentation_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference", "--page", "reasons"]) == 0
    page = capsys.readouterr().out
    assert page == PAGE.read_text(encoding="utf-8"), (
        "docs/reasons.md is out of date; renew it with: otel-promptcache reference --page reasons > docs/reasons.md"
    )
    assert all(f"### `{name}`" in page for name in (*REASON_INFO, *CAUSE_MEANING))
