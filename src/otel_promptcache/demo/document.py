"""The demo as JSON: every row, every cause, every total that the terminal shows, and whether the story held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_promptcache.demo import advice
from otel_promptcache.demo.story import DAYS, Act, Call, Totals, a_month, factor


def document(first: Act, second: Act, calls_a_day: int, problems: Sequence[str]) -> dict[str, Any]:
    return {
        "holds": not problems,
        "problems": list(problems),
        "calls_a_day": calls_a_day,
        "days_a_month": DAYS,
        "before": _act(first, calls_a_day),
        "after": _act(second, calls_a_day),
        "factors": {
            "hit_rate": factor(second.totals.hit_rate, first.totals.hit_rate),
            "input_usd": factor(first.totals.input_usd, second.totals.input_usd),
            "cost_usd": factor(first.totals.cost_usd, second.totals.cost_usd),
        },
        "checked": {
            "calls": first.totals.calls + second.totals.calls,
            "prompt_lines": first.lines + second.lines,
            "prompt_lines_found": first.shown + second.shown,
        },
    }


def _act(act: Act, calls_a_day: int) -> dict[str, Any]:
    return {
        "calls": [_call(call) for call in act.calls],
        "causes": [
            {
                "route": problem.route,
                "reason": problem.reason,
                "cause": problem.cause,
                "place": problem.place,
                "why": " ".join(advice.why(problem)),
                "fix": advice.fix(problem),
                "lost_usd": lost,
                "month_usd": a_month(lost, act.totals.calls, calls_a_day),
            }
            for problem, lost in act.lost_usd.items()
        ],
        "routes": [
            {"route": route, "statuses": dict(totals.statuses), "hit_rate": totals.hit_rate, "calls": totals.calls}
            for route, totals in act.routes().items()
        ],
        "totals": _totals(act.totals, calls_a_day),
        "disagreements": act.disagreements,
    }


def _call(call: Call) -> dict[str, Any]:
    prompt = call.map
    evidence = call.verdict.evidence if call.verdict is not None else None
    return {
        "route": call.route,
        "model": call.model,
        "status": call.status,
        "reason": call.reason,
        "cause": call.cause,
        "path": call.path,
        "line": call.line,
        "confidence": call.verdict.confidence if call.verdict is not None else None,
        "evidence": evidence._asdict() if evidence is not None else None,
        "tokens": {
            "input": call.input,
            "read": call.read,
            "write": call.write,
            "fresh": call.fresh,
            "expected": call.expected,
            "lost": call.lost,
        },
        "cost_usd": call.cost_usd,
        "input_usd": call.input_usd,
        "lost_usd": call.lost_usd,
        "lost_so_far_usd": call.lost_so_far,
        "map": None
        if prompt is None
        else {
            "bytes": prompt.size,
            "shared_bytes": prompt.shared_size,
            "sections": [{"name": name, "bytes": size} for name, size in prompt.sections()],
        },
    }


def _totals(totals: Totals, calls_a_day: int) -> dict[str, Any]:
    return {
        "calls": totals.calls,
        "statuses": dict(totals.statuses),
        "input_tokens": totals.input,
        "read_tokens": totals.read,
        "hit_rate": totals.hit_rate,
        "input_usd": totals.input_usd,
        "cost_usd": totals.cost_usd,
        "lost_usd": totals.lost_usd,
        "month_usd": a_month(totals.cost_usd, totals.calls, calls_a_day),
    }
