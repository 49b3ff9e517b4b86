"""Plain values to Grafana's JSON, by the builders of grafana-foundation-sdk: one function for each look."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import xychart as xychart_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from boards.model import Board, Colour, Look, Mark, Panel, Prom, Section, Sql
from boards.promql import MODEL, PROVIDER, REASON, ROUTE, SERVICE, TEAM, series
from otel_promptcache import semconv

CLICKHOUSE: Final = "grafana-clickhouse-datasource"
RUNBOOK: Final = "https://github.com/otel-promptcache/otel-promptcache/blob/main/docs/runbook.md"
TAG: Final = "promptcache"
METRICS = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
ROWS = models.DataSourceRef(type_val=CLICKHOUSE, uid="${ledger}")

_FILTERS: Final = ((SERVICE, "service"), (ROUTE, "route"), (PROVIDER, "provider"), (MODEL, "model"), (TEAM, "team"))
_AT_ONCE: Final = frozenset({Look.FIGURE, Look.RANK, Look.TABLE})
"""Looks that show one value a series: asked once, for the end of the time range."""


def rendered(board: Board) -> str:
    """The JSON of a dashboard, as it is checked in."""
    made = dashboard.Dashboard(board.title).uid(board.uid).description(board.why).tags([TAG]).readonly()
    made = made.time(board.since, "now").refresh("1m").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made = made.link(_among_each_other()).link(_runbook())
    for variable in _variables(board):
        made.with_variable(variable)
    for mark in board.marks:
        made.annotation(_Marked(mark))
    for section in board.sections:
        _lay(made, section)
    built = made.build()
    _number(built)
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _lay(made: dashboard.Dashboard, section: Section) -> None:
    row = dashboard.Row(section.title)
    panels = [_panel(panel) for panel in section.panels]
    if section.folded:
        row.collapsed(True)
        for panel in panels:
            row.with_panel(panel)
    made.with_row(row)
    if not section.folded:
        for panel in panels:
            made.with_panel(panel)


def _number(built: models.Dashboard) -> None:
    """Ids by place: links to a panel survive as long as it stays where it is."""
    number = 0
    for panel in built.panels or []:
        for one in (panel, *(getattr(panel, "panels", None) or [])):
            number += 1
            one.id_val = number


# --- What every dashboard has -------------------------------------------------------------------------------


def _among_each_other() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Prompt cache").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _runbook() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Runbook").type(models.DashboardLinkType.LINK).url(RUNBOOK).icon("doc")
    return link.tooltip("What to do when an alert fires").target_blank(True)


def _variables(board: Board) -> list[Builder[models.VariableModel]]:
    """Data sources, then filters. Those of the ledger are offered where something asks it."""
    calls = series(semconv.M_CALLS)
    found: list[Builder[models.VariableModel]] = [_source("datasource", "Metrics", "prometheus")]
    asked = [ask for panel in board.panels for ask in panel.asks] + [mark.ask for mark in board.marks]
    if any(isinstance(ask, Sql) for ask in asked):
        found.append(_source("ledger", "Ledger", CLICKHOUSE))
    if board.name == "ledger":
        found += [_source("jaeger", "Jaeger", "jaeger"), _source("tempo", "Tempo", "tempo")]
    found += [_filter(name, f"label_values({calls}, {label})") for label, name in _FILTERS]
    if board.name == "ledger":
        found.append(_filter("reason", f"label_values({calls}, {REASON})"))
    return found


def _source(name: str, label: str, kind: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(name).label(label).type(kind)


def _filter(name: str, query: str) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(name).label(name.capitalize()).datasource(METRICS).query(query)
    made = made.multi(True).include_all(True).all_value(".*").sort(models.VariableSort.ALPHABETICAL_ASC)
    every = models.VariableOption(selected=True, text="All", value="$__all")
    return made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).current(every)


# --- Questions ----------------------------------------------------------------------------------------------


class _Rows(Dataquery):
    """A question to ClickHouse. The SDK knows only the data sources that come with Grafana."""

    def __init__(self, ask: Sql, ref: str) -> None:
        self.ask, self.ref = ask, ref

    def build(self) -> _Rows:
        return self

    def to_json(self) -> dict[str, object]:
        return {"datasource": ROWS, "refId": self.ref, **_sql(self.ask)}


def _sql(ask: Sql) -> dict[str, object]:
    return {"editorType": "sql", "queryType": "table", "format": 1, "rawSql": ask.text}


def _target(panel: Panel, ask: Prom | Sql, ref: str) -> Any:
    if isinstance(ask, Sql):
        return _Rows(ask, ref)
    made = prometheus.Dataquery().datasource(METRICS).ref_id(ref).expr(ask.ask).legend_format(ask.legend or "__auto")
    if panel.look in _AT_ONCE:
        made = made.instant()
        return made.format(PromQueryFormat.TABLE) if panel.look is Look.TABLE else made
    return made.range().exemplar(ask.exemplars)


class _Annotation(models.AnnotationQuery):
    """An annotation with the texts that its data source's own form has, which the SDK's model leaves out."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(name=mark.name, icon_color=mark.colour, enable=isinstance(mark.ask, Prom))
        self.mark = mark
        self.datasource = METRICS if isinstance(mark.ask, Prom) else ROWS

    def to_json(self) -> dict[str, object]:
        told = super().to_json()
        if isinstance(self.mark.ask, Prom):
            texts = {"titleFormat": self.mark.title, "textFormat": self.mark.text, "step": "1m"}
            return told | texts | {"expr": self.mark.ask.ask}
        return told | {"target": {"refId": "Anno", **_sql(self.mark.ask)}}


