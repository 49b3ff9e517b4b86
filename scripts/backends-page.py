"""backends-page.py [--check]: writes the tables of docs/backends.md.

Makes the calls of tests/backends against the emulator, as they are and with the keys of each backend, and reads their
spans by the mappings in deploy/backends.
"""

from __future__ import annotations

import re
import sys

import environments

sys.path.insert(0, str(environments.ROOT / "tests"))

from backends import mapping
from backends.recording import Recorded, Truth, record

PAGE = environments.ROOT / "docs" / "backends.md"
COLUMNS = ("input", "read", "write", "uncached", "output", "usd")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "usd" else f"{value:,.0f}"


def row(title: str, spans: str, backend: mapping.Backend, recorded: Recorded) -> tuple[str, ...]:
    """What is shown of all calls together; what is not as it should be is bold."""
    shown = {key: backend.shows(span) for key, span in recorded.attributes.items()}
    wrong = [shown[key].wrong(truth) for key, truth in recorded.truths.items()]
    found, true = (mapping.totals(list(seen.values())) for seen in (shown, recorded.truths))
    cells = [number(name, found[name]) for name in COLUMNS]
    cells = [
        cell if number(name, true[name]) == cell else f"**{cell}**" for name, cell in zip(COLUMNS, cells, strict=True)
    ]
    session = "**no**" if any("session" in one for one in wrong) else "yes" if "session" in backend.call else "?"
    return (title, spans, *cells, session, f"{sum(map(bool, wrong))} of {len(wrong)}")


def shown(plain: Recorded, keyed: dict[str, Recorded]) -> str:
    true = mapping.totals(list(plain.truths.values()))
    rows = [("**truth**", "", *(number(name, true[name]) for name in COLUMNS), "", "")]
    for backend in mapping.load().values():
        rows.append(row(backend.title, "as they are", backend, plain))
        rows.append(row("", f"`{backend.setting}`", backend, keyed[backend.setting]))
    return table(("", "spans", "input", "read", "written", "uncached", "output", "USD", "session", "calls wrong"), rows)


def mended(keyed: dict[str, Recorded]) -> str:
    rows = []
    for backend in mapping.load().values():
        recorded = keyed[backend.setting]
        left = [truth for key, truth in recorded.truths.items() if backend.shows(recorded.attributes[key]).wrong(truth)]
        transform = f"[{backend.transform}](../deploy/collector/backends/{backend.transform})"
        mapped = f"[{backend.title}](../deploy/backends/{backend.name}.yaml)"
        rows.append((mapped, backend.as_is, transform, backend.stays + _named(left)))
    return table(("backend", "wrong with spans as they are", "transform", "what stays"), rows)


def _named(left: list[Truth]) -> str:
    names = list(dict.fromkeys(truth.name for truth in left))
    return f" Here: {', '.join(f'`{name}`' for name in names)}." if names else ""


def tables() -> dict[str, str]:
    """By the name of their place on the page."""
    plain = record()
    keyed = {name: record(backends=name) for name in {one.setting for one in mapping.load().values()}}
    return {"shown": shown(plain, keyed), "mended": mended(keyed)}


def filled(page: str) -> str:
    """The page with its tables as they are now."""
    for name, text in tables().items():
        place = rf"(<!-- {name}: scripts/backends-page.py -->\n).*?(<!-- /{name} -->\n)"
        page, count = re.subn(place, lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page, flags=re.DOTALL)
        assert count == 1, f"docs/backends.md has no place for the table {name}"
    return page


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" in sys.argv:
        if new != page:
            print("docs/backends.md is out of date; renew it with: python scripts/backends-page.py", file=sys.stderr)
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
