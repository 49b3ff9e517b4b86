"""``otel-promptcache auto``: start with the interpreter, by environment alone."""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from typing import Final

FILE: Final = "otel_promptcache_auto.pth"

# Without the switch this costs every interpreter one look at the environment.
_LINE: Final = (
    'import os; os.environ.get("OTEL_PROMPTCACHE_AUTO") and '
    '__import__("otel_promptcache.autoload", fromlist=["start"]).start()\n'
)

_HELP: Final = """\
Two ways, both off unless OTEL_PROMPTCACHE_AUTO=1:

  PYTHONPATH=$(otel-promptcache auto path) OTEL_PROMPTCACHE_AUTO=1 python app.py
  otel-promptcache auto enable        (writes one .pth file into this environment)
  OTEL_PROMPTCACHE_AUTO=1 python app.py

Telemetry goes where OTEL_EXPORTER_OTLP_ENDPOINT says.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _HELP
    parser.add_argument("action", choices=("path", "enable", "disable", "status"))


def pth_path() -> str:
    """Where ``enable`` writes, in the environment of this interpreter."""
    return os.path.join(sysconfig.get_path("purelib"), FILE)


def directory() -> str:
    """What ``PYTHONPATH`` has to name."""
    from otel_promptcache import autoload

    return os.path.join(os.path.dirname(os.path.abspath(autoload.__file__)), "path")


def run(options: argparse.Namespace) -> int:
    try:
        match options.action:
            case "path":
                print(directory())
            case "enable":
                with open(pth_path(), "w", encoding="utf-8") as handle:
                    handle.write(_LINE)
                print(f"Wrote {pth_path()}. Set OTEL_PROMPTCACHE_AUTO=1 to use it; `disable` removes it.")
            case "disable":
                if os.path.exists(pth_path()):
                    os.remove(pth_path())
                    print(f"Removed {pth_path()}.")
                else:
                    print("Nothing to remove.")
            case _:
                print("enabled" if os.path.exists(pth_path()) else "disabled")
    except BrokenPipeError:
        raise  # no fault of the file
    except OSError as error:
        print(
            f"otel-promptcache auto: {error.strerror}: {pth_path()}. Use PYTHONPATH=$(otel-promptcache auto path) "
            "where the environment cannot be written to",
            file=sys.stderr,
        )
        return 2
    return 0
