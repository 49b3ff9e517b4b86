"""What the commands that read recorded traffic share: files, the privacy ladder, complaints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from otel_promptcache import pricing
from otel_promptcache.analysis.documents import TrafficError
from otel_promptcache.analysis.findings import Shown
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.pricing import PriceFileError, Prices
from otel_promptcache.settings import Live, Privacy


def privacy_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--privacy",
        choices=[str(one) for one in Privacy],
        help="how much is shown: hashes, names (of tools and keys), redacted (the differing text, secrets and personal "
        "data masked), full; OTEL_PROMPTCACHE_PRIVACY otherwise",
    )


def prices_argument(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument("--prices", metavar="FILE", help=f"a price file (TOML) to use; without, {otherwise}")


def price_table(path: str | None) -> Prices:
    """The prices that a command uses: with the file it was given, else with that of the settings. Raises PriceFileError
    with sentences that name what is wrong with the file."""
    path = path or Live().value.price_file
    if not path:
        return pricing.LISTED
    try:
        return Prices(pricing.read(path))
    except OSError as error:
        raise PriceFileError([f"{path}: {error.strerror or type(error).__name__}"]) from None


def shown(options: argparse.Namespace) -> Shown:
    """How much may be shown, by option, else by setting."""
    settings = Live().current()
    chosen = Privacy(options.privacy) if options.privacy else settings.privacy
    return Shown(chosen, HashKey(settings.hash_key))


def say(line: str) -> None:
    """Prints a line; what the terminal cannot show, or nobody can (half a character), is written out."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.rstrip().encode(encoding, "backslashreplace").decode(encoding))


def complaining(name: str, action: Callable[[], int]) -> int:
    """The exit status of an action; 2 with a sentence for files that cannot be read."""
    try:
        return action()
    except BrokenPipeError:
        raise  # whoever reads our output has seen enough: no fault of the file
    except (TrafficError, PriceFileError) as error:
        said = str(error)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        said = f"{getattr(error, 'filename', None) or 'a file'}: {getattr(error, 'strerror', None) or error}"
    print(f"otel-promptcache {name}: {said}", file=sys.stderr)
    return 2
