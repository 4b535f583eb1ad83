"""The Grafana dashboard asks for metrics that exist, by labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs

from sanic_proxy.metrics.families import FAMILIES

DASHBOARD = Path(__file__).parents[2] / "scripts" / "deploy" / "grafana" / "sanic-proxy.json"
# What Grafana's dashboard schema (version 39) demands of the parts that we use.
SCHEMA = {
    "type": "object",
    "required": ["title", "uid", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "schemaVersion": {"const": 39},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "targets", "datasource", "fieldConfig"],
                "properties": {
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {"w": {"maximum": 24}, "x": {"minimum": 0, "maximum": 23}},
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "object", "required": ["refId", "expr", "legendFormat"]},
                    },
                },
            },
        },
    },
}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text("utf-8"))


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    jsonschema_rs.validate(SCHEMA, dashboard())
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_its_queries_name_metrics_and_labels_that_exist() -> None:
    labels = {
        family.name + suffix: {*family.labels, "le"}
        for family in FAMILIES
        for suffix in SUFFIXES[family.kind]
    }
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"sanic_proxy_[a-z_]+", target["expr"])
            assert names
            used = {
                *re.findall(r"([a-z]+)!?=\"", target["expr"]),
                *(
                    label.strip()
                    for group in re.findall(r"by \(([a-z, ]+)\)", target["expr"])
                    for label in group.split(",")
                ),
                *re.findall(r"{{([a-z]+)}}", target["legendFormat"]),
            }
            assert set(names) <= labels.keys()
            assert all(used <= labels[name] for name in names), (names, used)
