"""The pytest plugin, run as users run it: inside a pytest of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anthropic  # noqa: F401 - once for all the runs in this process
import pytest

import otel_promptcache.emulator
import otel_promptcache.testing  # noqa: F401
from otel_promptcache.pytest_plugin import UPDATE

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cache_tests"

AGENT = """
import anthropic
import pytest

SYSTEM = "You sell lamps.\\nBe kind.\\n" + "abc " * 2000


def ask(system, *turns, client=None):
    said = [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
    block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
    client = client or anthropic.Anthropic()
    return client.messages.create(model="claude-sonnet-4-6", max_tokens=50, system=[block], messages=said)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose tests import ``ask`` and ``SYSTEM``."""
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        addopts = ["-p", "no:asyncio", "--strict-markers", "--strict-config"]
        """
    )
    pytester.makepyfile(agent=AGENT)
    return pytester


def write(project: pytest.Pytester, **files: str) -> None:
    """Test files, each with what it needs of ``agent``."""
    head = "import pytest\nfrom agent import SYSTEM, ask\n\n"
    project.makepyfile(**{name: head + textwrap.dedent(source) for name, source in files.items()})


def snapshots(project: pytest.Pytester) -> dict[str, Any]:
    """The tests in the snapshot file."""
    found: dict[str, Any] = json.loads((project.path / "promptcache.snapshot.json").read_text())["tests"]
    return found


STABLE = """
    def test_answer(promptcache, promptcache_emulator):
        ask(SYSTEM, "one")
        promptcache.assert_matches_snapshot()
"""


