"""Paths show the API's own names and, by default, none of the application's."""

from __future__ import annotations

import re

import pytest

from otel_promptcache import paths
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers import anthropic
from otel_promptcache.settings import Privacy

KEY = HashKey("a key")


def hashed(*path: str | int) -> str:
    return re.sub(r"\[key:[0-9a-f]{4}\]", "[key]", paths.shown(path, Privacy.HASHES, KEY))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (("tools", 8, "description"), "tools[8].description"),
        (("tools", 2, "function", "parameters", "required", 1), "tools[2].function.parameters.required[1]"),
        (("messages", 3, "content", 0, "source", "data"), "messages[3].content[0].source.data"),
        (("input", 5, "content", 0, "image_url"), "input[5].content[0].image_url"),
        (("output_config", "effort"), "output_config.effort"),
        (("tools", 0, "input_schema", "properties", "iban"), "tools[0].input_schema.properties.[key]"),
        # An application may call its own keys as the API calls its fields.
        (("tools", 0, "input_schema", "properties", "name", "type"), "tools[0].input_schema.properties.[key].type"),
        (("messages", 1, "content", 0, "input", "content", "name"), "messages[1].content[0].input.[key].[key]"),
        (("tools", 0, "x-owner"), "tools[0].[key]"),
    ],
)
def test_own_keys_are_hashed(path: paths.Path, shown: str) -> None:
    assert hashed(*path) == shown


@pytest.mark.parametrize("privacy", [Privacy.NAMES, Privacy.REDACTED, Privacy.FULL])
def test_names_are_readable_from_the_second_step_on(privacy: Privacy) -> None:
    path = ("tools", 0, "input_schema", "properties", "customer_iban")
    assert paths.shown(path, privacy, KEY) == "tools[0].input_schema.properties.customer_iban"
    assert paths.shown_name("search_docs", privacy, KEY) == "search_docs"


def test_equal_names_compare_under_one_key_only() -> None:
    first, second = (paths.shown_name("search_docs", Privacy.HASHES, key) for key in (KEY, HashKey("another")))
    assert first == paths.shown_name("search_docs", Privacy.HASHES, KEY) != second
    assert "search" not in first


def test_what_the_dialects_write_is_read() -> None:
    assert paths.parsed("messages[3].content[0].tool_calls[1]") == ("messages", 3, "content", 0, "tool_calls", 1)
    assert paths.parsed("") == ()


def test_a_place_and_the_field_within_it() -> None:
    """The place is the API's own, whatever the parameter is called; the field may be anybody's."""
    tool = Segment(0, Section.TOOLS, Kind.TOOL, 3, -1, "tool", {})
    parameter = Segment(0, Section.PARAMETERS, Kind.PARAMETER, 0, -1, "a_parameter_of_tomorrow", {})
    assert paths.at(anthropic, tool, (), Privacy.HASHES, KEY) == "tools[3]"
    assert paths.at(anthropic, tool, ("description",), Privacy.HASHES, KEY) == "tools[3].description"
    assert paths.at(anthropic, parameter, (0,), Privacy.HASHES, KEY) == "a_parameter_of_tomorrow[0]"
    assert re.fullmatch(
        r"tools\[3\]\.input_schema\.properties\.\[key:[0-9a-f]{4}\]",
        paths.at(anthropic, tool, ("input_schema", "properties", "name"), Privacy.HASHES, KEY),
    )
