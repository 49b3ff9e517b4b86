"""deploy/compose: what starts under each profile, and what one finds there after the example has been at work."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from boards.catalogue import BOARDS, layers
from boards.model import Prom
from boards.promql import with_version
from servers import COMPOSE, DEPLOY, HOST, ROOT, Jaeger, Prometheus, built, until, until_empty
from servers.composed import PROFILES, SERVICES, Composed, Laptop, full, hosts, metrics, services
from servers.estate import SCHEMA
from servers.stack import filled_in

pytestmark = pytest.mark.xdist_group("compose")
BRISK = ("--once", "--pieces", "60", "--pause", "0.01")
"""Three releases in a quarter of a minute, with as many calls as in several."""
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "500"}


# --- The file -----------------------------------------------------------------------------------------------


@pytest.mark.verifies("Compose files")
@pytest.mark.server
def test_the_specifications_reader_accepts_it() -> None:
    done = subprocess.run(
        [built("compose-spec"), "compose.yaml"], capture_output=True, text=True, check=False, cwd=COMPOSE
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


@pytest.mark.server
def test_a_wrong_file_is_not_accepted(tmp_path: Path) -> None:
    """That it means something."""
    wrong = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    wrong["services"]["jaeger"]["port"] = wrong["services"]["jaeger"].pop("ports")
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    done = subprocess.run([built("compose-spec"), "compose.yaml"], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert b"services.jaeger.port" in done.stderr


def test_what_each_profile_starts() -> None:
    minimal = {"application", "emulator", "otel-collector", "jaeger"}
    watching = {"prometheus", "alertmanager", "grafana"}
    assert services("minimal").keys() == minimal
    assert services("metrics").keys() == minimal | watching
    beyond = {"fleet", "agent", "gateway", "tempo", "clickhouse", "valkey"}
    assert services("full").keys() == {"emulator", "jaeger"} | watching | beyond


def test_what_starts_without_a_word() -> None:
    (chosen,) = re.findall(r"^COMPOSE_PROFILES=(\w+)$", (COMPOSE / ".env").read_text(), re.MULTILINE)
    assert chosen == "metrics"


@pytest.mark.parametrize("profile", PROFILES)
def test_no_port_is_published_twice(profile: str) -> None:
    published = [port for one in services(profile).values() for port in one.get("ports", ())]
    assert len(published) == len(set(published))
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_host_that_is_named_is_started(profile: str) -> None:
    """In commands and variables; Prometheus' and Grafana's files have hosts of more than one profile."""
    for name, one in services(profile).items():
        for text in (*map(str, one.get("command", ())), *map(str, one.get("environment", {}).values())):
            for host in re.findall(r"(?<![\w.:/-])(?:\w+://)?([a-z][a-z-]+):\d{2,5}\b", text):
                assert host in hosts(profile), (name, host)


@pytest.mark.parametrize("profile", PROFILES)
def test_whom_prometheus_scrapes_and_alarms_is_started(profile: str) -> None:
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = shipped["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["otel-collector:8889", "otel-collector:8890"]}]
    told = SERVICES[hosts(profile)["otel-collector"]]["environment"]
    assert told["METRICS_ENDPOINT"].endswith(":8889")
    assert told.get("METRICS_COUNTED_ENDPOINT", "").endswith(":8890") == (profile == "full")
    (alerting,) = shipped["alerting"]["alertmanagers"]
    assert alerting["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert profile == "minimal" or "alertmanager" in hosts(profile)


def test_whatever_ends_of_itself_begins_again() -> None:
    """Each of them is to run as long as the stack does."""
    assert {name for name, one in SERVICES.items() if one.get("restart") != "unless-stopped"} == set()


@pytest.mark.parametrize("profile", PROFILES)
def test_who_waits_for_whom(profile: str) -> None:
    """For what says when it is ready, and starts under the same profile."""
    waiting = {(name, other) for name, one in services(profile).items() for other in one.get("depends_on", ())}
    assert (
        waiting
        == {
            "minimal": {("application", "emulator")},
            "metrics": {("application", "emulator")},
            "full": {("fleet", "emulator"), ("gateway", "clickhouse")},
        }[profile]
    )
    for name, other in waiting:
        assert other in services(profile)
        assert SERVICES[name]["depends_on"][other] == {"condition": "service_healthy"}
        assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"


def test_the_tables_are_there_when_clickhouse_is_ready() -> None:
    """The last that the file makes is asked."""
    *_, asked = SERVICES["clickhouse"]["healthcheck"]["test"]
    (name,) = re.findall(r"FROM (\w+)", asked)
    assert re.findall(r"CREATE OR REPLACE VIEW (\w+)", SCHEMA.read_text())[-1] == name


@pytest.mark.server
def test_the_emulator_is_asked_whether_it_is_ready(tmp_path: Path) -> None:
    """What is shipped, run: it fails before there is one, and not after."""
    composed = Composed("minimal", tmp_path)
    _, _, *arguments = SERVICES["emulator"]["healthcheck"]["test"]
    there = f"{HOST}:{composed.port('emulator', '8788')}"
    asking = [sys.executable, *(one.replace("127.0.0.1:8788", there) for one in arguments)]
    assert subprocess.run(asking, capture_output=True, check=False).returncode != 0
    with composed.emulator():
        assert subprocess.run(asking, capture_output=True, check=False).returncode == 0


def test_images_are_pinned() -> None:
    """To a release: never ``latest``, never a moving ``v3``."""
    for service in SERVICES.values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(\.\d+)?", service["image"]), service["image"]


def test_images_are_of_the_versions_that_are_tested() -> None:
    for program, service in (("collector", "otel-collector"), ("jaeger", "jaeger"), ("prometheus", "prometheus")):
        script = ROOT / "scripts" / f"build-{program}.sh"
        (version,) = re.findall(r"^version=(\S+)", script.read_text(), re.MULTILINE)
        assert SERVICES[service]["image"].rpartition(":")[2].removeprefix("v") == version
    assert len({SERVICES[name]["image"] for name in ("otel-collector", "agent", "gateway")}) == 1
    builder = yaml.safe_load((DEPLOY / "collector" / "builder.yaml").read_text())
    collector_version = SERVICES["otel-collector"]["image"].rpartition(":")[2]
    others = {
        part["gomod"].split("/")[-1]
        for kind in ("extensions", "receivers", "processors", "exporters", "connectors")
        for part in builder[kind]
        if not part["gomod"].endswith(f" v{collector_version}")
    }
    assert others == {"clickhouseexporter v0.157.0", "signaltometricsconnector v0.156.0"}


def test_every_mounted_file_exists() -> None:
    volumes = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["volumes"]
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert volume.endswith(":ro")
                assert (COMPOSE / source).exists(), source
            else:
                assert source in volumes


def test_grafana_finds_its_dashboards() -> None:
    grafana = SERVICES["grafana"]
    provisioning = DEPLOY / "grafana" / "provisioning" / "dashboards" / "dashboards.yaml"
    (dashboards,) = yaml.safe_load(provisioning.read_text())["providers"]
    assert dashboards["options"]["path"] in [volume.split(":")[1] for volume in grafana["volumes"]]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / "grafana" / "dashboards" / home.name).exists()
    assert str(home.parent) == dashboards["options"]["path"]


def test_the_image_has_what_it_runs() -> None:
    """What the Dockerfile copies exists, and is not ignored."""
    folder = COMPOSE / "application"
    copied = re.findall(r"^COPY (.+) \S+$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (folder / "Dockerfile.dockerignore").read_text()
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert f"!{path}\n" in ignored


# --- At work ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """The profile *metrics*, after three releases of the example."""
    with metrics(tmp_path_factory.mktemp("metrics")) as running:
        running.composed.work("application", *BRISK, **OFTEN)
        yield running


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """The profile *full*, after three releases on two workers."""
    with full(tmp_path_factory.mktemp("full")) as running:
        running.composed.work("fleet", *BRISK, **OFTEN)
        yield running


WITHOUT_A_FAILURE = {
    "What share of calls fails?",
    "Who was refused, and what became of the call?",
    "How long were we asked to wait?",
    "Whose answers have no usage?",
    "How often does a provider drop a live entry, by model and hour?",
    "Where do errors of ours happen?",
    "How often did a worker meet another key?",
}
WITHOUT_FIVE_MINUTES = {
    "When did writes expire unread, and for which lifetime were they?",
    "Which routes write for nobody?",
    "Where will the month end?",
}
WITHOUT_ENGINES = {panel.title for panel in layers.BOARD.sections[-1].panels}
NOT_YET = WITHOUT_A_FAILURE | WITHOUT_FIVE_MINUTES | WITHOUT_ENGINES
WITHOUT_A_FLEET = {"Does the shared history answer in time?"}


def empty(prometheus: Prometheus) -> set[str]:
    """The titles of panels that have nothing to show for one of their questions."""

    def finds(ask: Prom) -> bool:
        return any(math.isfinite(value) for _, value in prometheus.query(filled_in(ask.ask)))

    panels = [panel for board in BOARDS for panel in board.panels]
    return {panel.title for panel in panels if not all(finds(ask) for ask in panel.asks if isinstance(ask, Prom))}


@pytest.mark.server
def test_a_laptops_dashboards_fill_themselves(laptop: Laptop) -> None:
    """But for what has not happened in a minute, or has nobody to happen to. Asked before there is an estate: a few
    minutes after its last call an application has no rates any more."""
    until_empty(lambda: empty(laptop.prometheus) - NOT_YET - WITHOUT_A_FLEET)


@pytest.mark.server
def test_the_release_that_broke_it_is_found(laptop: Laptop) -> None:
    """By its version in Prometheus, by its place in Jaeger, by its change in the ledger's file."""
    by_version = with_version('promptcache_lost_cost_USD_total{promptcache_reason="system_changed"}')
    found = until(lambda: laptop.prometheus.query(f"sum by (service_version) ({by_version})"))
    assert [labels["service_version"] for labels, _ in found] == ["1.5.0"]
    reason = {"promptcache__reason": "system_changed", "promptcache__cause": "timestamp"}
    misses = until(lambda: laptop.jaeger.find("support-desk", **reason))
    assert {span.tags["promptcache.path"] for span in misses if "promptcache.path" in span.tags} == {"system[0]"}
    until(lambda: "1.5.0" in {event.get("promptcache.change.new.service.version") for event in laptop.ledger()})


