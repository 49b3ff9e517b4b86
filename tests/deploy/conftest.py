"""One stack for all that look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.stack import Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything under deploy/ as it is shipped, after an application has sent what it had to say."""
    with running(tmp_path_factory.mktemp("stack")) as found:
        yield found
