"""rotel: a second implementation of OTLP, in another language, between an application and whatever comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from servers import HOST, _missing, free_ports, listens, process


@dataclass
class Rotel:
    """A running rotel."""

    grpc: str
    http: str


@contextmanager
def rotel(folder: Path, name: str, onward: str, *, protocol: str = "grpc") -> Iterator[Rotel]:
    """Takes OTLP over gRPC and HTTP, and sends it on by one of them to the URL ``onward``. What it sends is always
    compressed: its option for that has no effect."""
    found = find_spec("rotel")
    if found is None or found.origin is None:
        _missing("rotel is not installed (pip install --group dev, up to Python 3.13).")
    grpc, http = free_ports(2)
    command = [
        str(Path(found.origin).with_name("rotel-agent")),
        "start",
        f"--otlp-grpc-endpoint={HOST}:{grpc}",
        f"--otlp-http-endpoint={HOST}:{http}",
        f"--pid-file={folder / name}.pid",
        f"--log-file={folder / name}.rotel.log",
        "--exporter=otlp",
        f"--otlp-exporter-endpoint={onward}",
        f"--otlp-exporter-protocol={protocol}",
        "--batch-timeout=50ms",
    ]
    with process(command, folder / f"{name}.log", lambda: listens(grpc) and listens(http)):
        yield Rotel(f"http://{HOST}:{grpc}", f"http://{HOST}:{http}")
