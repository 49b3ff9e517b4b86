"""A provider for each module, and clients of it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.application import Clients, provider

from otel_promptcache.emulator import Emulator


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    with provider() as running:
        yield running


@pytest.fixture
def clients(emulated: Emulator) -> Iterator[Clients]:
    emulated.reset()
    made = Clients(emulated.url)
    yield made
    made.close()
