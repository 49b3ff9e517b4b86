"""Run by the interpreter because this directory is on PYTHONPATH; hands on to any other ``sitecustomize``."""

import os
import sys


def _hand_on() -> None:
    """Runs the ``sitecustomize`` that this one hides."""
    here = os.path.dirname(os.path.abspath(__file__))
    hidden = [entry for entry in sys.path if os.path.abspath(entry or ".") == here]
    for entry in hidden:
        sys.path.remove(entry)
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine
    finally:
        sys.path[:0] = hidden


_hand_on()
if os.environ.get("OTEL_PROMPTCACHE_AUTO"):
    try:
        from otel_promptcache.autoload import start
    except ImportError:  # another interpreter, without the package
        pass
    else:
        start()