@pytest.mark.server
def test_a_fleets_dashboards_fill_themselves(estate: Laptop) -> None:
    """But for what has not happened in a minute."""
    until_empty(lambda: empty(estate.prometheus) - NOT_YET)


@pytest.mark.server
def test_money_is_the_same_in_prometheus_and_in_the_ledger(estate: Laptop) -> None:
    """Of two workers and three releases, by way of agent and gateway."""
    assert estate.clickhouse is not None
    ask = estate.clickhouse.ask
    calls = "SELECT count() AS calls, sum(promptcache_cost_total) AS paid FROM promptcache_calls"
    counters = {"calls": "sum(promptcache_calls_total)", "paid": "sum(promptcache_cost_USD_total)"}

    def differing() -> list[tuple[str, float, float]]:
        """What either says, while one of them is behind the other."""
        (row,) = ask(calls)
        both = [(name, float(row[name] or 0), estate.prometheus.value(counter)) for name, counter in counters.items()]
        return [one for one in both if one[1] != pytest.approx(one[2], rel=1e-6)]

    until_empty(differing)


@pytest.mark.server
def test_changes_of_prompts_are_rows(estate: Laptop) -> None:
    assert estate.clickhouse is not None
    changes = "SELECT DISTINCT promptcache_change_new_service_version AS version FROM promptcache_changes"
    ask = estate.clickhouse.ask
    until(lambda: "1.5.0" in {row["version"] for row in ask(changes)})


@pytest.mark.server
def test_traces_are_in_jaeger_and_in_tempo(estate: Laptop) -> None:
    assert estate.tempo is not None

    def misses(where: Jaeger) -> set[str]:
        return {span.trace_id for span in where.find("support-desk", promptcache__status="miss")}

    assert until(lambda: misses(estate.jaeger) & misses(estate.tempo))
    assert until(lambda: misses(estate.jaeger) == misses(estate.tempo))


@pytest.mark.server
def test_a_fleet_shares_what_it_has_sent(estate: Laptop) -> None:
    """And nothing is lost on the way to Valkey."""
    asked = "sum by (promptcache_history_outcome) (promptcache_history_lookups_total) > 0"
    until(lambda: "answered" in {one["promptcache_history_outcome"] for one, _ in estate.prometheus.query(asked)})
