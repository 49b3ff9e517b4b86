"""``otel-promptcache emulate``: a local provider that caches by the real rules, and the proof that it does."""

from __future__ import annotations

import argparse
import json
import math
import sys
import urllib.request
from typing import Final

PORT: Final = 8788

_DESCRIPTION: Final = """\
Serves a stand-in for the model providers: real HTTP, the providers' own shapes, their caching rules, no keys and no
costs. Point an SDK at it: ANTHROPIC_BASE_URL=http://127.0.0.1:8788 or OPENAI_BASE_URL=http://127.0.0.1:8788/v1.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"port to listen on, 0 for a free one (default {PORT})"
    )
    parser.add_argument(
        "--ttft",
        type=_latency,
        default=(0.0, 0.0),
        metavar="MS[,MS]",
        help="milliseconds to the first byte: always, and for each 1,000 input tokens not read (default 0,0)",
    )
    parser.add_argument(
        "--advance",
        type=_seconds,
        metavar="SECONDS",
        help="move the clock of the emulator that runs at --host and --port, and end",
    )


def run(options: argparse.Namespace) -> int:
    """0 when done, 2 when it cannot be done."""
    if options.advance is not None:
        return _advance(options.host, options.port, options.advance)
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    try:
        from otel_promptcache.emulator import Emulator
        from otel_promptcache.emulator.running import bound, serve, url_of
    except ModuleNotFoundError as missing:
        return _refuse(str(missing))
    fixed, each = options.ttft
    emulator = Emulator(latency=lambda uncached, _output: fixed + each * uncached / 1000)
    try:
        listener = bound(options.host, options.port)
    except OSError as error:
        reason = error.strerror or error
        return _refuse(f"cannot listen on {options.host}:{options.port}: {reason}. --port 0 takes a free port")
    url = url_of(listener)
    print(f"emulator at {url}  (ANTHROPIC_BASE_URL={url}  OPENAI_BASE_URL={url}/v1)", flush=True)
    print(f"state: {url}/_emulator/state   Ctrl-C ends it", flush=True)
    serve(emulator, listener)
    return 0


def _advance(host: str, port: int, seconds: float) -> int:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = urllib.request.Request(
        f"http://{where}/_emulator/clock",
        json.dumps({"advance": seconds}).encode(),
        {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            now = json.load(response)["now"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        return _refuse(f"no emulator answers at {where}: {reason}")
    print(json.dumps({"now": now}))
    return 0


def _refuse(message: str) -> int:
    print(f"otel-promptcache emulate: {message}", file=sys.stderr)
    return 2


# --- Options ------------------------------------------------------------------------------------------------


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("takes a port from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    seconds = _number(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError("takes seconds from 0 up: a clock is not moved backwards")
    return seconds


def _latency(text: str) -> tuple[float, float]:
    """``MS[,MS]`` as seconds."""
    fixed, _, each = text.partition(",")
    milliseconds = (_number(fixed), _number(each) if each else 0.0)
    if min(milliseconds) < 0:
        raise argparse.ArgumentTypeError("takes milliseconds from 0 up")
    return milliseconds[0] / 1000, milliseconds[1] / 1000


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"takes a number, not {text!r}")
    return number
