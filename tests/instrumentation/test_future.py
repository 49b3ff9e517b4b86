"""A version of an SDK that has moved what we hook: not instrumented, said once, and never an error.

The installed SDK is really changed, before we are started, in a process of its own; the calls are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

CALLS = """
import asyncio, json, logging, sys
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger().addHandler(Lines(logging.WARNING))
from opentelemetry.sdk.trace import TracerProvider
import anthropic, openai, anthropic._base_client as a, openai._base_client as o
for module in (a, o):
    change(module)
url = sys.argv[1]
if sys.argv[2] == "with us":
    import otel_promptcache
    for _ in range(2):
        otel_promptcache.instrument(tracer_provider=TracerProvider())
        otel_promptcache.uninstrument()
    otel_promptcache.instrument(tracer_provider=TracerProvider())
BODY = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
GPT = {"model": "gpt-5.6", "messages": BODY["messages"]}
found = []
def attempt(call):
    try:
        found.append(call())
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
def dumped(items):
    return [item.model_dump(warnings=False) for item in items]
with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
    attempt(lambda: client.messages.create(**BODY).model_dump())
    attempt(lambda: dumped(client.messages.create(stream=True, **BODY)))
    attempt(lambda: client.messages.with_raw_response.create(**BODY).text)
    attempt(lambda: client.messages.create(**{**BODY, "model": "claude-sonnet-4-6+429"}))
with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as client:
    attempt(lambda: client.chat.completions.create(**GPT).model_dump())
    attempt(lambda: dumped(client.chat.completions.create(stream=True, **GPT)))
    attempt(lambda: client.responses.create(model="gpt-5.6", input="hi").model_dump())
async def later():
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        one = (await client.messages.create(**BODY)).model_dump()
        stream = await client.messages.create(stream=True, **BODY)
        return one, [event.model_dump(warnings=False) async for event in stream]
attempt(lambda: asyncio.run(later()))
print(json.dumps([json.loads(json.dumps(found, default=str)), lines]))
"""

MOVE = """
def move(owner, *names):
    # The SDK's own calls arrive by __getattr__; on the class there is nothing by the old name.
    for name in names:
        inner = vars(owner)[name]
        delattr(owner, name)
        setattr(owner, "new_" + name, inner)
    def moved(self, asked):
        if asked in names:
            return getattr(self, "new_" + asked)
        raise AttributeError(asked)
    before = getattr(owner, "__getattr__", None)
    owner.__getattr__ = moved if before is None else (
        lambda self, asked: moved(self, asked) if asked in names else before(self, asked))
"""

CHANGES = {
    "the request was moved": """
        def change(module):
            move(module.SyncAPIClient, "request")
            move(module.AsyncAPIClient, "request")
    """,
    "the body is built elsewhere": """
        def change(module):
            move(module.BaseClient, "_build_request")
    """,
    "the response is processed elsewhere": """
        def change(module):
            move(module.SyncAPIClient, "_process_response")
            move(module.AsyncAPIClient, "_process_response")
    """,
    "all of it": """
        def change(module):
            move(module.BaseClient, "_build_request")
            move(module.SyncAPIClient, "request", "_process_response")
            move(module.AsyncAPIClient, "request", "_process_response")
    """,
    "other classes": """
        def change(module):
            module.SyncAPIClient = module.AsyncAPIClient = module.BaseClient = None
    """,
    "another module": """
        def change(module):
            sys.modules[module.__name__] = type(sys)(module.__name__)
    """,
}
"""What a later release may have done. Each keeps the SDK working."""

SIGNATURES = {
    "the options have another place": """
        def change(module):
            for name in ("SyncAPIClient", "AsyncAPIClient"):
                owner = getattr(module, name)
                inner = owner.request
                def request(self, *args, _inner=inner, **kwargs):
                    return _inner(self, *args, **kwargs)
                owner.request = request
            build = module.BaseClient._build_request
            def _build_request(self, *args, **kwargs):
                return build(self, *args, **kwargs)
            module.BaseClient._build_request = _build_request
    """,
    "options that we cannot read": """
        class Sealed:
            def __init__(self, options):
                self.inner = options
        def change(module):
            # Verbs seal the options, and what was request opens them again.
            for name in ("SyncAPIClient", "AsyncAPIClient"):
                owner = getattr(module, name)
                opened = owner.request
                def request(self, cast_to, options, _opened=opened, **kwargs):
                    return _opened(self, cast_to, options.inner, **kwargs)
                class Named:
                    def __init__(self, inner):
                        self.inner = inner
                    def __get__(self, instance, kind):
                        bound = self.inner.__get__(instance, kind)
                        return lambda cast_to, options, **kwargs: bound(cast_to, Sealed(options), **kwargs)
                owner.request = request
                for derived in owner.__subclasses__():
                    derived.request = Named(owner.request)
    """,
}


@pytest.fixture
def outcomes(_provider):
    """What the application gets, and what is logged, with an SDK that was changed."""

    def of(change, who):
        script = MOVE + "import sys\n" + textwrap.dedent(change) + CALLS
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, _provider.url, who],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "ANTHROPIC_OPEN_TELEMETRY": "false", "OTEL_PROMPTCACHE_PRICES": "off"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return of


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_hooked_was_moved(change, outcomes):
    """Every call gives what it gives without us, and one warning an SDK names what is missing."""
    without_us, _ = outcomes(change, "without us")
    with_us, logged = outcomes(change, "with us")
    assert with_us == without_us
    assert any("ok" in json.dumps(item) for item in without_us)
    ours = [line for line in logged if line.startswith("otel-promptcache: this version of ")]
    assert [line.split()[4] for line in ours] == ["anthropic", "openai"]
    assert all("doctor" in line for line in ours)


@pytest.mark.parametrize("change", SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_was_changed(change, outcomes):
    """The hooks stand, and whatever they cannot read is left alone."""
    without_us, _ = outcomes(change, "without us")
    with_us, logged = outcomes(change, "with us")
    assert with_us == without_us
    assert len([line for line in logged if line.startswith("otel-promptcache: ")]) <= 2
