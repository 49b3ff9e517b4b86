"""The proof against reality: what agrees, what does not, what counts as an explanation, and that it can fail."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.cli import main
from otel_promptcache.emulator.cache import Cache, Entry, Ticket
from otel_promptcache.emulator.calibration import Calibration, text_of
from otel_promptcache.emulator.recording import RecordingError, sequence, sequences
from otel_promptcache.emulator.survival import survival
from otel_promptcache.emulator.verify import Finding, Start, Verdict, verify
from otel_promptcache.fingerprint import common_start
from otel_promptcache.providers import openai_chat, rules

Body = dict[str, Any]

RULE = "Answer politely and name the page of the manual that you rely on. " * 100


def exchange(endpoint: str, body: Body, usage: Body, **more: Any) -> Body:
    response = {"status": 200, "headers": {}, "body": {"usage": usage}}
    return {"endpoint": endpoint, "request_body": body, "response": response, **more}


def message(question: str, read: int, written: int, fresh: int = 3, **more: Any) -> Body:
    """A call of Anthropic's that marks its instructions, as recorded."""
    system = [{"type": "text", "text": RULE, "cache_control": {"type": "ephemeral"}}]
    body = {"model": "claude-sonnet-4-6", "system": system, "messages": [{"role": "user", "content": question}]}
    usage = {"input_tokens": fresh, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    return exchange("https://api.anthropic.com/v1/messages", body, usage, **more)


def chat(question: str, total: int, read: int, system: str = RULE, **more: Any) -> Body:
    """A call of Chat Completions, as recorded."""
    said = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    usage = {"prompt_tokens": total, "prompt_tokens_details": {"cached_tokens": read}}
    return exchange("/v1/chat/completions", {"model": "tiny", "messages": said}, usage, **more)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recording into a folder of recordings."""

    def write(*exchanges: Body, provider: str = "anthropic", version: str = "") -> Path:
        folder = tmp_path / "cassettes"
        folder.mkdir(exist_ok=True)
        found = {"provider": provider, "model": "any", "source": {"version": version}, "sequence": exchanges}
        file = folder / f"{provider}.json"
        file.write_text(json.dumps(found))
        return file

    return write


def found(file: Path) -> Finding:
    return verify(sequence(file))


@pytest.fixture(scope="module")
def findings(recorded: Path) -> dict[str, Finding]:
    """All that is recorded, by name."""
    return {one.name: verify(one) for one in sequences(recorded)}


class TestPromised:
    """Providers whose hits are promised are met exactly."""

    def test_a_write_and_its_read(self, record: Callable[..., Path]) -> None:
        """The second request reads what the first wrote, and not a token else."""
        finding = found(record(message("Where?", 0, 1500), message("When?", 1500, 0)))
        assert (finding.verdict, finding.start, finding.compared) == (Verdict.AGREES, Start.EMPTY, 2)

    @pytest.mark.parametrize(
        ("read", "written"),
        [(0, 1500), (0, 0), (1499, 1)],
        ids=["wrote it again", "neither", "stopped before the mark"],
    )
    def test_anything_else_disagrees(self, record: Callable[..., Path], read: int, written: int) -> None:
        """One token is enough."""
        assert found(record(message("Where?", 0, 1500), message("When?", read, written))).verdict is Verdict.DISAGREES

    def test_a_hit_over_the_lifetime_disagrees(self, record: Callable[..., Path]) -> None:
        """The clock is set to the recorded times."""
        within, over = (
            found(record(message("Where?", 0, 1500, t=0), message("When?", 1500, 0, t=after))).verdict
            for after in (300, 301)
        )
        assert (within, over) == (Verdict.AGREES, Verdict.DISAGREES)

    def test_another_prompt_reads_nothing(self, record: Callable[..., Path]) -> None:
        """A read is predicted from what was sent before, not taken from the record."""
        other = message("Where?", 1500, 0)
        other["request_body"]["system"][0]["text"] = "Other. " + RULE
        assert found(record(message("Where?", 0, 1500), message("Where?", 1500, 0))).verdict is Verdict.AGREES
        assert found(record(message("Where?", 0, 1500), message("Where?", 0, 1500), other)).verdict is Verdict.DISAGREES

    def test_blocks_are_as_large_as_the_server_was_told(self, record: Callable[..., Path]) -> None:
        """1,300 common tokens are ten blocks of 128 or 81 of 16."""
        calls = chat("a" * 120, 1350, 0), chat("b" * 120, 1350, 1280)
        assert found(record(*calls, provider="vllm", version="vLLM, block size 128")).verdict is Verdict.AGREES
        assert found(record(*calls, provider="vllm", version="vLLM")).verdict is Verdict.DISAGREES


class TestPossible:
    """Providers that promise nothing may read less."""

    @pytest.mark.parametrize(
        ("read", "verdict"),
        [(0, Verdict.AGREES), (1024, Verdict.AGREES), (1280, Verdict.AGREES), (1100, Verdict.DISAGREES)],
    )
    def test_whole_granules_up_to_the_most(self, record: Callable[..., Path], read: int, verdict: Verdict) -> None:
        """OpenAI rounds down to 128."""
        calls = chat("Where?", 1400, 0), chat("Where?", 1400, read)
        for call in calls:
            call["request_body"]["model"] = "gpt-4o-mini"
        assert found(record(*calls, provider="openai")).verdict is verdict


class TestStart:
    """What the cache held before is not known."""

    def test_a_rerun(self, record: Callable[..., Path]) -> None:
        """The first request reads already, and everything fits if the same had been sent before."""
        finding = found(record(message("Where?", 1500, 0), message("When?", 1500, 0)))
        assert (finding.verdict, finding.start) == (Verdict.AGREES, Start.RERUN)

    def test_something_else(self, record: Callable[..., Path]) -> None:
        """It cannot be met, but the record itself shows why: more was read than was ever sent."""
        finding = found(record(message("Where?", 1200, 300), message("When?", 1500, 0)))
        assert finding.verdict is Verdict.EXPLAINED
        assert "before the recording" in finding.why

    def test_no_licence_for_later_requests(self, record: Callable[..., Path]) -> None:
        """A miss of what the recording itself wrote is explained by nothing."""
        calls = message("Where?", 1200, 300), message("When?", 1500, 0), message("Who?", 0, 1500)
        assert found(record(*calls)).verdict is Verdict.DISAGREES


class TestCommand:
    """``emulate --verify``."""

    def test_the_status_tells(self, record: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
        """0 when everything agrees or is explained, 1 when not; the last line is the sum."""
        folder = str(record(message("Where?", 0, 1500), message("When?", 1500, 0)).parents[1])
        assert main(["emulate", "--verify", folder]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("sum: 1 recordings: 1 agree")
        record(message("Where?", 0, 1500), message("When?", 0, 1500))
        assert main(["emulate", "--verify", folder, "--format", "json"]) == 1
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["type"] for line in lines] == ["sequence", "provider", "sum"]
        assert (lines[-1]["disagree"], lines[-1]["holds"]) == (1, False)
        assert lines[0]["misfits"] == [
            "request 1: disagrees: recorded read 0, written 1500; emulated read 1500, written 0"
        ]

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"provider": "x", "model": "y", "sequence": 5}'])
    def test_a_broken_file(self, record: Callable[..., Path], content: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Is named."""
        file = record()
        file.write_text(content)
        assert main(["emulate", "--verify", str(file.parents[1])]) == 2
        assert str(file) in capsys.readouterr().err

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        """Proves nothing, and says so."""
        with pytest.raises(RecordingError, match="no recordings"):
            list(sequences(tmp_path))

    def test_no_text_of_a_prompt_is_shown(
        self, record: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Not even of one that disagrees."""
        folder = str(record(message("secret", 0, 1500), message("secret", 0, 1500)).parents[1])
        for form in ("text", "json", "markdown"):
            main(["emulate", "--verify", folder, "--format", form])
        assert not any(word in capsys.readouterr().out for word in ("secret", "politely"))


class TestCalibration:
    """Tokens made from reported counts."""

    def prompts(self, *questions: str) -> list[Any]:
        system = {"role": "system", "content": RULE}
        return [openai_chat.prompt({"messages": [system, {"role": "user", "content": one}]}) for one in questions]

    def lengths(self, prompt: Any) -> list[int]:
        return [len(segment.value) for segment in prompt.segments]

    def test_totals_are_as_reported(self) -> None:
        """Whatever is spread between the places."""
        prompts = self.prompts("Where?", "When did it begin?")
        calibration = Calibration([text_of(prompt) for prompt in prompts])
        for number, total in enumerate((1500, 1511)):
            calibration.pin(number, len(calibration.texts[number].whole), total)
        counted = [sum(self.lengths(calibration.calibrated(number, one))) for number, one in enumerate(prompts)]
        assert counted == [1500, 1511]

    def test_common_beginnings_have_common_tokens(self) -> None:
        """Up to where they part, and no further."""
        prompts = self.prompts("Where?", "Who?")
        calibration = Calibration([text_of(prompt) for prompt in prompts])
        calibration.pin(0, len(calibration.texts[0].whole), 1500)
        calibration.pin(1, len(calibration.texts[1].whole), 1498)
        one, other = (
            "".join(str(segment.value) for segment in calibration.calibrated(number, prompt).segments)
            for number, prompt in enumerate(prompts)
        )
        assert common_start(one, other) == calibration.shared(0, 1) == calibration.shared(1, 0)


class TestRecorded:
    """Real traffic."""

    def test_nothing_disagrees(self, findings: dict[str, Finding]) -> None:
        """And most of it agrees: an empty folder must not pass for a good one."""
        verdicts = [finding.verdict for finding in findings.values()]
        assert [name for name, finding in findings.items() if finding.verdict is Verdict.DISAGREES] == []
        assert verdicts.count(Verdict.AGREES) >= 0.75 * len(verdicts) > 40

    @pytest.mark.parametrize(
        ("start", "least"),
        [("anthropic_", 15), ("gemini_rig_", 5), ("openai_", 7), ("deepseek_", 5), ("groq_", 2), ("mistral_", 4)],
    )
    def test_by_provider(self, findings: dict[str, Finding], start: str, least: int) -> None:
        """Recordings that agree."""
        names = [name for name in findings if name.startswith(f"cassettes/{start}")]
        assert sum(findings[name].verdict is Verdict.AGREES for name in names) >= least

    @pytest.mark.parametrize(("engine", "least"), [("sglang", 18), ("vllm", 18), ("llama_cpp", 11)])
    def test_engines_request_by_request(self, findings: dict[str, Finding], engine: str, least: int) -> None:
        """Every request that the recording allows to be foretold, to the token."""
        finding = findings[f"selfhosted/{engine}_live"]
        assert sum(one.to_the_token for one in finding.outcomes) >= least

    @pytest.mark.parametrize(
        ("provider", "change"),
        [
            ("anthropic", {"minimum": 20_000}),
            ("anthropic", {"needs_marker": False, "minimum": 10**6}),
            ("vllm", {"recomputed": 400}),
            ("sglang", {"recomputed": 0}),
            ("llama_cpp", {"recomputed": 0}),
        ],
    )
    def test_wrong_rules_are_found_out(
        self, recorded: Path, provider: str, change: Body, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proof would fail if a rule were another."""
        rows = tuple(dataclasses.replace(row, **change) if row.provider == provider else row for row in rules.ROWS)
        monkeypatch.setattr(rules, "ROWS", rows)
        rules.rules_for.cache_clear()
        try:
            of = [one for one in sequences(recorded) if one.provider == provider]
            assert any(verify(one).verdict is Verdict.DISAGREES for one in of)
        finally:
            rules.rules_for.cache_clear()

    def test_survival_has_the_measured_shape(self, recorded: Path) -> None:
        """Nearly all within a minute, most within five, next to none over the lifetime; and so in the emulator."""
        rows = {row.pause: row for row in survival(recorded)}
        minute, five, over = (rows[name] for name in ("up to 1 minute", "1 to 5 minutes", "over the lifetime"))
        assert (minute.calls, minute.recorded) == (566, 564)
        assert (five.calls, five.recorded) == (58, 53)
        assert (over.calls, over.recorded) == (17, 1)
        for row in rows.values():
            assert abs(row.recorded - row.emulated) / row.calls <= 0.12, row

    @pytest.mark.parametrize("read", [lambda total: 10**9, lambda total: total], ids=["a billion", "all of it"])
    def test_no_prediction_is_beyond_what_was_sent(
        self, recorded: Path, read: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where nothing is promised the record cannot be exceeded by saying much: it has to be possible."""
        look_up = Cache.look_up

        def boasting(self: Cache, prompt: Any, scope: Any, *rest: Any) -> Ticket:
            ticket = look_up(self, prompt, scope, *rest)
            if rules.rules_for(scope.provider, scope.model).reliable:
                return ticket
            counts = dataclasses.replace(ticket.accounting, read=read(ticket.accounting.total), writes=())
            return dataclasses.replace(ticket, accounting=counts)

        monkeypatch.setattr(Cache, "look_up", boasting)
        found = [verify(one) for one in sequences(recorded) if one.provider in ("openai", "groq", "deepseek")]
        wrong = [one for one in found if one.verdict is Verdict.DISAGREES]
        assert len(wrong) >= 0.8 * len([one for one in found if not all(o.promised for o in one.outcomes)])
        assert all("in common" in one.why for one in wrong)

    @pytest.mark.parametrize("lifetime", [10**9, 10], ids=["for ever", "ten seconds"])
    def test_entries_that_live_too_long_or_too_short_fail_the_command(
        self, recorded: Path, tmp_path: Path, lifetime: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The recorded sessions are part of the proof, not an illustration."""
        folder = tmp_path / "recorded"
        for name in ("cassettes", "selfhosted", "sessions"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(recorded / "sessions", folder / "sessions", dirs_exist_ok=True)
        name = "openai_pydantic_ai_test_openai_prompt_cache_test_openai_chat_prompt_cache_e2e.json"
        shutil.copyfile(recorded / "cassettes" / name, folder / "cassettes" / name)
        assert main(["emulate", "--verify", str(folder)]) == 0
        monkeypatch.setattr(Entry, "expires", property(lambda self: self.used + lifetime))
        assert main(["emulate", "--verify", str(folder)]) == 1

    def test_the_page_is_what_the_command_prints(
        self, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """``docs/emulator-verified.md``."""
        assert main(["emulate", "--verify", str(recorded), "--format", "markdown"]) == 0
        page = Path(__file__).parents[2] / "docs" / "emulator-verified.md"
        assert capsys.readouterr().out == page.read_text(encoding="utf-8")

    def test_a_record_that_is_changed_is_found_out(self, recorded: Path, tmp_path: Path) -> None:
        """One read of one real recording, one token more."""
        name = "openai_pydantic_ai_test_openai_prompt_cache_test_openai_chat_prompt_cache_e2e.json"
        (tmp_path / "cassettes").mkdir()
        file = tmp_path / "cassettes" / name
        shutil.copyfile(recorded / "cassettes" / name, file)
        assert found(file).verdict is Verdict.AGREES
        file.write_text(file.read_text().replace('"cached_tokens": 4012', '"cached_tokens": 4011'))
        assert found(file).verdict is Verdict.DISAGREES
