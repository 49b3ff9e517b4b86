"""``otel-promptcache emulate``: a local provider that caches by the real rules, and the proof that it does."""

from __future__ import annotations

import argparse
import json
import math
import sys
import urllib.request
from pathlib import Path
from typing import Final

PORT: Final = 8788

_NEEDED: Final = frozenset({"starlette", "uvicorn"})

_DESCRIPTION: Final = """\
Serves a stand-in for the model providers: real HTTP, the providers' own shapes, their caching rules, no keys and no
costs. Point an SDK at it: ANTHROPIC_BASE_URL=http://127.0.0.1:8788 or OPENAI_BASE_URL=http://127.0.0.1:8788/v1.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
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
        "--personality",
        default="openai",
        metavar="NAME",
        help="who answers on the OpenAI paths: openai (default), deepseek, groq, vllm, sglang, llamacpp, generic, ...",
    )
    parser.add_argument("--block", type=_size, metavar="TOKENS", help="tokens of a vLLM block (default 16)")
    parser.add_argument("--slots", type=_size, metavar="N", help="slots of llama.cpp (default 4)")
    parser.add_argument("--capacity", type=_size, default=0, metavar="TOKENS", help="room of a self-hosted engine")
    parser.add_argument(
        "--cold", type=_share, default=0.0, metavar="SHARE", help="share of requests to cold machines, 0 to 1"
    )
    parser.add_argument(
        "--tokenizer", default="bytes", metavar="NAME", help="bytes (default: 4 a token), characters, words"
    )
    parser.add_argument("--seed", default="emulator", metavar="TEXT", help="what ids and chance are made from")
    parser.add_argument(
        "--context-window", type=_size, default=0, metavar="TOKENS", help="longest prompt that is taken (default: any)"
    )
    parser.add_argument(
        "--machine-rate",
        type=_count,
        metavar="N",
        help="requests a minute with one prefix before some go to another machine (default 15, OpenAI's); 0: never",
    )
    parser.add_argument(
        "--batch-seconds",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long a batch takes (default 0)",
    )
    parser.add_argument(
        "--retry-after", type=_seconds, default=1.0, metavar="SECONDS", help="what a 429 asks for (default 1)"
    )
    parser.add_argument(
        "--stall", type=_seconds, default=30.0, metavar="SECONDS", help="how long the slow faults take (default 30)"
    )
    parser.add_argument(
        "--advance",
        type=_seconds,
        metavar="SECONDS",
        help="move the clock of the emulator that runs at --host and --port, and end",
    )
    parser.add_argument(
        "--verify",
        metavar="DIR",
        help="replay the recorded traffic in DIR/cassettes, DIR/selfhosted and DIR/sessions, compare, and end: "
        "1 when something disagrees that is not explained, or entries do not live and end as recorded",
    )
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="of --verify")


def run(options: argparse.Namespace) -> int:
    """0 when done, 1 when a recording disagrees, 2 when it cannot be done."""
    try:
        if options.advance is not None:
            return _advance(options.host, options.port, options.advance)
        return _verify(options.verify, options.format) if options.verify is not None else _serve(options)
    except ModuleNotFoundError as missing:
        if missing.name not in _NEEDED:
            raise
        return _refuse(str(missing))


def _verify(folder: str, form: str) -> int:
    from otel_promptcache.cli import _emulate_proof
    from otel_promptcache.emulator.recording import RecordingError

    try:
        found = _emulate_proof.proof(Path(folder))
    except RecordingError as error:
        return _refuse(str(error))
    for line in _emulate_proof.FORMATS[form](found):
        print(line)
    return 0 if found.holds else 1


def _serve(options: argparse.Namespace) -> int:
    from otel_promptcache.emulator import Emulator
    from otel_promptcache.emulator.options import TOKENIZERS
    from otel_promptcache.emulator.running import serve

    if options.tokenizer not in TOKENIZERS:
        return _refuse(f"--tokenizer: takes one of {', '.join(TOKENIZERS)}, not {options.tokenizer!r}")
    fixed, each = options.ttft
    try:
        emulator = Emulator(
            latency=lambda uncached, _output: fixed + each * uncached / 1000,
            personality=options.personality,
            block=options.block,
            slots=options.slots,
            capacity=options.capacity,
            cold=options.cold,
            tokenizer=TOKENIZERS[options.tokenizer],
            seed=options.seed,
            context_window=options.context_window,
            machine_rate=options.machine_rate,
            batch_seconds=options.batch_seconds,
            retry_after=options.retry_after,
            stall=options.stall,
        )
    except ValueError as error:
        return _refuse(f"--personality: {error}")
    try:
        serve(emulator, options.host, options.port, _started)
    except OSError as error:
        return _refuse(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    return 0


def _started(url: str) -> None:
    print(f"emulator at {url}  (ANTHROPIC_BASE_URL={url}  OPENAI_BASE_URL={url}/v1)", flush=True)
    print(f"state: {url}/_emulator/state   Ctrl-C ends it", flush=True)


def _advance(host: str, port: int, seconds: float) -> int:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = urllib.request.Request(
        f"http://{where}/_emulator/clock",
        json.dumps({"advance": seconds}).encode(),
        {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
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
        raise argparse.ArgumentTypeError("takes seconds from 0 up: time does not go backwards")
    return seconds


def _count(text: str) -> int:
    return 0 if text == "0" else _size(text)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError("takes a whole number from 1 up")
    return int(text)


def _share(text: str) -> float:
    share = _number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("takes a number from 0 to 1")
    return share


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
