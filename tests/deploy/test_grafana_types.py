"""The dashboards against Grafana's own types, by the TypeScript compiler: names, kinds and allowed words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards.__main__ import DASHBOARDS
from servers import built

LOOKS = {
    "stat": "Stat",
    "timeseries": "TimeSeries",
    "table": "Table",
    "bargauge": "BarGauge",
    "heatmap": "Heatmap",
    "xychart": "XYChart",
}
"""Panel types and what their types are called."""
OF_DATA_SOURCES = {
    "annotation": {"expr", "step", "textFormat", "titleFormat"},
    "target": {"editorType", "expr", "exemplar", "format", "instant", "legendFormat", "queryType", "range", "rawSql"},
    "variable": {"auto", "auto_count", "auto_min"},  # of a variable of another kind, and always as they are by default
}
"""Fields that a data source's plugin reads, of which the schema knows nothing."""
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends number ? number : T extends (infer One)[] ? Plain<One>[]
  : T extends object ? { [Name in keyof T]: Plain<T[Name]> } : T;
"""
"""JSON has the words of an enum, not its members."""


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def without_plugins(board: dict[str, Any]) -> dict[str, Any]:
    """A dashboard without what only plugins read."""

    def drop(one: dict[str, Any], kind: str) -> None:
        for name in OF_DATA_SOURCES[kind]:
            one.pop(name, None)

    for variable in board["templating"]["list"]:
        drop(variable, "variable")
    for annotation in board["annotations"].get("list", ()):
        drop(annotation, "annotation")
        drop(annotation.get("target", {}), "target")
    for panel in panels(board):
        for target in panel.get("targets", ()):
            drop(target, "target")
    return board


def module(board: dict[str, Any]) -> str:
    """TypeScript that compiles when a dashboard is one, and the options of each panel are those of its kind."""
    lines = ['import type { Dashboard } from "@grafana/schema";']
    for look, name in LOOKS.items():
        path = f"./node_modules/@grafana/schema/dist/esm/raw/composable/{look}/panelcfg/x/{name}PanelCfg_types.gen"
        has_fields = look not in {"stat", "bargauge"}
        fields = f", FieldConfig as {name}Fields" if has_fields else ""
        lines.append(f'import type {{ Options as {name}Options{fields} }} from "{path}";')
    lines += [PLAIN, f"export const board: Plain<Dashboard> = {json.dumps(without_plugins(board))};"]
    for panel in panels(board):
        if panel["type"] != "row":
            name, number = LOOKS[panel["type"]], panel["id"]
            options, custom = panel.get("options", {}), panel["fieldConfig"]["defaults"].get("custom")
            lines.append(f"export const options{number}: Plain<Partial<{name}Options>> = {json.dumps(options)};")
            if custom:
                lines.append(f"export const fields{number}: Plain<Partial<{name}Fields>> = {json.dumps(custom)};")
    return "\n".join(lines)


def compiled(folder: Path, text: str) -> str:
    """What the compiler says: nothing, if all is well."""
    types = Path(built("grafana-types"))
    (folder / "node_modules").symlink_to(types / "node_modules")
    (folder / "board.ts").write_text(text)
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
    command = [types / "node_modules" / ".bin" / "tsc", *flags, "board.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.verifies("dashboards that are of Grafana's types")
@pytest.mark.server
@pytest.mark.parametrize("file", sorted(DASHBOARDS.glob("*.json")), ids=lambda file: file.stem)
def test_a_dashboard_is_one(tmp_path: Path, file: Path) -> None:
    assert compiled(tmp_path, module(json.loads(file.read_text()))) == ""


@pytest.mark.server
def test_a_wrong_word_is_noticed(tmp_path: Path) -> None:
    """That the types mean something: of the dashboard, and of a panel's options."""
    board = json.loads((DASHBOARDS / "overview.json").read_text())
    board["panels"][1]["options"]["graphMode"] = "sparkling"
    board["schemaVersions"] = 1
    said = compiled(tmp_path, module(board))
    assert "sparkling" in said
    assert "schemaVersions" in said
