"""Run by the interpreter because this directory is on PYTHONPATH; hands on to any other ``sitecustomize``."""

import os
import sys


def _start() -> None:
    if os.environ.get("OTEL_PROMPTCACHE_AUTO"):
        try:
            from otel_promptcache.autoload import start
        except ImportError:  # another interpreter, without the package
            return
        start()


def _hand_on() -> None:
    """Runs the ``sitecustomize`` that this one hides. Its errors are its own: the interpreter tells of them."""
    here = os.path.dirname(os.path.abspath(__file__))
    hidden = [entry for entry in sys.path if os.path.abspath(entry or ".") == here]
    for entry in hidden:
        sys.path.remove(entry)
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.path[:0] = hidden
        if mine is not None:
            sys.modules.setdefault("sitecustomize", mine)


_start()
_hand_on()
