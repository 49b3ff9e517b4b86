"""deploy/kubernetes against the schemas of Kubernetes and of the OpenTelemetry Operator, and what its resources say."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import DEPLOY, built

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


def test_every_file_that_is_named_is_there() -> None:
    for file in (*KUBERNETES.rglob("kustomization.yaml"), DEPLOY / "collector" / "kustomization.yaml"):
        told = yaml.safe_load(file.read_text())
        named = [*told.get("resources", ()), *told.get("components", ())]
        named += [patch["path"] for patch in told.get("patches", ())]
        named += [one for made in told.get("configMapGenerator", ()) for one in made["files"]]
        assert all((file.parent / one).exists() for one in named), file


def test_the_package_is_where_it_is_looked_for() -> None:
    """What PYTHONPATH names in the volume is the directory that starts us."""
    patch = yaml.safe_load((KUBERNETES / "package" / "deployment.yaml").read_text())
    (app,) = patch["spec"]["template"]["spec"]["containers"]
    first = {one["name"]: one["value"] for one in app["env"]}["PYTHONPATH"].split(":")[0]
    inside = Path(first).relative_to(app["volumeMounts"][0]["mountPath"])
    assert (DEPLOY.parent / "src" / inside / "sitecustomize.py").exists()