class TestFixtures:
    """``promptcache`` and ``promptcache_emulator``."""

    def test_a_conversation(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients that name no endpoint talk to the emulator; one test knows nothing of another; time is moved."""
        write(
            project,
            test_it="""
            def test_cached(promptcache, promptcache_emulator):
                ask(SYSTEM, "one")
                promptcache.assert_cached(ask(SYSTEM, "one", "yes", "two"))
                assert len(promptcache_emulator.requests) == 2

            def test_begins_empty(promptcache, promptcache_emulator):
                ask(SYSTEM, "one")
                assert promptcache.hit_ratio == 0
                promptcache_emulator.clock.advance(301)
                ask(SYSTEM, "one")
                assert promptcache.calls[1].reason == "ttl_expired"

            def test_no_real_key_is_at_hand(promptcache_emulator):
                import os
                assert os.environ["ANTHROPIC_API_KEY"] == "no-key-needed"
                assert "ANTHROPIC_AUTH_TOKEN" not in os.environ
            """,
        )
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-real")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "real")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        project.runpytest().assert_outcomes(passed=3)

    def test_a_failure(self, project: pytest.Pytester) -> None:
        """The traceback ends at the test's own line, and says what a person needs."""
        write(
            project,
            test_it="""
            def test_time(promptcache, promptcache_emulator):
                for minute in (10, 11):
                    ask(f"You sell lamps.\\nBe kind.\\nIt is 2026-11-21 14:{minute}.\\n" + "abc " * 2000, "one")
                promptcache.assert_hit_ratio(min=0.8)
            """,
        )
        result = project.runpytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                ">*promptcache.assert_hit_ratio(min=0.8)",
                "E *hit ratio 0.000 is below 0.8: 0 of * input tokens were read from cache in 2 calls",
                "E *call 2 (agent:ask) differs from call 1 at `system[[]0]`, line 3: timestamp.*",
                "E *system_changed: *",
                "E *fix: *",
                "E *lost: * tokens that were in the cache, 0.00* USD",
                "test_it.py:8: AssertionError",
            ]
        )
        result.stdout.no_fnmatch_line("*recording.py*")

    def test_the_environment_of_the_machine(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leads no client elsewhere, and adds nothing to its requests."""
        write(
            project,
            test_it="""
            import os
            import anthropic
            import openai
            from google import genai

            def test_clients(promptcache_emulator):
                gemini = genai.Client()
                assert not gemini.vertexai
                gemini.models.generate_content(model="gemini-2.5-flash", contents="one")
                ask(SYSTEM, "one")
                openai.OpenAI().chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "one"}])
                assert len(promptcache_emulator.requests) == 3
                for client in (anthropic.Anthropic(), openai.OpenAI()):
                    assert "x-of-the-machine" not in {name.lower() for name in client.default_headers}
            """,
        )
        monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "none")
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "nowhere")
        for name in ("ANTHROPIC_CUSTOM_HEADERS", "OPENAI_CUSTOM_HEADERS"):
            monkeypatch.setenv(name, "X-Of-The-Machine: yes")
        project.runpytest().assert_outcomes(passed=1)

    def test_a_provider_that_fails(self, project: pytest.Pytester) -> None:
        """Is what the assertion names: no setting would have made it report token counts."""
        write(
            project,
            test_it="""
            import anthropic

            def test_answer(promptcache, promptcache_emulator):
                promptcache_emulator.fail("500")
                with pytest.raises(anthropic.InternalServerError):
                    ask(SYSTEM, "one", client=anthropic.Anthropic(max_retries=0))
                promptcache.assert_hit_ratio(min=0.5)
            """,
        )
        result = project.runpytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["E *the hit ratio is unknown, not 0.5: all of 1 call failed", "E *call 1 failed: *"]
        )
        result.stdout.no_fnmatch_line("*stream_options*")

    def test_options_of_the_emulator(self, project: pytest.Pytester) -> None:
        """By a fixture that a project overrides."""
        write(
            project,
            test_it="""
            from otel_promptcache.emulator import Reply

            @pytest.fixture
            def promptcache_emulator_options():
                return {"answer": lambda body: Reply("forty-two")}

            def test_answer(promptcache_emulator):
                assert ask(SYSTEM, "one").content[0].text == "forty-two"
            """,
        )
        project.runpytest().assert_outcomes(passed=1)

    def test_async_tests(self, project: pytest.Pytester) -> None:
        """Under any plugin that runs them."""
        write(
            project,
            test_it="""
            import anthropic

            async def test_answer(promptcache, promptcache_emulator):
                async with anthropic.AsyncAnthropic() as client:
                    await ask(SYSTEM, "one", client=client)
                    promptcache.assert_cached(await ask(SYSTEM, "two", client=client))
            """,
        )
        settings = ("addopts=", "asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
        options = [word for setting in settings for word in ("-o", setting)]
        project.runpytest("-p", "asyncio", *options).assert_outcomes(passed=1)

    def test_unittest_classes(self, project: pytest.Pytester) -> None:
        """By an autouse fixture, as pytest has it for them; snapshots too."""
        write(
            project,
            test_it="""
            import unittest

            class TestAnswer(unittest.TestCase):
                @pytest.fixture(autouse=True)
                def _promptcache(self, promptcache, promptcache_emulator):
                    self.promptcache = promptcache

                def test_cached(self):
                    ask(SYSTEM, "one")
                    ask(SYSTEM, "two")
                    self.promptcache.assert_cached(1)
                    self.promptcache.assert_matches_snapshot()
            """,
        )
        project.runpytest(UPDATE).assert_outcomes(passed=1)
        project.runpytest().assert_outcomes(passed=1)

    def test_without_the_emulators_packages(self, project: pytest.Pytester) -> None:
        """Its fixture says what to install; the other one goes on."""
        write(
            project,
            test_it="""
            def test_emulator(promptcache_emulator):
                pass

            def test_recording(promptcache):
                assert promptcache.calls == []
            """,
            conftest="""
            import sys
            sys.modules["uvicorn"] = None
            for name in [name for name in sys.modules if name.startswith("otel_promptcache.emulator")]:
                del sys.modules[name]
            """,
        )
        result = project.runpytest_subprocess()
        result.assert_outcomes(errors=1, passed=1)
        result.stdout.fnmatch_lines(["*the emulator needs uvicorn: pip install 'otel-promptcache[[]emulator]'*"])


class TestWeight:
    """What it costs where nobody uses it."""

    def test_nothing_of_weight_is_imported(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not by loading the plugin, not by collecting, not by a run that uses no fixture of ours."""
        project.makepyfile(
            """
            import sys

            def test_modules():
                heavy = {"wrapt", "genai_prices", "pydantic", "opentelemetry", "starlette", "uvicorn", "anthropic"}
                assert heavy & set(sys.modules) == set()
                ours = {name for name in sys.modules if name.startswith("otel_promptcache.")}
                assert not ours & {"otel_promptcache.testing", "otel_promptcache.snapshot", "otel_promptcache.observer"}
            """
        )
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        result = project.runpytest_subprocess("-p", "promptcache")
        result.assert_outcomes(passed=1)

    def test_nothing_is_asked_of_the_project(self, project: pytest.Pytester) -> None:
        """Not of its configuration, not of its tests, where no fixture of ours is used."""
        project.makeconftest(
            """
            from otel_promptcache import pytest_plugin

            def refuse(*_):
                raise AssertionError

            pytest_plugin.Shelf = refuse
            """
        )
        project.makepyfile("def test_one(): pass\n\n\ndef test_two(): pass")
        project.runpytest_subprocess("-k", "one").assert_outcomes(passed=1, deselected=1)

    def test_can_be_left_out(self, project: pytest.Pytester) -> None:
        """``-p no:promptcache``."""
        write(project, test_it="def test_answer(promptcache): pass")
        result = project.runpytest_subprocess("-p", "no:promptcache")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*fixture 'promptcache' not found"])

    def test_an_application_that_starts_us_before_pytest(self, project: pytest.Pytester) -> None:
        """By environment or launcher: pytest does not warn that it comes too late to rewrite our asserts."""
        project.makeconftest("import otel_promptcache, pytest\npytest.register_assert_rewrite('otel_promptcache')")
        project.makepyfile("def test_nothing(): pass")
        project.runpytest("-W", "error").assert_outcomes(passed=1)

    def test_its_options_are_explained(self, project: pytest.Pytester) -> None:
        """In ``pytest --help``, and its fixtures in ``pytest --fixtures``."""
        assert "--promptcache-update" in (shown := project.runpytest("--help").stdout.str())
        assert "promptcache_snapshot (string):" in shown
        shown = project.runpytest("--fixtures").stdout.str()
        assert all(f"{name} -- " in shown for name in ("promptcache", "promptcache_emulator"))


