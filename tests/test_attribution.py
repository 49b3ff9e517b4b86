"""What an application says about its calls, and where it holds."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from otel_promptcache import attribution
from otel_promptcache.attribution import attribute, calling_function, conversation, current, prompt, route, strategy
from otel_promptcache.model import Attribution

NOTHING = Attribution()


class TestStatements:
    """Each helper says one thing; nothing has been said at first."""

    @pytest.mark.parametrize(
        ("said", "holds"),
        [
            (lambda: route("/answer"), Attribution(route="/answer")),
            (lambda: conversation("c1"), Attribution(conversation="c1")),
            (lambda: strategy("short"), Attribution(strategy="short")),
            (lambda: prompt("greeting"), Attribution(prompt_name="greeting")),
            (lambda: prompt("greeting", "v2"), Attribution(prompt_name="greeting", prompt_version="v2")),
            (lambda: attribute(team="a", feature="b"), Attribution(keys=(("feature", "b"), ("team", "a")))),
            (attribute, NOTHING),
        ],
        ids=["route", "conversation", "strategy", "prompt", "version", "attribute", "nothing"],
    )
    def test_holds_inside(self, said: Callable[[], attribution.Said], holds: Attribution) -> None:
        """And neither before nor after."""
        assert current() == NOTHING
        with said():
            assert current() == holds
        assert current() == NOTHING

    def test_values_are_text(self) -> None:
        """Numbers and the like are written as they print."""
        with attribute(tenant=17, beta=True), conversation(5):  # type: ignore[arg-type]
            assert current() == Attribution(conversation="5", keys=(("beta", "True"), ("tenant", "17")))

    def test_nesting(self) -> None:
        """Statements of different kinds add up; of one kind, the inner one holds; of attribution, key by key."""
        with route("/a"), attribute(team="a", tenant="x"):
            with route("/b"), attribute(team="b"), strategy("s"):
                assert current() == Attribution(route="/b", strategy="s", keys=(("team", "b"), ("tenant", "x")))
            assert current() == Attribution(route="/a", keys=(("team", "a"), ("tenant", "x")))
        assert current() == NOTHING

    def test_a_new_prompt_has_no_old_version(self) -> None:
        """The version belongs to the name."""
        with prompt("greeting", "v2"), prompt("farewell"):
            assert current() == Attribution(prompt_name="farewell")

    def test_one_statement_used_again(self) -> None:
        """In a row, and within itself."""
        team = attribute(team="a")
        for _ in range(2):
            with team, route("/x"), team:
                assert current() == Attribution(route="/x", keys=(("team", "a"),))
            assert current() == NOTHING

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
    def test_errors_pass(self, error: type[BaseException]) -> None:
        """Untouched, and what was said is unsaid."""
        with pytest.raises(error), route("/a"):
            raise error
        assert current() == NOTHING


class TestDecorator:
    """The same statements, for whole functions."""

    def test_plain(self) -> None:
        """Arguments and result pass; name and docstring stay."""

        @attribute(team="a")
        def work(one: int, *, other: int) -> tuple[int, Attribution]:
            """Works."""
            return one + other, current()

        assert work(1, other=2) == (3, Attribution(keys=(("team", "a"),)))
        assert (work.__name__, work.__doc__) == ("work", "Works.")
        assert current() == NOTHING

    async def test_async(self) -> None:
        """It holds while the coroutine runs, not when it is made."""

        @route("/a")
        async def work() -> str:
            await asyncio.sleep(0)
            return current().route

        waiting = work()
        assert current() == NOTHING
        assert await waiting == "/a"
        assert current() == NOTHING

    def test_methods(self) -> None:
        """Of a class, in any mixture with the language's own decorators."""

        class Service:
            @route("/a")
            def ask(self) -> tuple[object, str]:
                return self, current().route

            @staticmethod
            @route("/b")
            def tell() -> str:
                return current().route

        service = Service()
        assert service.ask() == (service, "/a")
        assert service.tell() == "/b"

    def test_recursion(self) -> None:
        """Each call has a block of its own."""

        @attribute(depth="in")
        def down(levels: int) -> int:
            return down(levels - 1) if levels else len(current().keys)

        assert down(50) == 1
        assert current() == NOTHING

    def test_errors_pass(self) -> None:
        """Untouched."""

        @route("/a")
        def work() -> None:
            raise LookupError("x")

        with pytest.raises(LookupError, match="x"):
            work()
        assert current() == NOTHING

    def test_generators(self) -> None:
        """It holds in the body, and not in between for who iterates."""

        @route("/a")
        def stream() -> Iterator[str]:
            yield current().route
            yield current().route

        assert list(stream()) == ["/a", "/a"]

    async def test_async_generators(self) -> None:
        """Likewise."""

        @route("/a")
        async def stream() -> AsyncIterator[str]:
            yield current().route

        assert [item async for item in stream()] == ["/a"]


