"""Cache tests for applications: what every call of a test read, wrote and missed, and assertions about it.

Under pytest the fixture ``promptcache`` is a ``Recording``; elsewhere ``recording()`` makes one::

    class TestSupport(unittest.TestCase):
        def setUp(self):
            self.promptcache = self.enterContext(recording())

Needs no OpenTelemetry SDK, reads and sets no provider of it, and leaves an instrumentation that is active as it is.
"""

from otel_promptcache.testing.calls import Call
from otel_promptcache.testing.recording import Recording, recording

__all__ = ["Call", "Recording", "recording"]
