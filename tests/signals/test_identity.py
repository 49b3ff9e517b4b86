"""Whose ``service.instance.id`` is whose."""

from __future__ import annotations

import multiprocessing.process
import os
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_promptcache.telemetry import identity


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("shop", "shop/7"),
        ("shop-7f9c", "shop-7f9c/7"),  # a pod's name has digits, and a container's processes have short numbers
        ("shop-17", "shop-17/7"),
        ("shop/7", "shop/7"),
        ("shop-7", "shop-7"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ],
)
def test_a_chosen_name_gets_the_process(given: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In what multiprocessing has started anew, unless it is of this process already."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr(multiprocessing.process, "parent_process", SimpleNamespace)
    provider = TracerProvider(resource=Resource({identity.INSTANCE: given}), shutdown_on_exit=False)
    identity.name_spawned([provider])
    assert provider.resource.attributes[identity.INSTANCE] == named
    assert identity.chosen(provider) == ""  # nobody else can have it now