class _Marked(Builder[models.AnnotationQuery]):
    """The builder of one."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def build(self) -> models.AnnotationQuery:
        return _Annotation(self.mark)


# --- Panels -------------------------------------------------------------------------------------------------


def _panel(panel: Panel) -> Any:
    made = _LOOKS[panel.look](panel).title(panel.title).description(panel.why)
    made = made.height(panel.height).span(panel.width)
    made = made.datasource(ROWS if isinstance(panel.asks[0], Sql) else METRICS)
    for ref, ask in zip("ABCDEFGH", panel.asks, strict=False):
        made = made.with_target(_target(panel, ask, ref))
    if panel.look is not Look.TABLE:
        made = made.unit(panel.unit)
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    if panel.ceiling is not None:
        made = made.max(panel.ceiling)
    if panel.look is Look.BARS:
        made = made.interval(panel.interval)
    for name, colour in panel.colours:
        fixed = {"mode": "fixed", "fixedColor": colour.value}
        made = made.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return _columns(made, panel)


def _columns(made: Any, panel: Panel) -> Any:
    """Names, units and links of what a table or a row of figures has for columns."""
    for field, column in panel.columns:
        shown = column.name if panel.asks and isinstance(panel.asks[0], Prom) else field
        said = [models.DynamicConfigValue(id_val="displayName", value=column.name)] if shown == field else []
        if column.unit:
            said.append(models.DynamicConfigValue(id_val="unit", value=column.unit))
        if column.links:
            links = [{"title": title, "url": url, "targetBlank": True} for title, url in column.links]
            said.append(models.DynamicConfigValue(id_val="links", value=links))
        if said:
            made = made.override_by_name(shown, said)
    return made


def _steps(panel: Panel) -> dashboard.ThresholdsConfig:
    """Colours from values on; below the first it is the other end of what the last one means."""
    last = panel.steps[-1][1]
    base = Colour.BAD if last is Colour.GOOD else Colour.GOOD
    steps = [models.Threshold(value=None, color=base.value)]
    steps += [models.Threshold(value=value, color=colour.value) for value, colour in panel.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _plain() -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().steps([models.Threshold(value=None, color="text")])


def _newest(panel: Panel) -> common.ReduceDataOptions:
    """The value that is shown; of a row of ClickHouse every field."""
    made = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return made.fields("/.*/") if isinstance(panel.asks[0], Sql) else made


def _figure(panel: Panel) -> Any:
    made = stat.Panel().reduce_options(_newest(panel)).graph_mode(common_models.BigValueGraphMode.NONE)
    made = made.color_mode(common_models.BigValueColorMode.VALUE)
    several = len(panel.asks) > 1 or isinstance(panel.asks[0], Sql)
    text = common_models.BigValueTextMode.VALUE_AND_NAME if several else common_models.BigValueTextMode.AUTO
    return made.text_mode(text).thresholds(_steps(panel) if panel.steps else _plain()).no_value("nothing yet")


def _graph(panel: Panel) -> Any:
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    legend = legend.display_mode(common_models.LegendDisplayMode.LIST)
    made = timeseries.Panel().legend(legend).show_points(common_models.VisibilityMode.NEVER)
    if not panel.over:  # such a line may go below zero
        made = made.min(0)
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    return made.tooltip(tooltip.sort(common_models.SortOrder.DESCENDING))


def _lines(panel: Panel) -> Any:
    made = _graph(panel).line_width(2).fill_opacity(0)
    if not panel.steps:
        return made
    style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
    return made.thresholds(_steps(panel)).thresholds_style(style)


def _stacked(panel: Panel) -> Any:
    """Parts on top of each other, and lines over them that are no part."""
    made = _graph(panel).stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    for name in panel.over:
        line = {"drawStyle": "line", "stacking": {"mode": "none"}, "fillOpacity": 0, "lineWidth": 2}
        said = [models.DynamicConfigValue(id_val=f"custom.{key}", value=value) for key, value in line.items()]
        made = made.override_by_name(name, said)
    return made


def _areas(panel: Panel) -> Any:
    return _stacked(panel).line_width(1).fill_opacity(60)


def _bars(panel: Panel) -> Any:
    return _stacked(panel).draw_style(common_models.GraphDrawStyle.BARS).line_width(0).fill_opacity(80)


def _rank(panel: Panel) -> Any:
    made = bargauge.Panel().orientation(common_models.VizOrientation.HORIZONTAL).reduce_options(_newest(panel))
    made = made.display_mode(common_models.BarGaugeDisplayMode.BASIC).min(0).show_unfilled(True)
    return made.value_mode(common_models.BarGaugeValueMode.TEXT).thresholds(_steps(panel) if panel.steps else _plain())


def _table(panel: Panel) -> Any:
    made = table.Panel().filterable(True).thresholds(_plain())
    if isinstance(panel.asks[0], Prom):
        # Grafana calls the only figure "Value", and one of several "Value #A".
        value = "Value" if len(panel.asks) == 1 else "Value #A"
        names = {field.replace("Value #A", value): column.name for field, column in panel.columns}
        order = {field: place for place, field in enumerate(names)}
        made = made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        tidy = {"excludeByName": {"Time": True}, "renameByName": names, "indexByName": order}
        made = made.with_transformation(models.DataTransformerConfig(id_val="organize", options=tidy))
    if panel.sort:
        made = made.sort_by([common.TableSortByFieldState().display_name(panel.sort).desc(True)])
    return made


def _heatmap(panel: Panel) -> Any:
    """Rows as they come, one a column of the answer; darker is more."""
    made = heatmap.Panel().calculate(False).cell_gap(1).show_legend()
    return made.color(heatmap.HeatmapColorOptions().scheme("Oranges").steps(32).min(0))


def _scatter(panel: Panel) -> Any:
    made = xychart.Panel().mapping(xychart_models.SeriesMapping.AUTO).show(xychart_models.XYShowMode.POINTS)
    return made.legend(common.VizLegendOptions().show_legend(False))


_LOOKS: Final[dict[Look, Callable[[Panel], Any]]] = {
    Look.FIGURE: _figure,
    Look.LINES: _lines,
    Look.AREAS: _areas,
    Look.BARS: _bars,
    Look.RANK: _rank,
    Look.TABLE: _table,
    Look.HEATMAP: _heatmap,
    Look.SCATTER: _scatter,
}
