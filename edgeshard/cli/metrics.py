"""Metrics of a watching merger, as a file for Prometheus.

The file is for node_exporter's textfile collector, and is replaced after each pass, so an edge device needs no server
of its own. Counters begin at 0 with each process, as Prometheus expects.
"""

from __future__ import annotations

import os
import time
from typing import Any

from edgeshard.cli.published_file import PublishedFile
from edgeshard.errors import ConfigurationError
from edgeshard.reports import MergeReport, StatusReport

_ACTION = "write metrics"

#: A pass that finds nothing new takes a millisecond, one with a large backlog minutes.
_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)

_COUNTERS = {
    "rows_merged": "Rows copied into the master.",
    "rows_truncated": "Rows deleted from shards, because the master holds them.",
    "rows_pruned": "Rows deleted from the master by the merger's prune rules.",
    "shards_removed": "Shards removed, because their agent has ended and the master holds their rows.",
    "cycles": "Merge passes that completed.",
    "failed_cycles": "Merge passes that failed.",
}

_GAUGES = {
    "quarantined_shards": "Databases that the last pass quarantined.",
    "blocked_rows": "Rows that the last pass did not copy, because their table contradicts the master's.",
    "missing_rows": "Rows known to exist that the master does not hold.",
    "last_success_timestamp_seconds": "When the last merge pass completed.",
    "pending_rows": "Rows in the shards that the master does not hold.",
    "oldest_pending_seconds": "How long, at most, the oldest of them has been pending.",
    "written_bytes": "Bytes written to shards and master since the first day, as far as they are counted.",
    "written_bytes_today": "Bytes written to shards and master today (UTC).",
    "written_bytes_per_row": "Bytes written to shards and master since the first day, per merged row.",
}


class MetricsFile:
    """A file of metrics, written by one merger. Needs ``pip install 'edgeshard[metrics]'``.

    Args:
        path: the file; node_exporter reads only names that end in ``.prom``.

    Raises:
        ConfigurationError: prometheus-client is not installed, the folder does not exist, or the path is a folder.
        AccessError, DiskFullError, StorageIOError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._client = _client()
        self._file = PublishedFile(path, _ACTION)
        registry = self._registry = self._client.CollectorRegistry()
        self._counters = {
            name: self._client.Counter(_named(name), text, registry=registry) for name, text in _COUNTERS.items()
        }
        self._gauges = {
            name: self._client.Gauge(_named(name), text, registry=registry) for name, text in _GAUGES.items()
        }
        self._failed_at = self._client.Gauge(
            _named("last_failure_timestamp_seconds"),
            "When a merge pass last failed with this error.",
            ["error"],
            registry=registry,
        )
        self._seconds = self._client.Histogram(
            _named("cycle_seconds"), "How long a merge pass took.", buckets=_BUCKETS_S, registry=registry
        )

    def count_pass(self, report: MergeReport) -> None:
        """Count a merge pass that completed."""
        self._counters["cycles"].inc()
        self._counters["rows_merged"].inc(report.rows)
        self._counters["rows_truncated"].inc(report.truncated)
        self._counters["rows_pruned"].inc(0 if report.pruned is None else report.pruned.rows)
        self._counters["shards_removed"].inc(report.removed)
        self._seconds.observe(report.seconds)
        self._gauges["quarantined_shards"].set(len(report.quarantined))
        self._gauges["blocked_rows"].set(sum(each.rows for each in report.blocked))
        self._gauges["missing_rows"].set(report.missing_rows)
        self._gauges["last_success_timestamp_seconds"].set(time.time())

    def count_failure(self, error: BaseException) -> None:
        """Count a merge pass that failed."""
        self._counters["failed_cycles"].inc()
        # next to the counter, which must be there before the first failure: rate() does not see a first sample
        self._failed_at.labels(error=type(error).__name__).set(time.time())

    def measure(self, status: StatusReport) -> None:
        """Set the gauges of what is pending, and of the bytes written."""
        self._gauges["pending_rows"].set(status.pending_rows)
        self._gauges["oldest_pending_seconds"].set(status.oldest_age_s or 0.0)
        self._gauges["written_bytes"].set(status.write_stats.bytes)
        self._gauges["written_bytes_today"].set(status.write_stats.today_bytes)
        self._gauges["written_bytes_per_row"].set(status.write_stats.bytes_a_row or 0.0)

    def write(self) -> None:
        """Replace the file; its readers see the old one or the new one, and never a part of it.

        Raises:
            AccessError, DiskFullError, StorageIOError: it cannot be written; the old file stays.
        """
        self._file.replace(self._client.generate_latest(self._registry))


def _named(name: str) -> str:
    return f"edgeshard_{name}"


def _client() -> Any:
    try:
        import prometheus_client  # most stores do not use it
    except ImportError as error:
        cause = "prometheus-client is not installed; install it with: pip install 'edgeshard[metrics]'"
        raise ConfigurationError(_ACTION, "", cause) from error
    return prometheus_client