class TestConcurrency:
    """What is said here is not heard next door."""

    async def test_tasks(self) -> None:
        """A task takes along what held when it was made, and says nothing to its siblings."""

        async def work(name: str) -> tuple[str, str]:
            with attribute(user=name):
                for _ in range(5):
                    await asyncio.sleep(0)
                return current().route, dict(current().keys)["user"]

        with route("/a"):
            results = await asyncio.gather(*(work(str(number)) for number in range(20)))
        assert results == [("/a", str(number)) for number in range(20)]
        assert current() == NOTHING

    async def test_to_thread(self) -> None:
        """``asyncio.to_thread`` copies the context."""
        with route("/a"):
            assert await asyncio.to_thread(lambda: current().route) == "/a"

    def test_threads(self) -> None:
        """A bare thread hears nothing; with a copied context it hears what held then."""
        with route("/a"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(current).result() == NOTHING
            assert pool.submit(contextvars.copy_context().run, current).result() == Attribution(route="/a")

    def test_a_statement_shared_by_threads(self) -> None:
        """A constant of a module, entered by two threads at once: each gets back what was its own."""
        billing = attribute(team="billing")
        inside, left = threading.Barrier(2), threading.Event()
        after: dict[str, Attribution] = {}

        def work(tenant: str, last: bool) -> None:
            with attribute(tenant=tenant):
                with billing:
                    inside.wait(30)
                    if last:
                        left.wait(30)
                after[tenant] = current()
                left.set()

        threads = [threading.Thread(target=work, args=(tenant, tenant == "acme")) for tenant in ("acme", "globex")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert after == {tenant: Attribution(keys=(("tenant", tenant),)) for tenant in ("acme", "globex")}

    def test_a_generator_that_is_closed_elsewhere(self) -> None:
        """By another context, which has said other things: they go on holding."""

        def stream() -> Iterator[str]:
            with route("/a"):
                yield current().route
                yield current().route

        running = stream()
        assert contextvars.copy_context().run(next, running) == "/a"
        with route("/b"):
            running.close()  # type: ignore[attr-defined]
            assert current() == Attribution(route="/b")
        assert current() == NOTHING

    def test_generators_that_take_turns(self) -> None:
        """However they are closed, nothing is left over."""

        def stream(name: str) -> Iterator[str]:
            with route(name):
                yield current().route

        one, other = stream("/a"), stream("/b")
        assert (next(one), next(other)) == ("/a", "/b")
        assert list(one) == []
        assert list(other) == []
        assert current() == NOTHING

    async def test_an_async_generator_that_is_dropped(self) -> None:
        """The loop closes it in a task of its own."""

        async def stream() -> AsyncIterator[int]:
            with route("/a"):
                yield 1
                yield 2

        async def first() -> None:
            async for _ in stream():
                break

        await asyncio.create_task(first())
        gc.collect()
        await asyncio.sleep(0)
        assert current() == NOTHING


class TestCallingFunction:
    """The route where nobody named one: the innermost frame of the application."""

    def test_module_and_function(self) -> None:
        """Of whoever calls."""
        assert calling_function() == f"{__name__}:test_module_and_function"

    def test_the_standard_library_is_passed_over(self) -> None:
        """The caller behind it is found; where there is none, nothing is."""
        assert mock.Mock(side_effect=calling_function)() == f"{__name__}:test_the_standard_library_is_passed_over"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(calling_function).result() == ""

    def test_code_without_a_file(self) -> None:
        """Is nobody's; its caller is found."""
        scope: dict[str, Any] = {"calling_function": calling_function}
        exec(compile("def made(): return calling_function()", "<string>", "exec"), scope)
        assert scope["made"]() == f"{__name__}:test_code_without_a_file"

    @pytest.mark.parametrize(
        ("folder", "ours"),
        [
            ("/app/service", True),
            ("/usr/lib/python3/dist-packages/x", False),
            ("/venv/lib/python3.11/site-packages/x", False),
        ],
    )
    def test_by_the_file(self, folder: str, ours: bool) -> None:
        """Installed packages are libraries."""
        scope: dict[str, Any] = {"calling_function": calling_function, "__name__": "made"}
        exec(compile("def asks(): return calling_function()", f"{folder}/made.py", "exec"), scope)
        assert scope["asks"]() == ("made:asks" if ours else f"{__name__}:test_by_the_file")

    def test_too_deep(self) -> None:
        """The search has an end."""
        scope: dict[str, Any] = {"calling_function": calling_function}
        code = "def down(n): return down(n - 1) if n else calling_function()"
        exec(compile(code, "/venv/site-packages/x.py", "exec"), scope)
        assert scope["down"](40) == f"{__name__}:test_too_deep"
        assert scope["down"](100) == ""
