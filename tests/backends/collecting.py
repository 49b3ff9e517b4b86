"""Spans through a Collector that has one of the shipped transforms."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from servers import HOST, built, free_ports, listens, process, until

from backends.mapping import TRANSFORMS
from backends.recording import Recorded, span_id


@dataclass
class Transforming:
    """A Collector with a pipeline for each transform: what is posted to one comes out of it."""

    ports: Mapping[str, int]
    folder: Path

    def through(self, transform: str, seen: Recorded) -> dict[str, dict[str, Any]]:
        """The attributes of every span that comes out, by its id."""
        request = urllib.request.Request(
            f"http://{HOST}:{self.ports[transform]}/v1/traces", seen.otlp, {"Content-Type": "application/x-protobuf"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200
        sent = {span_id(span) for span in seen.spans}
        until(lambda: sent <= self._out(transform).keys())
        return {key: span for key, span in self._out(transform).items() if key in sent}

    def _out(self, transform: str) -> dict[str, dict[str, Any]]:
        file = self.folder / f"{transform}.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []  # the last one may be half there
        return {
            span["spanId"]: _plain(span)
            for line in lines
            for resource in json.loads(line)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        }


def _plain(span: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a span of OTLP's JSON."""
    return {one["key"]: _value(one["value"]) for one in span.get("attributes", ())}


def _value(said: Mapping[str, Any]) -> Any:
    ((kind, value),) = said.items()
    if kind == "arrayValue":
        return tuple(_value(one) for one in value.get("values", ()))
    return int(value) if kind == "intValue" else value


@contextmanager
def transforming(folder: Path) -> Iterator[Transforming]:
    """Each file of ``deploy/collector/backends`` in a pipeline of its own."""
    names = sorted(file.name for file in TRANSFORMS.glob("*.yaml"))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config = {
        "receivers": {
            f"otlp/{name}": {"protocols": {"http": {"endpoint": f"{HOST}:{port}"}}} for name, port in ports.items()
        },
        "processors": {f"transform/{name}": f"${{file:{TRANSFORMS / name}}}" for name in names},
        "exporters": {
            f"file/{name}": {"path": str(folder / f"{name}.jsonl"), "flush_interval": "100ms"} for name in names
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                f"traces/{name}": {
                    "receivers": [f"otlp/{name}"],
                    "processors": [f"transform/{name}"],
                    "exporters": [f"file/{name}"],
                }
                for name in names
            },
        },
    }
    file = folder / "collector.yaml"
    file.write_text(yaml.safe_dump(config))
    with process(
        [built("collector"), f"--config={file}"], folder / "collector.log", lambda: all(map(listens, ports.values()))
    ):
        yield Transforming(ports, folder)
