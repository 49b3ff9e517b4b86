"""Agents' transcripts: what was read and written is in them, what was sent is not."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.analysis import exchanges, replay
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.cli import main
from otel_promptcache.semconv import Reason, Status

LONG = "Le dossier du client contient vingt pages de correspondance. "


class Transcript:
    """Entries as an agent writes them, each behind the newest unless told otherwise."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.last: str | None = None
        self.seconds = 0

    def _add(self, kind: str, message: dict[str, Any], parent: str | None, **more: Any) -> str:
        identity = f"u{len(self.entries)}"
        minutes, seconds = divmod(self.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        self.entries.append({
            "type": kind, "uuid": identity, "parentUuid": parent or self.last, "sessionId": "s",
            "timestamp": f"2026-11-20T{hours:02}:{minutes:02}:{seconds:02}.000Z", "message": message, **more,
        })  # fmt: skip
        self.last = identity
        return identity

    def says(self, text: str, *, after: int = 20, parent: str | None = None, **more: Any) -> str:
        self.seconds += after
        return self._add("user", {"role": "user", "content": text}, parent, **more)

    def answers(self, read: int, write: int, *, model: str = "claude-opus-5", **more: Any) -> str:
        self.seconds += 5
        usage = {"input_tokens": 3, "cache_read_input_tokens": read, "cache_creation_input_tokens": write,
                 "output_tokens": 40}  # fmt: skip
        content = [{"type": "text", "text": f"Voilà. {len(self.entries)}"}]
        message = {"id": f"m{len(self.entries)}", "role": "assistant", "model": model, "content": content}
        return self._add("assistant", message | {"usage": usage}, None, **more)

    def judged(self, folder: Path) -> list[Judged]:
        file = folder / "transcript.jsonl"
        file.write_text("\n".join(map(json.dumps, self.entries)), encoding="utf-8")
        return replay.replay(exchanges.read([str(file)]).exchanges)


def begun() -> Transcript:
    """Two turns, of which the second read what the first had written."""
    transcript = Transcript()
    transcript.says(30 * LONG)
    transcript.answers(0, 9_000)
    transcript.says("Et la suite ?")
    transcript.answers(9_000, 400)
    return transcript


def said(one: Judged) -> tuple[Status, Reason | None]:
    return one.diagnosis.status, one.diagnosis.reason


def test_read_and_written_are_read_next(tmp_path: Path) -> None:
    transcript = begun()
    transcript.says("Merci. Et après ?")
    transcript.answers(9_400, 80)
    first, *others = transcript.judged(tmp_path)
    assert said(first) == (Status.COLD, None)
    assert [said(one) for one in others] == [(Status.HIT, None)] * 2


@pytest.mark.parametrize(("pause", "reason"), [(400, Reason.TTL_EXPIRED), (200, Reason.UNKNOWN)])
def test_a_pause_is_seen(pause: int, reason: Reason, tmp_path: Path) -> None:
    transcript = begun()
    transcript.says("De retour.", after=pause)
    transcript.answers(0, 9_500)
    assert said(transcript.judged(tmp_path)[-1]) == (Status.MISS, reason)


def test_another_model_is_seen(tmp_path: Path) -> None:
    transcript = begun()
    transcript.says("Avec un autre modèle.")
    transcript.answers(0, 9_500, model="claude-sonnet-5")
    assert said(transcript.judged(tmp_path)[-1]) == (Status.MISS, Reason.MODEL_CHANGED)


def test_what_changed_out_of_sight_is_unknown(tmp_path: Path) -> None:
    """The system prompt, the tools and the markers are not in a transcript: a miss in time and on the same model may
    have any of them as its reason."""
    transcript = begun()
    transcript.says("Encore une question.")
    transcript.answers(2_000, 7_500)
    last = transcript.judged(tmp_path)[-1]
    assert said(last) == (Status.PARTIAL, Reason.UNKNOWN)
    assert (last.diagnosis.cause, last.diagnosis.place, last.diagnosis.confidence) == (None, None, None)
    assert last.diagnosis.lost == 7_400


def test_a_rewritten_message_is_not_blamed(tmp_path: Path) -> None:
    """The user went back to the first answer and asked something else: what is left is read."""
    transcript = begun()
    transcript.says("Une tout autre question.", parent="u1")
    transcript.answers(9_000, 90)
    assert said(transcript.judged(tmp_path)[-1]) == (Status.HIT, None)


def test_a_helper_with_a_prompt_of_its_own_begins_anew(tmp_path: Path) -> None:
    transcript = begun()
    main_line = transcript.last
    transcript.entries.append({
        "type": "user", "uuid": "side", "parentUuid": None, "isSidechain": True, "sessionId": "s",
        "timestamp": "2026-11-20T00:01:30.000Z",
        "message": {"role": "user", "content": 20 * "Cherche dans les actes. "},
    })  # fmt: skip
    transcript.last = "side"
    transcript.answers(0, 3_000, isSidechain=True)
    transcript.says("Alors ?", parent=main_line)
    transcript.answers(9_400, 60)
    assert [said(one) for one in transcript.judged(tmp_path)[-2:]] == [(Status.COLD, None), (Status.HIT, None)]


def test_a_summary_is_named_because_the_transcript_says_so(tmp_path: Path) -> None:
    transcript = begun()
    transcript.says("Résumé : le client attend une réponse.", isCompactSummary=True)
    transcript.answers(2_000, 500)
    assert said(transcript.judged(tmp_path)[-1]) == (Status.PARTIAL, Reason.HISTORY_COMPACTED)


def test_recorded_sessions_as_the_command_tells_them(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums are those that were counted when the sessions were collected; whoever reads less than the call before left
    is told so, and nobody else; no cause is guessed."""
    files = sorted((recorded / "sessions").glob("*.jsonl"))
    truth = (recorded / "SOURCES.md").read_text(encoding="utf-8")
    assert main(["diagnose", *map(str, files), "--format", "jsonl", "--privacy", "hashes"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = {"model_changed", "ttl_expired", "history_compacted", "usage_not_reported", "unknown", None}
    for file in files:
        calls = [row for row in rows if row["id"] == str(file)]
        counted = re.search(rf"{file.name}.*calls=(\d+) read=(\d+) write=(\d+) uncached=(\d+)", truth)
        assert counted is not None
        read, written, whole = (sum(row[name] or 0 for row in calls) for name in _COUNTS)
        assert (len(calls), read, written, whole - read - written) == tuple(map(int, counted.groups()))
        for before, row in pairwise(calls):
            held = (before["read_tokens"] or 0) + (before["written_tokens"] or 0)
            assert row["cause"] is None
            assert row["reason"] in shown
            if (row["read_tokens"] or 0) >= held:
                assert (row["status"], row["lost_tokens"]) == ("hit", 0)
            elif (row["read_tokens"] or 0) < 0.95 * held:
                assert row["status"] in ("miss", "partial")
                assert row["reason"] is not None
    assert len(rows) == 659


_COUNTS = ("read_tokens", "written_tokens", "input_tokens")
