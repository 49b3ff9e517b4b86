"""matrix.py [ROW ...]: the tests of the hooks on every supported combination of SDKs, OpenTelemetry and Python.

Not the full product: the oldest of everything; each SDK version with the newest OpenTelemetry; the newest SDKs with
the oldest OpenTelemetry; the newest of everything on each Python. ``newest`` is resolved anew each time, so that a
release of today is tested today. What cannot be made on this machine is listed as such, and is no failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import NamedTuple

import environments

TESTS = ("tests/instrumentation", "tests/signals", "tests/autoload")
WORKERS = ("-n", "auto", "--maxprocesses", "4")
OLDEST_OTEL = "1.24.0"
PACKAGES = ("anthropic", "openai", "opentelemetry-api")
FIRST_PYTHON, LAST_PYTHON = (3, 11), (3, 14)


class Row(NamedTuple):
    """A combination. An empty version is the newest one."""

    name: str
    python: str
    anthropic: str = ""
    openai: str = ""
    opentelemetry: str = ""

    @property
    def fresh(self) -> bool:
        return self.name == "newest"

    def requirements(self) -> list[str]:
        """What pip is asked for."""
        return [_exactly("anthropic", self.anthropic), _exactly("openai", self.openai), *_otel(self.opentelemetry)]


def _exactly(name: str, version: str) -> str:
    return f"{name}=={version}" if version else name


def _otel(version: str) -> list[str]:
    """The packages of one release of OpenTelemetry: 1.24.0 goes with 0.45b0."""
    if not version:
        beta = ""
    else:
        _, minor, patch = version.split(".")
        beta = f"0.{int(minor) + 21}b{patch}"
    stable = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp")
    others = ("opentelemetry-instrumentation", "opentelemetry-distro", "opentelemetry-instrumentation-fastapi")
    found = [_exactly(name, version) for name in stable] + [_exactly(name, beta) for name in others]
    if version == OLDEST_OTEL:
        found.append("setuptools<81")  # opentelemetry-instrumentation 0.45b0 imports pkg_resources
    return found


def rows() -> list[Row]:
    """Every combination."""
    pythons = [f"3.{minor}" for minor in range(FIRST_PYTHON[1], LAST_PYTHON[1] + 1)]
    newest = max(environments.pythons().keys() & set(pythons), key=lambda version: int(version[2:]), default="3.11")
    return [
        Row("oldest", "3.11", "0.79.0", "1.109.0", OLDEST_OTEL),
        Row("oldest-sdks", "3.12", "0.79.0", "1.109.0"),
        Row("anthropic-0.125", "3.11", "0.125.0", "2.0.0"),
        Row("anthropic-1.0", "3.12", "1.0.0", "2.54.0"),
        Row("anthropic-1.17", "3.11", "1.17.0", "3.0.0"),
        Row("oldest-otel", "3.11", opentelemetry=OLDEST_OTEL),
        *(Row(f"python-{version}", version) for version in pythons if version != newest),
        Row("newest", newest),
    ]


class Outcome(NamedTuple):
    """What became of a row."""

    versions: list[str]
    said: str
    failed: bool
    seconds: float


def run(row: Row, more: list[str]) -> Outcome:
    """Makes the environment and runs the tests in it."""
    began = time.monotonic()
    try:
        python = environments.environment(
            row.name, row.python, [*row.requirements(), *environments.group("hooks")], fresh=row.fresh
        )
    except environments.UnavailableError as error:
        missing = row.python not in environments.pythons()
        return Outcome(["", "", ""], f"not run: {error}", not missing, time.monotonic() - began)
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not server", *WORKERS, *more, *TESTS]
    settings = {**os.environ, "VIRTUAL_ENV": str(python.parents[1])}
    with subprocess.Popen(
        command, cwd=environments.ROOT, env=settings, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as running:
        assert running.stdout is not None
        output = [line.rstrip() for line in running.stdout]
    said = next((line for line in reversed(output) if re.search(r"\d+ (passed|failed|error)", line)), "nothing ran")
    if running.returncode or "rerun" in said:
        print("\n".join(output), flush=True)
    versions = environments.versions(python, *PACKAGES)
    return Outcome(versions, said.strip("= "), running.returncode != 0, time.monotonic() - began)


def main() -> int:
    """Prints a line a row as it ends, then the table."""
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    more = [word for word in sys.argv[1:] if word.startswith("-")]
    known = {row.name: row for row in rows()}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    found = {}
    for name in wanted or known:
        print(f"== {name} ==", flush=True)
        found[name] = run(known[name], more)
        print(found[name].said, flush=True)
    print()
    table = [("row", "python", *PACKAGES, "outcome", "seconds")]
    table += [
        (name, known[name].python, *outcome.versions, outcome.said, f"{outcome.seconds:.0f}")
        for name, outcome in found.items()
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return int(any(outcome.failed for outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
