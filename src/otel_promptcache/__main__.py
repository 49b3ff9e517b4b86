"""``python -m otel_promptcache``."""

import sys

from otel_promptcache.cli import main

sys.exit(main())
