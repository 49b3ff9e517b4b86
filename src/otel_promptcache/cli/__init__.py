"""The ``otel-promptcache`` command: one module a subcommand, imported only when it is asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple, Protocol

from otel_promptcache._version import __version__


class Command(NamedTuple):
    """A subcommand: where it lives and what it does, in one line."""

    name: str
    module: str
    help: str


class Module(Protocol):
    """What a subcommand's module offers."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int:
        """Does it; the exit status: 0, 1 for a finding, 2 for a call that cannot be carried out."""
        ...


COMMANDS: Final = (
    Command("demo", "otel_promptcache.demo", "see hits and misses, explained, against a local provider"),
    Command(
        "diagnose", "otel_promptcache.cli.diagnose", "why recorded traffic missed the cache, where, and what to do"
    ),
    Command("diff", "otel_promptcache.cli.diff", "where two request bodies part, and what it does to the cache"),
    Command(
        "explain", "otel_promptcache.cli.explain", "a reason, a cause, or one call: what happened and how to fix it"
    ),
    Command("doctor", "otel_promptcache.cli.doctor", "what is observed, who else instruments, where telemetry goes"),
    Command(
        "emulate", "otel_promptcache.cli.emulate", "a local provider that caches by the real rules; --verify proves it"
    ),
    Command(
        "ci", "otel_promptcache.cli.ci", "the price tag of a pull request: snapshots joined with production traffic"
    ),
    Command("witness", "otel_promptcache.cli.witness", "our verdicts beside the provider's own, from the ledger"),
    Command("fleet", "otel_promptcache.cli.fleet", "erase what the shared history holds of a tenant"),
    Command("price", "otel_promptcache.cli.price", "price usage payloads from a file of JSON lines"),
    Command("auto", "otel_promptcache.cli.auto", "start by environment: path, enable, disable, status"),
    Command("reference", "otel_promptcache.cli.reference", "print the reference of signals and settings as Markdown"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="otel-promptcache", description="OpenTelemetry instrumentation for LLM prompt caching."
    )
    parser.add_argument("--version", action="version", version=f"otel-promptcache {__version__}")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = choices.add_parser(command.name, help=command.help, description=command.help)
        if command.name in arguments[:1]:
            module: Module = import_module(command.module)
            module.arguments(sub)
            sub.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough; nor may the interpreter complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
