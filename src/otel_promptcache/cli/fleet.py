"""``otel-promptcache fleet``: what workers share, taken away again."""

from __future__ import annotations

import argparse
import sys

from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.redis import Server
from otel_promptcache.history.sharing import Realm
from otel_promptcache.settings import PREFIX, Live

_HELP = """\
Takes away what the shared history holds of a tenant, under OTEL_PROMPTCACHE_HASH_KEY and, where it is set,
OTEL_PROMPTCACHE_HASH_KEY_BEFORE. It looks through all keys of the server (or of the cluster), a thousand at a time, and
can be run while workers use it; what they send meanwhile comes anew. Everything else runs out by itself: after an hour,
or twice the longest lifetime that a request asked for.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _HELP
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    erase = actions.add_parser("erase", help="take away what is held of a tenant", description=_HELP)
    erase.add_argument("--tenant", required=True, metavar="NAME", help="as in attribute(tenant=NAME); '' for none")
    erase.add_argument("--url", help=f"the server; {PREFIX}HISTORY_URL otherwise")


def run(options: argparse.Namespace) -> int:
    settings = Live().value
    url = options.url or settings.history_url
    keys = [HashKey(one) for one in (settings.hash_key, settings.hash_key_before) if one]
    missing = "HASH_KEY" if not keys else "HISTORY_URL" if not url else ""
    if missing:
        print(f"{PREFIX}{missing} is not set: there is nothing to look for.", file=sys.stderr)
        return 2
    server = Server(url, timeout=30.0)
    try:
        gone = sum(server.erase(Realm(key, options.tenant).prefix) for key in keys)
    except ImportError:
        print("The redis library is not installed: pip install 'otel-promptcache[redis]'", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"The server does not answer: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    finally:
        server.close()
    print(f"Erased {gone:,} keys.")
    return 0
