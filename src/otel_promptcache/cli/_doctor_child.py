"""Starts the experiments of ``doctor`` in a process of their own, and says which targets of the SDKs are patched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from otel_promptcache.cli._doctor_report import Finding, Section, note, ok, problem
from otel_promptcache.cli._doctor_versions import SDKS, installed
from otel_promptcache.settings import PREFIX

LIMIT: Final = 90.0
"""Seconds after which an experiment is given up."""

LAUNCHER_PATH: Final = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")
_MODULE: Final = "otel_promptcache.cli._doctor_experiment"
_LAST_LINES: Final = 3


class ExperimentError(Exception):
    """An experiment that came to no result; the message says why."""


def present() -> list[str]:
    """The SDKs that are installed."""
    return [sdk for sdk in SDKS if installed(sdk)]


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The application's environment, without what would start OpenTelemetry a second time or leave the machine."""
    found = dict(os.environ)
    path = found.get("PYTHONPATH", "").split(os.pathsep)
    found["PYTHONPATH"] = os.pathsep.join(entry for entry in path if entry and LAUNCHER_PATH not in entry)
    for name in (PREFIX + "AUTO", "OTEL_SDK_DISABLED", "PYTHONWARNINGS"):
        found.pop(name, None)
    found["NO_PROXY"] = found["no_proxy"] = "*"
    return {**found, **changes}


def run(task: str, sdks: Sequence[str], changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The result of a task of ``_doctor_experiment``."""
    try:
        done = subprocess.run(  # noqa: S603 - our own module in our own interpreter
            [sys.executable, "-P", "-m", _MODULE, task, *sdks],
            env=environment(changes or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExperimentError(f"no result within {LIMIT:.0f} seconds") from None
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = " / ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise ExperimentError(f"it ended with status {done.returncode}: {said or 'and said nothing'}") from None
    return found


def patched() -> Section:
    """Every target of the patch table, in every SDK that is installed."""
    try:
        found = run("patches", present())
    except ExperimentError as error:
        return Section("Patched", [problem("experiment", f"the SDKs could not be looked at: {error}")])
    findings = [finding for sdk in SDKS for finding in _sdk(sdk, found.get(sdk))]
    return Section("Patched", findings)


def _sdk(sdk: str, found: Mapping[str, Any] | None) -> Iterator[Finding]:
    if found is None:
        yield note(sdk, "not installed")
        return
    if found["error"]:
        yield problem(sdk, f"cannot be imported: {found['error']}", f"python -c 'import {sdk}' shows the whole error")
        return
    missing = [target for target, there in found["targets"] if not there]
    if missing:
        yield problem(
            sdk,
            f"this version has no {', '.join(missing)}: its calls are observed in part or not at all",
            f"pip install -U otel-promptcache; if that does not help, tell us the version of {sdk}",
        )
    else:
        names = ", ".join(target for target, _ in found["targets"])
        yield ok(sdk, f"{len(found['targets'])} of {len(found['targets'])} targets: {names}")
