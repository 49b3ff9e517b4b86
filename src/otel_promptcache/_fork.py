"""Hooks into forked children that do not keep anybody alive."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod


def after_fork_in_child(method: Callable[[], Any]) -> None:
    """Calls a bound method in every forked child, as long as its object lives. The interpreter offers no way to take
    a hook back, so it must not be the hook that holds the object."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = WeakMethod(method)

    def run() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=run)
