"""OpenTelemetry instrumentation that shows what the provider's prompt cache did, why it missed, and what that cost.

>>> import otel_promptcache
>>> otel_promptcache.instrument()  # doctest: +SKIP

PYTEST_DONT_REWRITE: having a pytest plugin makes pytest ask for it, and it would warn where we are imported already.
"""

from otel_promptcache._version import __version__
from otel_promptcache.api import attribute, conversation, flush, instrument, prompt, route, strategy, uninstrument

__all__ = [
    "__version__",
    "attribute",
    "conversation",
    "flush",
    "instrument",
    "prompt",
    "route",
    "strategy",
    "uninstrument",
]
