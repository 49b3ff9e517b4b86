"""render.py [--check]: writes base/agent.yaml and base/gateway.yaml, resources of the OpenTelemetry Operator, from the
configurations in ../collector. ``--check`` writes nothing, and fails where a file is another. Needs PyYAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
COLLECTOR = HERE.parent / "collector"
HEADER = "# Written by ../render.py from ../../collector/{}.yaml: change that.\n"
IMAGE = "otel/opentelemetry-collector-contrib:0.159.0"
GATEWAY = "promptcache-gateway"
MOUNT = "/etc/promptcache"
QUEUE = "/queue"
WRITES = {"fsGroup": 10001}  # the image's user, to the queue
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def configuration(name: str) -> dict[str, Any]:
    """As it stands, listening on the pod's address; the Operator reads the ports."""
    found: dict[str, Any] = yaml.safe_load((COLLECTOR / f"{name}.yaml").read_text())
    for protocol, port in (("grpc", 4317), ("http", 4318)):
        found["receivers"]["otlp"]["protocols"][protocol]["endpoint"] = f"${{env:POD_IP}}:{port}"
    found["extensions"]["health_check"]["endpoint"] = "${env:POD_IP}:13133"
    (reader,) = found["service"]["telemetry"]["metrics"]["readers"]
    reader["pull"]["exporter"]["prometheus"] = {"host": "${env:POD_IP}", "port": 8888}
    return found


def collector(name: str, config: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "opentelemetry.io/v1beta1",
        "kind": "OpenTelemetryCollector",
        "metadata": {"name": f"promptcache-{name}"},
        "spec": {"image": IMAGE, "resources": {"limits": {"memory": "2Gi"}}, **spec, "config": config},
    }


def agent() -> dict[str, Any]:
    """One a node; gateways by the name of their service, as many as there are."""
    config = configuration("agent")
    for exporter in config["exporters"].values():
        exporter["resolver"] = {"dns": {"hostname": f"{GATEWAY}-collector-headless", "port": "4317"}}
    return collector(
        "agent",
        config,
        mode="daemonset",
        env=[POD_IP, {"name": "QUEUE_DIRECTORY", "value": QUEUE}],
        podSecurityContext=WRITES,
        volumes=[{"name": "queue", "emptyDir": {}}],  # as long as the pod is, however often the Collector begins again
        volumeMounts=[{"name": "queue", "mountPath": QUEUE}],
    )


def gateway() -> dict[str, Any]:
    """Two, each with its queue on disk."""
    config = configuration("gateway")
    config["exporters"]["prometheus"]["endpoint"] = "${env:POD_IP}:8889"
    config["exporters"]["prometheus/counted"]["endpoint"] = "${env:POD_IP}:8890"
    password = {"secretKeyRef": {"name": "promptcache", "key": "clickhouse-password", "optional": True}}
    variables = {
        "TRACES_ENDPOINT": "jaeger:4317",
        "CLICKHOUSE_ENDPOINT": "tcp://clickhouse:9000",
        "COLLECTOR_DIRECTORY": MOUNT,
        "QUEUE_DIRECTORY": QUEUE,
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    return collector(
        "gateway",
        config,
        mode="statefulset",
        replicas=2,
        env=[
            POD_IP,
            *({"name": name, "value": value} for name, value in variables.items()),
            {"name": "CLICKHOUSE_PASSWORD", "valueFrom": password},
        ],
        podSecurityContext=WRITES,
        volumeClaimTemplates=[{"metadata": {"name": "queue"}, "spec": claim}],
        volumes=[{"name": "collector", "configMap": {"name": "promptcache-collector"}}],
        volumeMounts=[
            {"name": "queue", "mountPath": QUEUE},
            {"name": "collector", "mountPath": MOUNT, "readOnly": True},
        ],
    )


class _Plain(yaml.SafeDumper):
    """Without anchors: the resource is read by people."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def main() -> int:
    stale = []
    for name, resource in (("agent", agent()), ("gateway", gateway())):
        file = HERE / "base" / f"{name}.yaml"
        text = HEADER.format(name) + yaml.dump(resource, Dumper=_Plain, sort_keys=False, width=160)
        if "--check" not in sys.argv[1:]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(file.name)
    if stale:
        print(f"not what render.py makes: {', '.join(stale)}", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
