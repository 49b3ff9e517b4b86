"""``python -m boards`` writes the dashboards; ``--check`` writes nothing, and exits with 1 when they are others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards.catalogue import BOARDS
from boards.render import rendered

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"


def files() -> dict[str, str]:
    """What has to be in the folder: names and texts."""
    return {f"{board.name}.json": rendered(board) for board in BOARDS}


def stale(folder: Path = DASHBOARDS) -> list[str]:
    """Files that are missing, others than they should be, or too many."""
    wanted = files()
    found = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(prog="boards", description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        wrong = stale()
        for name in wrong:
            print(f"deploy/grafana/dashboards/{name} is not what boards makes: run make dashboards", file=sys.stderr)
        return bool(wrong)
    DASHBOARDS.mkdir(exist_ok=True)
    for name in stale():
        (DASHBOARDS / name).unlink(missing_ok=True)
    for name, text in files().items():
        (DASHBOARDS / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
