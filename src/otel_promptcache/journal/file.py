"""The journal across restarts: one JSON file of hashes, written anew as a whole."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, Final, NamedTuple

from otel_promptcache import snapshot
from otel_promptcache.journal.strands import Strand, Version, Where
from otel_promptcache.model import Link
from otel_promptcache.semconv import Reason

log = logging.getLogger("otel_promptcache")

FORMAT: Final = 1
SHARE_OF_TIME: Final = 0.05
"""That may go into writing: many prompts make a long file."""


class Known(NamedTuple):
    """What the file tells of a strand."""

    where: Where
    current: Version
    candidate: Version | None


class File:
    """Of the journal of one process. Its reader is never kept from starting by what stands in it."""

    def __init__(self, path: str, key_id: str) -> None:
        self._path = path
        self._key_id = key_id
        self.lacking = False
        """Whether something has changed since it was written."""
        self._next = 0.0
        """When it may be written again, on the clock of ``perf_counter``."""

    @property
    def due(self) -> bool:
        """Whether to write it now, rather than with a later change or at exit."""
        return self.lacking and perf_counter() >= self._next

    def read(self) -> list[Known]:
        """What earlier processes left. What cannot be used is said once, and counts as nothing."""
        try:
            with open(self._path, encoding="utf-8") as handle:
                document = json.load(handle)
            if document["format"] != FORMAT:
                return []
            if document["key"] == self._key_id:
                return [_strand_in(one) for one in document["strands"]]
            log.warning(
                "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE was written under another key (%s); it begins "
                "anew. One OTEL_PROMPTCACHE_HASH_KEY for all processes keeps it across restarts",
                Reason.KEY_MISMATCH,
            )
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever stands in a file, the application starts
            log.warning(
                "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE cannot be read (%s); it begins anew",
                type(error).__name__,
            )
        return []

    def write(self, strands: Iterable[Strand]) -> None:
        """Puts the new file in the place of the old one. Raises OSError."""
        started = perf_counter()
        partial = f"{self._path}.{os.getpid()}"
        try:
            document = {"format": FORMAT, "key": self._key_id, "strands": [_strand_out(one) for one in strands]}
            with open(partial, "w", encoding="utf-8") as handle:
                json.dump(document, handle)
            os.replace(partial, self._path)
            self.lacking = False
        finally:
            now = perf_counter()
            self._next = now + (now - started) / SHARE_OF_TIME


def key_of(file: str) -> str:
    """The id of the key that a journal's file was written under. Raises OSError, and ValueError for what is none."""
    try:
        with open(file, encoding="utf-8") as handle:
            return str(json.load(handle)["key"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no journal") from error


def _strand_out(strand: Strand) -> dict[str, Any]:
    versions = [_version_out(one) for one in (strand.current, strand.candidate) if one is not None]
    return {"where": strand.where, "versions": versions}


def _strand_in(document: Mapping[str, Any]) -> Known:
    versions = [_version_in(one) for one in document["versions"]]
    return Known(Where(*map(str, document["where"])), versions[0], versions[1] if len(versions) > 1 else None)


def _version_out(version: Version) -> dict[str, Any]:
    return {
        "digest": version.digest,
        "prefix": json.loads(snapshot.prefix_out(version.prefix)),
        "service": version.service,
        "prompt": [version.prompt_name, version.prompt_version],
        "at": version.at,
        "link": version.link,
        "calls": version.calls,
    }


def _version_in(document: Mapping[str, Any]) -> Version:
    link = document["link"]
    name, version = map(str, document["prompt"])
    return Version(
        str(document["digest"]),
        snapshot.prefix_in(document["prefix"]),
        str(document["service"]),
        name,
        version,
        float(document["at"]),
        Link(*map(int, link)) if link else None,
        int(document["calls"]),
    )
