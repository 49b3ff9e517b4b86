"""``otel-promptcache ci``: a snapshot from a test, a ledger from production, a comment for the pull request."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from servers.application import message, observed, provider, text

from otel_promptcache import route
from otel_promptcache.cli import main
from otel_promptcache.emulator import Emulator
from otel_promptcache.snapshot import Snapshot, dumped
from otel_promptcache.testing import recording

DEPLOYMENT = "the-deployment's-secret"
DAY = 86_400
START = 1_763_733_600
SYSTEM = "".join(f"line {number}\n" for number in range(1, 20)) + text(2000)
CHANGED = SYSTEM.replace("line 12", "LINE 12")


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def ledger(emulated: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of production: six conversations on /chat, one after the other, each a cold call and two that read."""
    emulated.reset()
    client = anthropic.Anthropic(base_url=emulated.url, api_key="sk-of-production", max_retries=0)
    with observed(ledger="true", hash_key=DEPLOYMENT) as seen, route("/chat"):
        for number in range(6):
            turns = [f"question {number} " * 20]
            for _ in range(3):
                client.messages.create(**message(SYSTEM, *turns))
                turns += ["yes", "go on"]
        seen.settle()
        document = MessageToDict(encode_logs(seen.records.get_finished_logs()))
    client.close()
    records = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert len(records) == 18
    for index, record in enumerate(records):
        record["timeUnixNano"] = str((START + index * 2 * DAY // 17) * 10**9)
    file = tmp_path_factory.mktemp("ledger") / "calls.jsonl"
    file.write_text("".join(json.dumps(_export(document, record)) + "\n" for record in records))
    return file


def _export(document: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A line of the file: an export of one record."""
    (resource,) = document["resourceLogs"]
    (scope,) = resource["scopeLogs"]
    return {"resourceLogs": [resource | {"scopeLogs": [scope | {"logRecords": [record]}]}]}


def snapshot(
    emulated: Emulator,
    system: str,
    monkeypatch: pytest.MonkeyPatch,
    deployment: str = DEPLOYMENT,
    test: str = "tests/test_chat.py::test_chat",
    mark: bool = True,
) -> str:
    """The file that a test with this system prompt writes: another account, another endpoint, no production."""
    monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", deployment)
    with (
        recording(key="key-of-the-snapshot") as recorded,
        anthropic.Anthropic(base_url=emulated.url, api_key="sk-of-a-test") as client,
    ):
        client.messages.create(**message(system, "hello", mark=mark))
    monkeypatch.delenv("OTEL_PROMPTCACHE_HASH_KEY")
    return dumped(Snapshot("key-of-the-snapshot", {test: recorded.prefixes}))


@pytest.fixture
def files(emulated: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``base.json`` and, changed in line 12, ``promptcache.snapshot.json``."""
    (tmp_path / "base.json").write_text(snapshot(emulated, SYSTEM, monkeypatch))
    (tmp_path / "promptcache.snapshot.json").write_text(snapshot(emulated, CHANGED, monkeypatch))
    monkeypatch.chdir(tmp_path)
    return tmp_path


PREMIUM = 3.45e-6


def reads(ledger: Path) -> list[int]:
    """Tokens that each call of the ledger read."""
    found = []
    for line in ledger.read_text().splitlines():
        record = json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
        values = {pair["key"]: next(iter(pair["value"].values())) for pair in record["attributes"]}
        found.append(int(values["gen_ai.usage.cache_read.input_tokens"]))
    return found


class TestComment:
    """What a reviewer reads."""

    def test_place_traffic_and_money(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Every figure is one of the ledger: 18 calls in two days, each but the first reads the system prompt."""
        read = reads(ledger)
        assert read[0] == 0
        assert len(set(read[1:])) == 1
        a_day = sum(read) * PREMIUM / 2
        once = read[1] * PREMIUM
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("<!-- otel-promptcache ci -->\n### ")
        assert (
            f"- changes `system[0]` line 12 (edited); 9 calls a day on `/chat`; one rewrite {_money(once)}; "
            f"if it varies on every request +{_money(a_day)} a day\n"
        ) in shown
        assert "told by `tests/test_chat.py::test_chat`" in shown
        assert "From 18 calls in 2.0 days of the ledger." in shown

    def test_json(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The same for programs, unrounded."""
        read = reads(ledger)
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json", "--format", "json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        (change,) = shown["changes"]
        assert (change["path"], change["line"], change["cause"]) == ("system[0]", 12, "edited")
        assert change["routes"] == [{"route": "/chat", "calls_a_day": pytest.approx(9)}]
        assert change["usd_a_day_if_varying"] == pytest.approx(sum(read) * PREMIUM / 2)
        assert change["usd_once"] == pytest.approx(read[1] * PREMIUM)
        assert shown["ledger"]["calls"] == 18
        assert shown["limits"] == []

    @pytest.mark.parametrize("way", ["option", "setting"])
    def test_prices_of_a_file(
        self,
        way: str,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The calls of the ledger cost what they would by one's own prices."""
        Path("prices.toml").write_text('[[discount]]\nprovider = "anthropic"\npercent = 50\n')
        if way == "setting":
            monkeypatch.setenv("OTEL_PROMPTCACHE_PRICE_FILE", "prices.toml")
        given = ["--prices", "prices.toml"] if way == "option" else []
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json", "--format", "json", *given]) == 0
        (change,) = json.loads(capsys.readouterr().out)["changes"]
        assert change["usd_once"] == pytest.approx(reads(ledger)[1] * PREMIUM / 2)

    def test_prices_that_cannot_be_used(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Are named with what is wrong."""
        Path("prices.toml").write_text("[[prize]]\n")
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json", "--prices", "prices.toml"]) == 2
        assert "prices.toml:1: prize is no table" in capsys.readouterr().err

    def test_nothing_changed(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Says so."""
        assert main(["ci", "--ledger", str(ledger), "--base", "promptcache.snapshot.json"]) == 0
        assert "Nothing: the stable prefixes are what they were." in capsys.readouterr().out

    def test_a_time_in_the_line(
        self,
        emulated: Emulator,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Is named as such, from hashes alone."""
        timed = SYSTEM.replace("line 12", "It is 2026-11-21 14:05")
        (files / "promptcache.snapshot.json").write_text(snapshot(emulated, timed, monkeypatch))
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json"]) == 0
        assert "changes `system[0]` line 12 (timestamp); 9 calls a day" in capsys.readouterr().out

    def test_rotated_and_packed_files(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The Collector rotates; every call counts once."""
        packed = files / "calls.jsonl.gz"
        packed.write_bytes(gzip.compress("".join(ledger.read_text().splitlines(keepends=True)[:10]).encode()))
        arguments = ["ci", "--ledger", str(packed), str(ledger), "--base", "base.json", "--format", "json"]
        assert main(arguments) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["ledger"]["calls"], shown["ledger"]["repeated_calls"]) == (18, 10)

    def test_two_versions_in_one_ledger(self, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What a newer version wrote is left out, and that is said."""
        lines = ledger.read_text().splitlines(keepends=True)
        newer = [
            line.replace(
                '"promptcache.schema", "value": {"intValue": "1"', '"promptcache.schema", "value": {"intValue": "2"'
            )
            for line in lines[:4]
        ]
        mixed = files / "mixed.jsonl"
        mixed.write_text("".join([*newer, *lines[4:]]))
        assert main(["ci", "--ledger", str(mixed), "--base", "base.json"]) == 0
        assert "calls in" in (said := capsys.readouterr().out)
        assert "left out (4 of a version of otel-promptcache that this one cannot read)" in said


def _money(usd: float) -> str:
    return f"{usd:.2f} USD" if usd >= 0.01 else f"{usd:.2g} USD"


class TestLimits:
    """Exit status 1 when money says so."""

    @pytest.mark.parametrize(
        ("limits", "status"),
        [
            (["--max-usd-once", "1", "--max-usd-per-day", "1"], 0),
            (["--max-usd-once", "0.001"], 1),
            (["--max-usd-per-day", "0.01"], 1),
            (["--max-usd-once", "1", "--max-usd-per-day", "0"], 1),
        ],
    )
    def test_in_usd(
        self, limits: list[str], status: int, files: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the comment all the same, and the limit named on standard error."""
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json", *limits]) == status
        shown = capsys.readouterr()
        assert "changes `system[0]` line 12" in shown.out
        assert ("are more than --max-usd" in shown.err) == bool(status)
        assert ("**exceeded**" in shown.out) == bool(status)

    def test_what_cannot_be_judged(
        self,
        emulated: Emulator,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Is not within a limit. Without one it is a remark."""
        (files / "base.json").write_text(snapshot(emulated, SYSTEM, monkeypatch, deployment="another secret"))
        command = ["ci", "--ledger", str(ledger), "--base", "base.json"]
        assert main(command) == 0
        assert "price unknown: key_mismatch: the old snapshot is under the deployment key" in capsys.readouterr().out
        assert main([*command, "--max-usd-once", "1000"]) == 1
        shown = capsys.readouterr()
        assert "the old snapshot is under the deployment key" in shown.err
        assert "`--max-usd-once 1000`: **not judged**: a price is unknown." in shown.out
        assert main([*command, "--max-usd-once", "1000", "--format", "json"]) == 1
        assert json.loads(capsys.readouterr().out)["limits"] == [
            {"option": "--max-usd-once", "usd": 1000, "exceeded": False, "judged": False}
        ]

    def test_a_lost_breakpoint(
        self,
        emulated: Emulator,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Is lost every day, whichever limit is set."""
        unmarked = snapshot(emulated, SYSTEM, monkeypatch, mark=False)
        (files / "promptcache.snapshot.json").write_text(unmarked)
        a_day = sum(reads(ledger)) * 2.7e-6 / 2
        command = ["ci", "--ledger", str(ledger), "--base", "base.json"]
        assert main(command) == 0
        assert (
            "- changes `system[0].cache_control` (removed); 9 calls a day on `/chat`; "
            f"what they read up to here they would pay in full: +{_money(a_day)} a day\n"
        ) in capsys.readouterr().out
        for limit in ("--max-usd-once", "--max-usd-per-day"):
            assert main([*command, limit, f"{a_day / 2}"]) == 1
            assert f"are more than {limit}" in capsys.readouterr().err
            assert main([*command, limit, f"{a_day * 2}"]) == 0

    def test_a_test_that_is_gone(
        self,
        emulated: Emulator,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Nothing was compared: that is not nothing."""
        other = snapshot(emulated, "another agent", monkeypatch, test="tests/test_other.py::test_other")
        (files / "promptcache.snapshot.json").write_text(other)
        command = ["ci", "--ledger", str(ledger), "--base", "base.json"]
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "could not be compared: `tests/test_chat.py::test_chat`, with prefixes that are sent no longer" in shown
        assert "could not be compared: `tests/test_other.py::test_other`, with prefixes that are new" in shown
        assert "Nothing" not in shown
        assert main([*command, "--max-usd-once", "1000"]) == 1
        assert "**not judged**: not everything could be compared." in capsys.readouterr().out

    def test_a_test_that_was_renamed(
        self,
        emulated: Emulator,
        files: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Is compared all the same."""
        renamed = snapshot(emulated, CHANGED, monkeypatch, test="tests/test_renamed.py::test_chat")
        (files / "promptcache.snapshot.json").write_text(renamed)
        assert main(["ci", "--ledger", str(ledger), "--base", "base.json", "--max-usd-once", "1000"]) == 0
        shown = capsys.readouterr().out
        assert "changes `system[0]` line 12 (edited); 9 calls a day" in shown
        assert "told by `tests/test_renamed.py::test_chat`" in shown
        assert "could not be compared" not in shown


class TestBase:
    """What the change is compared with."""

    @pytest.fixture
    def repository(self, files: Path, emulated: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Line 12 is changed on a branch off ``main``, which has gone on since."""
        for name in ("GITHUB_BASE_REF", "CI_MERGE_REQUEST_DIFF_BASE_SHA", "BITBUCKET_PR_DESTINATION_BRANCH"):
            monkeypatch.delenv(name, raising=False)
        changed = (files / "promptcache.snapshot.json").read_text()
        git("init", "-q", "-b", "main")
        commit("promptcache.snapshot.json", (files / "base.json").read_text())
        git("checkout", "-q", "-b", "feature")
        commit("promptcache.snapshot.json", changed)
        git("checkout", "-q", "main")
        commit("promptcache.snapshot.json", snapshot(emulated, "all new " + SYSTEM, monkeypatch))
        git("update-ref", "refs/remotes/origin/main", "main")
        git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
        git("checkout", "-q", "feature")
        return files

    @pytest.mark.parametrize("pipeline", [{}, {"GITHUB_BASE_REF": "main"}], ids=["origin/HEAD", "GitHub"])
    def test_where_the_branch_began(
        self,
        pipeline: dict[str, str],
        repository: Path,
        ledger: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """By itself: what others changed on main meanwhile is not this change."""
        for name, value in pipeline.items():
            monkeypatch.setenv(name, value)
        assert main(["ci", "--ledger", str(ledger)]) == 0
        assert "changes `system[0]` line 12 (edited); 9 calls a day" in capsys.readouterr().out

    def test_a_revision(self, repository: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Any that git knows."""
        assert main(["ci", "--ledger", str(ledger), "--base", "feature"]) == 0
        assert "Nothing:" in capsys.readouterr().out

    def test_the_first_snapshot(self, repository: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Is compared with nothing, which is said and holds no limit."""
        git("mv", "promptcache.snapshot.json", "other.json")
        git("commit", "-q", "-m", "rename")
        command = ["ci", "--ledger", str(ledger), "--snapshot", "other.json"]
        assert main(command) == 0
        assert "Not known: the base has no snapshot" in capsys.readouterr().out
        assert main([*command, "--max-usd-once", "1000"]) == 1
        assert "**not judged**: the base has no snapshot." in capsys.readouterr().out

    def test_a_repository_that_git_cannot_read(
        self, repository: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Is no empty snapshot: it fails with git's own words."""
        blob = subprocess.run(
            ["git", "rev-parse", "main:promptcache.snapshot.json"], check=True, capture_output=True, text=True
        ).stdout.strip()
        (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
        assert main(["ci", "--ledger", str(ledger), "--base", "main"]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "cannot be read: " in shown.err
        assert "fatal: " in shown.err


def git(*words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], check=True)


def commit(name: str, text: str) -> None:
    Path(name).write_text(text)
    git("add", name)
    git("commit", "-q", "-m", "change")


class TestWhatIsMissing:
    """Exit status 2, and what to do."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--base", "base.json", "--ledger", "none.jsonl"], "none.jsonl: No such file or directory"),
            (["--base", "base.json", "--ledger", "base.json"], "OTEL_PROMPTCACHE_LEDGER=true"),
            (
                ["--base", "base.json", "--ledger", "x", "--snapshot", "none.json"],
                "pytest --promptcache-update make it",
            ),
            (["--base", "no-such-revision", "--ledger", "x"], "no such file, and no revision that git knows here"),
            (["--ledger", "x"], "give --base a file or a git revision"),
        ],
    )
    def test_is_named(
        self,
        arguments: list[str],
        said: str,
        files: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """And nothing is printed that could be taken for a comment."""
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(files.parent))
        monkeypatch.delenv("GITHUB_BASE_REF", raising=False)
        assert main(["ci", *arguments]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert said in shown.err

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (["--days", "0"], "takes a number of days, more than 0, not '0'"),
            (["--days", "a week"], "takes a number of days, more than 0, not 'a week'"),
            (["--max-usd-once", "-1"], "takes USD, 0 or more, not '-1'"),
            (["--max-usd-once", "abc"], "takes USD, 0 or more, not 'abc'"),
            (["--max-usd-per-day", "nan"], "takes USD, 0 or more, not 'nan'"),
            (["--format", "xml"], "invalid choice"),
        ],
    )
    def test_wrong_options(self, wrong: list[str], said: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Are refused before anything is read."""
        with pytest.raises(SystemExit) as caught:
            main(["ci", "--ledger", "x", *wrong])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
