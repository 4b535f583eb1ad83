"""Metrics as Prometheus reads them, by its own parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str, *, is_openmetrics: bool = False) -> Samples:
    """The values by name and labels. Raises ValueError if the parser rejects the text."""
    parse = openmetrics_families if is_openmetrics else prometheus_families
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels, and any others."""
    wanted = set(labels.items())
    return sum(value for (sample, has), value in found.items() if sample == name and wanted <= has)
