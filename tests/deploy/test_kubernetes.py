"""The Kubernetes manifests, rendered and checked against Kubernetes' own schemas."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sanic_proxy.config.loader import load
from sanic_proxy.server.supervisor import MARGIN_S

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts/deploy/kubernetes"
KUSTOMIZATIONS = ["base", "overlays/scaled"]
VERSION = "1.37"
CUSTOM = {"ServiceMonitor"}  # the Prometheus Operator's, whose schema is not Kubernetes' own

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def only(kind: str, name: str = "base") -> dict[str, Any]:
    (found,) = (document for document in rendered(name) if document["kind"] == kind)
    return found


@needs_kubectl
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_kubernetes_accepts_the_manifests(name: str) -> None:
    for document in rendered(name):
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, VERSION, strict=True)


@needs_kubectl
def test_a_misspelt_field_would_be_found() -> None:
    document = {**only("Service"), "spec": {**only("Service")["spec"], "portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSION, strict=True)


@needs_kubectl
def test_a_pod_has_the_time_that_the_settings_give(tmp_path: Path) -> None:
    toml = only("ConfigMap")["data"]["proxy.toml"]
    (tmp_path / "proxy.toml").write_text(toml)
    settings = load({"SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path)
    pod = only("Deployment")["spec"]["template"]["spec"]
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > settings.ending.lame_duck_s + settings.ending.drain_s + MARGIN_S
    assert only("ConfigMap")["metadata"]["name"] == pod["volumes"][0]["configMap"]["name"]
    values = yaml.safe_load((FOLDER / "helm/sanic-proxy/values.yaml").read_text("utf-8"))
    assert (values["lameDuckSeconds"], values["drainSeconds"]) == (
        settings.ending.lame_duck_s,
        settings.ending.drain_s,
    )
    assert MARGIN_S < 30  # what the chart adds to both
    assert tomllib.loads(values["config"])["proxy"].items() <= tomllib.loads(toml)["proxy"].items()


@needs_kubectl
def test_the_container_is_locked_down_and_probed() -> None:
    pod = only("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
    assert paths == {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/health/readiness",
    }
    assert container["envFrom"] == [{"secretRef": {"name": "sanic-proxy-keys"}}]


@needs_kubectl
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_everything_selects_the_pods_of_the_deployment(name: str) -> None:
    labels = only("Deployment", name)["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "sanic-proxy"}
    assert only("Service", name)["spec"]["selector"] == labels
    assert only("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
    assert only("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == labels


@needs_kubectl
def test_the_number_of_pods_belongs_to_the_autoscaler_where_there_is_one() -> None:
    assert "replicas" not in only("Deployment", "overlays/scaled")["spec"]
    scaler = only("HorizontalPodAutoscaler", "overlays/scaled")["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "sanic_proxy_requests_in_flight"
    assert scaler["scaleTargetRef"]["name"] == only("Deployment")["metadata"]["name"]
    monitor = only("ServiceMonitor", "overlays/scaled")["spec"]
    assert monitor["selector"]["matchLabels"] == only("Service")["metadata"]["labels"]
