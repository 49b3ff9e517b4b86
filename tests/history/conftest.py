"""One Valkey for all tests of the shared history."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.valkey import Running, valkey


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    with valkey() as running:
        yield running


@pytest.fixture
def shared_server(server: Running) -> Running:
    """The same, empty."""
    server.client.flushall()
    return server
