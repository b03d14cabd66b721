"""Tell where each row comes from: the commands, commits and dates of its runs, and the options that set it apart."""

from typing import Any

from warmstart.config.schema import DEFAULTS
from warmstart.report.compare import Row


def config_differences(rows: list[Row]) -> list[dict[str, str]]:
    """Return for each row the options that differ between any of the rows, with its own values."""
    configs = [row.runs[0].choices for row in rows]
    every = sorted({key for config in configs for key in config})
    full = [{key: config.get(key, DEFAULTS.get(key, "not recorded")) for key in every} for config in configs]
    varying = [key for key in every if len({config[key] for config in full}) > 1]
    return [{key: config[key] for key in varying} for config in full]


def signed_rows(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the signatures of all metrics.

    Returns:
        Sorted by ``signature``. ``rows`` has the names of the rows whose runs have it; it is empty if all rows that
        have signatures agree in this metric.
    """
    signed = {row.label: {text for run in row.runs for text in run.signatures} for row in rows}
    signed = {name: found for name, found in signed.items() if found}
    return [
        {"signature": text, "rows": [] if all(text in found for found in signed.values()) else having}
        for text in sorted(set().union(*signed.values()))
        for having in [[name for name, found in signed.items() if text in found]]
    ]
