"""Budgets of teams as a recording rule: ``python deploy/prometheus/budgets.py`` writes ``rules/budgets.yaml``.

``--check`` writes nothing, and exits with 1 when the rules are not those of ``budgets.yaml``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RECORD = "team:promptcache_budget_usd:month"
HEADER = "# Generated from budgets.yaml by budgets.py: do not edit.\n"


class WrongBudgetError(ValueError):
    """What is wrong with the budgets, in a sentence that names the key."""


def rules(budgets: Any) -> dict[str, Any]:
    """The rule group of budgets: a constant a team, without a team's label for what nobody claims."""
    if not isinstance(budgets, Mapping) or set(budgets) - {"teams", "unattributed"}:
        raise WrongBudgetError("budgets.yaml has the keys teams and unattributed, no others")
    teams = budgets.get("teams") or {}
    if not isinstance(teams, Mapping):
        raise WrongBudgetError("teams: name and USD a month of each team, as in search: 500")
    made = [
        {"record": RECORD, "expr": _vector(f"teams.{team}", usd), "labels": {"promptcache_attr_team": str(team)}}
        for team, usd in teams.items()
    ]
    if "unattributed" in budgets:
        made.append({"record": RECORD, "expr": _vector("unattributed", budgets["unattributed"])})
    return {"groups": [{"name": "promptcache-budgets", "rules": made}]}


def _vector(key: str, usd: Any) -> str:
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 < usd < float("inf"):
        raise WrongBudgetError(f"{key}: {usd!r} is no number of USD above zero")
    return f"vector({usd})"


def main() -> int:
    """Writes the rules, or says whether they are of today."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("budgets", nargs="?", type=Path, default=HERE / "budgets.yaml")
    parser.add_argument("--output", type=Path, default=HERE / "rules" / "budgets.yaml")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the output is another")
    asked = parser.parse_args()
    try:
        text = HEADER + yaml.safe_dump(rules(yaml.safe_load(asked.budgets.read_text())), sort_keys=False)
    except (OSError, yaml.YAMLError, WrongBudgetError) as error:
        print(error, file=sys.stderr)
        return 2
    if asked.check:
        if asked.output.exists() and asked.output.read_text() == text:
            return 0
        print(f"{asked.output} is not what {asked.budgets} says: run {Path(__file__).name}", file=sys.stderr)
        return 1
    asked.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
