"""deploy/kubernetes against the schemas of Kubernetes and of the OpenTelemetry Operator, and what its resources say."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import DEPLOY, built

import otel_promptcache
from otel_promptcache.emulator import emulator

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (pip install --group dev)")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

KUBERNETES = DEPLOY / "kubernetes"
RESOURCES = sorted((KUBERNETES / "base").glob("*.yaml")) + sorted((KUBERNETES / "example").glob("*.yaml"))
OPERATORS = [
    path for path in RESOURCES if yaml.safe_load(path.read_text())["apiVersion"].startswith("opentelemetry.io/")
]


def strict(schema: Any) -> Any:
    """As the API server reads it: a field that is not declared is a mistake, unless it may be anything."""
    if isinstance(schema, dict):
        made = {name: strict(value) for name, value in schema.items()}
        if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        return made
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


def problems(resource: dict[str, Any]) -> list[str]:
    """What the Operator's own definition has against a resource."""
    version = resource["apiVersion"].rpartition("/")[2]
    for file in Path(built("operator-crds")).glob("opentelemetry.io_*.yaml"):
        definition = yaml.safe_load(file.read_text())["spec"]
        if definition["names"]["kind"] == resource["kind"]:
            (schema,) = (one["schema"]["openAPIV3Schema"] for one in definition["versions"] if one["name"] == version)
            schema = copy.deepcopy(schema)
            schema["properties"]["metadata"] = {}
            return [error.message for error in jsonschema.Draft4Validator(strict(schema)).iter_errors(resource)]
    return [f"the Operator has no {resource['kind']}"]


@pytest.mark.verifies("Kubernetes resources")
@pytest.mark.server
@pytest.mark.parametrize("file", OPERATORS, ids=lambda file: file.stem)
def test_a_resource_is_one_of_the_operators(file: Path) -> None:
    assert problems(yaml.safe_load(file.read_text())) == []


@pytest.mark.server
def test_a_wrong_resource_is_noticed() -> None:
    """That validation means something."""
    resource = yaml.safe_load((KUBERNETES / "base" / "gateway.yaml").read_text())
    resource["spec"]["replicass"] = 2
    resource["spec"]["mode"] = "swarm"
    assert len(problems(resource)) == 2


def test_the_operators_resources_are_three() -> None:
    assert [path.stem for path in OPERATORS] == ["agent", "gateway", "instrumentation"]


