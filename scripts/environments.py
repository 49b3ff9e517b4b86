"""Virtual environments of chosen versions, for ``matrix.py`` and for the tests beside other instrumentations.

Kept in ``.environments/`` as long as what is asked for stays the same. Made by uv where it is there, else by venv and
pip.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".environments"
_STAMP = "promptcache.stamp"
_LAST_LINES = 5


class UnavailableError(Exception):
    """An environment that cannot be made here; the message says why."""


@cache
def pythons() -> dict[str, str]:
    """Every CPython of this machine that really runs, by minor version: on PATH, of pyenv, of uv."""
    managed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    fetched = Path.home() / ".local/share/uv/python"
    places = [sys.executable, *map(str, [*managed.glob("3.*/bin/python"), *fetched.glob("cpython-3.*/bin/python3")])]
    places += filter(None, (shutil.which(f"python3.{minor}") for minor in range(11, 30)))
    found: dict[str, str] = {}
    for place in places:
        version = _run([place, "-c", "import sys, venv, ssl; print('%d.%d' % sys.version_info[:2])"])
        if version is not None:
            found.setdefault(version.strip(), place)
    return found


def group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return [line for line in groups[name] if isinstance(line, str)]


def environment(name: str, python: str, requirements: Sequence[str], *, fresh: bool = False) -> Path:
    """The interpreter of an environment with our own package, from this checkout, and ``requirements``.

    ``fresh`` has it made anew, with what is newest today. Raises ``UnavailableError``.
    """
    place = pythons().get(python)
    if place is None:
        raise UnavailableError(f"no Python {python} here; uv and pyenv can install one")
    directory = HOME / name
    interpreter = directory / "bin" / "python"
    asked = [place, *requirements, (ROOT / "pyproject.toml").read_text()]
    stamp = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    kept = directory / _STAMP
    if not fresh and interpreter.exists() and kept.exists() and kept.read_text() == stamp:
        return interpreter
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(exist_ok=True)
    uv = shutil.which("uv") if _run(["uv", "--version"]) is not None else None
    if uv is not None:
        steps = [
            [uv, "venv", "-q", "-p", place, str(directory)],
            [uv, "pip", "install", "-q", "-p", str(interpreter), "-e", str(ROOT), *requirements],
        ]
    else:
        pip = [str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        steps = [[place, "-m", "venv", str(directory)], [*pip, "-e", str(ROOT), *requirements]]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:]
            raise UnavailableError(
                " / ".join(line.strip() for line in said) or f"{step[0]} ended with {done.returncode}"
            )
    kept.write_text(stamp)
    return interpreter


def versions(interpreter: Path, *names: str) -> list[str]:
    """The versions of distributions in an environment; empty for those that are not there."""
    script = (
        "import sys; from importlib.metadata import distributions\n"
        "found = {one.metadata['Name'].lower(): one.version for one in distributions()}\n"
        "print('\\n'.join(found.get(name, '') for name in sys.argv[1:]))"
    )
    return (_run([str(interpreter), "-c", script, *names]) or "").splitlines()


def _run(command: Sequence[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
