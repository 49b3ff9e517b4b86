"""What ``docs/testing.md`` shows is what there is."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

import yaml

from otel_promptcache import pytest_plugin
from otel_promptcache.cli import ci
from otel_promptcache.testing import Call, Recording

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_assertion_is_explained() -> None:
    """With the arguments it takes."""
    for name, method in inspect.getmembers(Recording, inspect.isfunction):
        if name.startswith("assert_"):
            (shown,) = re.findall(rf"\| `{name}\((.*?)\)`", PAGE)
            taken = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
            assert re.findall(r"(\w+)(?:=[^,]*)?(?:, |$)", shown) == taken


def test_every_option_exists() -> None:
    """Of the command and of the plugin."""
    parser = argparse.ArgumentParser()
    ci.arguments(parser)
    known = parser.format_help() + pytest_plugin.UPDATE
    commands = [line for text in (*blocks("sh"), *blocks("yaml")) for line in text.splitlines()]
    options = {
        option
        for line in commands
        if "git " not in line and "gh " not in line
        for option in re.findall(r"(?<!\S)--[a-z-]+", line)
    }
    assert options
    assert [option for option in options if option not in known] == []


def test_every_property_exists() -> None:
    """Of a recorded call."""
    for name in ("status", "reason", "cause", "path", "line", "usage", "cost", "route"):
        assert f"`{name}`" in PAGE
        assert hasattr(Call, name)


def test_the_workflow_is_yaml() -> None:
    """With the steps in an order that works."""
    (workflow,) = map(yaml.safe_load, blocks("yaml"))
    steps = workflow["jobs"]["price"]["steps"]
    runs = [step.get("run", "") for step in steps]
    assert [name for run in runs for name in ("--promptcache-update", "otel-promptcache ci") if name in run] == [
        "--promptcache-update",
        "otel-promptcache ci",
    ]