@pytest.mark.verifies("Kubernetes resources")
@pytest.mark.parametrize("name", ["example/shop.yaml", "package/deployment.yaml"])
def test_a_deployment_is_one(name: str) -> None:
    """A patch is one when what it is laid over brings the rest."""
    resource = yaml.safe_load((KUBERNETES / name).read_text())
    if name.startswith("package"):
        resource["spec"]["selector"] = {"matchLabels": {"app": "any"}}
        resource["spec"]["template"]["metadata"] = {"labels": {"app": "any"}}
        for container in resource["spec"]["template"]["spec"]["containers"]:
            container["image"] = "any"
    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_the_collectors_are_what_the_configurations_make() -> None:
    """`python deploy/kubernetes/render.py` writes them."""
    done = subprocess.run([sys.executable, KUBERNETES / "render.py", "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.verifies("Collector configurations")
@pytest.mark.server
@pytest.mark.parametrize("name", ["agent", "gateway"])
def test_the_collector_accepts_the_configuration_inside(name: str, tmp_path: Path) -> None:
    resource = yaml.safe_load((KUBERNETES / "base" / f"{name}.yaml").read_text())
    file = tmp_path / "collector.yaml"
    file.write_text(yaml.safe_dump(resource["spec"]["config"]))
    variables = {one["name"]: one.get("value", "127.0.0.1") for one in resource["spec"]["env"]}
    variables |= {"COLLECTOR_DIRECTORY": str(DEPLOY / "collector"), "PATH": "/usr/bin"}
    command = [built("collector"), "validate", f"--config={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr


def put_together(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What `kubectl apply -k` sends, by kind and name."""
    done = subprocess.run(
        [built("kustomize"), "build", KUBERNETES / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


@pytest.mark.verifies("Kubernetes resources")
@pytest.mark.server
def test_what_is_applied_is_valid() -> None:
    """All of it, put together by kustomize."""
    collectors = {("OpenTelemetryCollector", f"promptcache-{name}") for name in ("agent", "gateway")}
    base = {("Instrumentation", "promptcache"), ("ConfigMap", "promptcache-collector")} | collectors
    assert put_together("base").keys() == base
    applied = put_together("example")
    assert applied.keys() == base | {("Deployment", "shop")}
    for resource in applied.values():
        if resource["apiVersion"].startswith("opentelemetry.io/"):
            assert problems(resource) == []
        else:
            kubernetes_validate.validate(resource, "1.31", strict=True)


@pytest.mark.server
def test_the_gateway_finds_its_files() -> None:
    """The volume that it mounts is of the map that is applied with it, with every file that it reads."""
    applied = put_together("base")
    gateway = applied["OpenTelemetryCollector", "promptcache-gateway"]["spec"]
    maps = [volume["configMap"]["name"] for volume in gateway["volumes"] if "configMap" in volume]
    held = {file for name in maps for file in applied["ConfigMap", name]["data"]}
    read = set(re.findall(r"COLLECTOR_DIRECTORY[^}]*\}/([\w.]+)", json.dumps(gateway["config"])))
    assert read
    assert read <= held


@pytest.mark.server
def test_a_deployment_gets_the_package_and_its_launcher_starts_it(tmp_path: Path) -> None:
    """The init container's command, run; then an application in the environment of its container, which has no other
    way to us: the call that it makes is observed."""
    pod = put_together("example")["Deployment", "shop"]["spec"]["template"]["spec"]
    (init,), (app,) = pod["initContainers"], pod["containers"]
    mounted = init["volumeMounts"][0]["mountPath"]
    _, *arguments, package = (one.replace(mounted, str(tmp_path)) for one in init["command"])
    assert package.startswith("otel-promptcache[")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    here = ("--no-deps", "--no-build-isolation")  # what it needs is here already, and what builds it
    subprocess.run([*pip, *here, DEPLOY.parent], check=True)
    environment = {one["name"]: one["value"].replace(mounted, str(tmp_path)) for one in app["env"]}
    environment["PYTHONPATH"] += os.pathsep + sysconfig.get_path("purelib")  # its own libraries: no .pth counts there
    bare = venv.EnvBuilder(symlinks=True)
    bare.create(tmp_path / "venv")
    with emulator() as provider:
        called = subprocess.run(
            [tmp_path / "venv" / "bin" / "python", "-c", CALL, provider.url],
            env={**environment, "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"{tmp_path}/otel_promptcache/__init__.py" in called.stdout
    assert '"promptcache.status": "uncacheable"' in called.stdout, called.stderr


CALL = """
import sys, anthropic, otel_promptcache
print(otel_promptcache.__file__)
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="any")
client.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": "Hello"}])
"""


def test_the_package_is_where_it_is_looked_for() -> None:
    """What PYTHONPATH names in the volume is the directory that starts us."""
    patch = yaml.safe_load((KUBERNETES / "package" / "deployment.yaml").read_text())
    (app,) = patch["spec"]["template"]["spec"]["containers"]
    first = {one["name"]: one["value"] for one in app["env"]}["PYTHONPATH"].split(":")[0]
    inside = Path(first).relative_to(app["volumeMounts"][0]["mountPath"])
    assert (DEPLOY.parent / "src" / inside / "sitecustomize.py").exists()


def test_the_package_is_of_this_version() -> None:
    """And not of whatever is the newest when a pod starts."""
    patch = yaml.safe_load((KUBERNETES / "package" / "deployment.yaml").read_text())
    (init,) = patch["spec"]["template"]["spec"]["initContainers"]
    assert init["command"][-1] == f"otel-promptcache[otlp]=={otel_promptcache.__version__}"


def test_gateways_are_scraped_as_on_a_laptop() -> None:
    """Both pages, with the relabelling of ../prometheus/prometheus.yaml."""
    monitor = yaml.safe_load((KUBERNETES / "monitor" / "podmonitor.yaml").read_text())["spec"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    shipped = [
        {re.sub("_(.)", lambda found: found[1].upper(), name): value for name, value in rule.items()}
        for rule in job["metric_relabel_configs"]
    ]
    exporters = yaml.safe_load((KUBERNETES / "base" / "gateway.yaml").read_text())["spec"]["config"]["exporters"]
    pages = [exporters[name]["endpoint"].rpartition(":")[2] for name in ("prometheus", "prometheus/counted")]
    assert [str(page["portNumber"]) for page in monitor["podMetricsEndpoints"]] == pages
    assert all(page["metricRelabelings"] == shipped for page in monitor["podMetricsEndpoints"])
