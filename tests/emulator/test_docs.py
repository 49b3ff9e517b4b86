"""What the documentation shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from otel_promptcache.emulator import PERSONALITIES, Fault

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what stands behind its prints."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    expected = re.findall(r"print\(.*\)  # (.*)", code)
    exec(compile(code, "docs/emulator.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == expected != []


def test_every_fault_and_personality_is_described() -> None:
    """By its name."""
    names = [fault.value for fault in Fault] + [who.name for who in PERSONALITIES if who.name not in BASE]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


BASE = ("anthropic", "gemini")
"""They have a wire format of their own."""