class TestSnapshots:
    """``assert_matches_snapshot`` and ``--promptcache-update``."""

    def test_a_test_without_one_fails(self, project: pytest.Pytester) -> None:
        """And writes nothing: in a pipeline nobody would commit it."""
        write(project, test_it=STABLE)
        result = project.runpytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*test_it.py::test_answer has no snapshot in promptcache.snapshot.json yet; make one: pytest *-update"]
        )
        assert not (project.path / "promptcache.snapshot.json").exists()

    def test_a_change_fails_with_its_place_until_it_is_taken_over(self, project: pytest.Pytester) -> None:
        """Path, line and class of difference; then the flag, and all is well again."""
        write(project, test_it=STABLE)
        result = project.runpytest(UPDATE)
        result.stdout.fnmatch_lines(["promptcache: promptcache.snapshot.json: 1 added, 0 renewed, 0 removed"])
        project.runpytest().assert_outcomes(passed=1)
        write(project, test_it=STABLE.replace("SYSTEM,", 'SYSTEM.replace("kind", "very kind"),'))
        result = project.runpytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "E *the stable prefix of test_it.py::test_answer is not the one in promptcache.snapshot.json",
                "E *prefix 1 differs at `system[[]0]` line 2 (edited): edited. Text was rewritten.",
                "E *If this is meant, renew the snapshot and commit it: pytest --promptcache-update",
                "test_it.py:*: AssertionError",
            ]
        )
        key = json.loads((project.path / "promptcache.snapshot.json").read_text())["key"]
        project.runpytest(UPDATE).stdout.fnmatch_lines(["*: 0 added, 1 renewed, 0 removed"])
        project.runpytest().assert_outcomes(passed=1)
        assert json.loads((project.path / "promptcache.snapshot.json").read_text())["key"] == key

    def test_a_lost_breakpoint(self, project: pytest.Pytester) -> None:
        """The text is the same, and nothing is cached any more."""
        write(project, test_it=STABLE)
        project.runpytest(UPDATE)
        project.makepyfile(agent=AGENT.replace(', "cache_control": {"type": "ephemeral"}', ""))
        result = project.runpytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "E *prefix 1 differs at `system[[]0].cache_control` (removed)",
                "E *breakpoint_missing: no entry ends here any more; *",
            ]
        )

    def test_no_words_in_the_file_or_the_output(self, project: pytest.Pytester) -> None:
        """Hashes only."""
        write(project, test_it=STABLE)
        project.runpytest(UPDATE)
        project.makepyfile(agent=AGENT.replace("lamps", "chairs"))
        output = project.runpytest("--tb=line").stdout.str()
        written = (project.path / "promptcache.snapshot.json").read_text()
        assert not any(word in text for word in ("lamps", "chairs", "abc abc") for text in (output, written))

    def test_nothing_to_keep(self, project: pytest.Pytester) -> None:
        """A call with nothing in front of its messages would match for ever."""
        write(
            project,
            test_it="""
            import anthropic

            def test_answer(promptcache, promptcache_emulator):
                anthropic.Anthropic().messages.create(
                    model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "one"}]
                )
                promptcache.assert_matches_snapshot()
            """,
        )
        project.runpytest(UPDATE).stdout.fnmatch_lines(["E *there is no stable prefix"])

    def test_several_in_one_test(self, project: pytest.Pytester) -> None:
        """Told apart by name."""
        write(
            project,
            test_it="""
            def test_answer(promptcache, promptcache_emulator):
                ask(SYSTEM, "one")
                promptcache.assert_matches_snapshot("first")
                ask("You write poems.", "one")
                promptcache.assert_matches_snapshot("second")
            """,
        )
        project.runpytest(UPDATE).assert_outcomes(passed=1)
        assert {name: len(found) for name, found in snapshots(project).items()} == {
            "test_it.py::test_answer#first": 1,
            "test_it.py::test_answer#second": 2,
        }
        project.runpytest().assert_outcomes(passed=1)

    def test_twice_in_one_test(self, project: pytest.Pytester) -> None:
        """Under one name and with other prefixes can never hold: it is refused when the snapshot is made."""
        twice = """
            def test_answer(promptcache, promptcache_emulator):
                ask(SYSTEM, "one")
                promptcache.assert_matches_snapshot()
                ask({second}, "one")
                promptcache.assert_matches_snapshot()
        """
        write(project, test_it=twice.format(second="'You write poems.'"))
        result = project.runpytest(UPDATE)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E *was called twice in test_it.py::test_answer, *: give each a name="])
        assert not (project.path / "promptcache.snapshot.json").exists()
        write(project, test_it=twice.format(second="SYSTEM"))
        project.runpytest(UPDATE).assert_outcomes(passed=1)
        project.runpytest().assert_outcomes(passed=1)

    def test_what_is_no_more_is_removed(self, project: pytest.Pytester) -> None:
        """Tests that are gone, and files; not those that a run has left out."""
        more = STABLE + STABLE.replace("test_answer", "test_other")
        write(project, test_one=more, test_two=STABLE)
        project.runpytest(UPDATE)
        for arguments in (("-k", "answer"), ("test_one.py::test_answer",), ("test_two.py",)):
            project.runpytest(UPDATE, *arguments)
            assert len(snapshots(project)) == 3
        write(project, test_one=STABLE)
        (project.path / "test_two.py").unlink()
        project.runpytest(UPDATE).stdout.fnmatch_lines(["*: 0 added, 0 renewed, 2 removed"])
        assert list(snapshots(project)) == ["test_one.py::test_answer"]

    def test_a_failed_test_keeps_its_snapshot(self, project: pytest.Pytester) -> None:
        """An update with a broken test loses nothing."""
        write(project, test_it=STABLE)
        project.runpytest(UPDATE)
        write(project, test_it=STABLE.replace("ask(", "raise ValueError\n        ask("))
        project.runpytest(UPDATE).assert_outcomes(failed=1)
        assert list(snapshots(project)) == ["test_it.py::test_answer"]

    def test_a_merge_that_went_wrong(self, project: pytest.Pytester) -> None:
        """Is named, with what to do."""
        write(project, test_it=STABLE)
        (project.path / "promptcache.snapshot.json").write_text("<<<<<<< HEAD\n{}\n")
        result = project.runpytest()
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*promptcache.snapshot.json is no snapshot*take either side*"])

    def test_another_file(self, project: pytest.Pytester) -> None:
        """By the setting ``promptcache_snapshot``."""
        write(project, test_it=STABLE)
        project.runpytest(UPDATE, "-o", "promptcache_snapshot=cache.json").assert_outcomes(passed=1)
        assert (project.path / "cache.json").exists()

    def test_a_folder_that_does_not_exist(self, project: pytest.Pytester) -> None:
        """Is made."""
        write(project, test_it=STABLE)
        setting = ("-o", "promptcache_snapshot=snapshots/of/cache.json")
        project.runpytest(UPDATE, *setting).stdout.fnmatch_lines(["promptcache: snapshots*cache.json: 1 added, *"])
        project.runpytest(*setting).assert_outcomes(passed=1)

    def test_a_file_that_cannot_be_renewed(self, project: pytest.Pytester) -> None:
        """Is refused in a sentence, before a test runs."""
        write(project, test_it=STABLE)
        (project.path / "promptcache.snapshot.json").write_text("<<<<<<< HEAD\n{}\n")
        result = project.runpytest(UPDATE)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: promptcache: promptcache.snapshot.json is no snapshot *"])
        assert "Traceback" not in result.stderr.str() + result.stdout.str()

    def test_a_file_on_another_drive(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of Windows has no relative path: it is shown as it is."""
        write(project, test_it=STABLE)
        relpath = os.path.relpath

        def on_windows(path: Any, *start: Any) -> str:
            if str(path).endswith("snapshot.json"):
                raise ValueError("path is on mount 'D:', start on mount 'C:'")
            return str(relpath(path, *start))

        monkeypatch.setattr(os.path, "relpath", on_windows)
        whole = project.path / "promptcache.snapshot.json"
        project.runpytest(UPDATE).stdout.fnmatch_lines([f"promptcache: {whole}: 1 added, 0 renewed, 0 removed"])
        project.runpytest("--collect-only").assert_outcomes()

    def test_what_production_calls_it(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under the deployment's key where there is one; where there is none the run says what is missing."""
        write(project, test_it=STABLE)
        result = project.runpytest(UPDATE)
        result.stdout.fnmatch_lines(["promptcache: without OTEL_PROMPTCACHE_HASH_KEY *"])
        monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", "secret-of-the-deployment")
        project.runpytest(UPDATE).stdout.fnmatch_lines(["*: 0 added, 1 renewed, 0 removed"])
        (found,) = snapshots(project)["test_it.py::test_answer"]
        assert found["production"]["fingerprint"].startswith("system:")
        assert "secret-of" not in (project.path / "promptcache.snapshot.json").read_text()

    @pytest.mark.slow
    def test_many_workers_write_one_file(self, project: pytest.Pytester) -> None:
        """Under pytest-xdist: one key, every test, nothing lost; and it holds without xdist."""
        pytest.importorskip("xdist")
        write(
            project,
            test_one="""
            @pytest.mark.parametrize("number", range(4))
            def test_answer(number, promptcache, promptcache_emulator):
                ask(f"{number}\\n" + SYSTEM, "one")
                promptcache.assert_matches_snapshot()
            """,
            test_two=STABLE,
        )
        result = project.runpytest_subprocess(UPDATE, "-n", "2")
        result.assert_outcomes(passed=5)
        result.stdout.fnmatch_lines(["promptcache: promptcache.snapshot.json: 5 added, 0 renewed, 0 removed"])
        assert len(snapshots(project)) == 5
        project.runpytest().assert_outcomes(passed=5)
        (project.path / "test_two.py").unlink()
        project.runpytest_subprocess(UPDATE, "-n", "2").stdout.fnmatch_lines(["*: 0 added, 0 renewed, 1 removed"])
        assert len(snapshots(project)) == 4


@pytest.fixture(scope="module")
def shown() -> str:
    """What pytest prints of the example."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
class TestExample:
    """The project in ``examples/``, run as it stands there."""

    def test_all_but_one_pass(self, shown: str) -> None:
        """The one that is there to show a failure."""
        assert "FAILED tests/test_support.py::test_a_time_in_the_instructions" in shown
        assert "1 failed, 3 passed" in shown

    @pytest.mark.parametrize(
        "words",
        [
            "hit ratio 0.000 is below 0.7: 0 of 30,604 input tokens were read from cache in 5 calls",
            "call 2 (support:ask) differs from call 1 at `system[0]`, line 3: timestamp.",
            "fix: Move what changes behind the stable text",
            "lost: 6,095 tokens that were in the cache, 0.021028 USD",
            "and likewise: call 3, 4, 5",
        ],
    )
    def test_the_failure_says_what_to_change(self, shown: str, words: str) -> None:
        """Sum, place, class, fix, loss, and who met it too."""
        assert words in shown

    def test_the_documentation_shows_what_is_printed(self, shown: str) -> None:
        """Line by line."""
        page = (EXAMPLE.parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
        lines = [line for line in page.splitlines() if line.startswith("E  ")]
        assert len(lines) == 6
        assert [line for line in lines if line not in shown.splitlines()] == []
