"""Metrics of a watching merger, as a file for Prometheus.

The file is for node_exporter's textfile collector, and is replaced after each pass, so an edge device needs no server
of its own. Counters begin at 0 with each process, as Prometheus expects.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from edgeshard.cli.published_file import PublishedFile
from edgeshard.errors import ConfigurationError
from edgeshard.reports import Level, MergeReport, ShardStatus, StatusReport

_ACTION = "write metrics"

#: How prometheus-client begins a file whose first metric is one of ours.
_BEGINNING = b"# HELP edgeshard_"

#: A pass that finds nothing new takes a millisecond, one with a large backlog minutes.
_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)

_COUNTERS = {
    "rows_merged": "Rows copied into the master.",
    "rows_truncated": "Rows deleted from shards, because the master holds them.",
    "rows_pruned": "Rows deleted from the master by the merger's prune rules.",
    "shards_removed": "Shards removed, because their agent has ended and the master holds their rows.",
    "passes": "Merge passes that completed.",
    "failed_passes": "Merge passes that failed.",
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
    "master_bytes": "Size of the master's file.",
    "master_wal_bytes": "Size of the master's WAL.",
    "master_rows": "Rows in the master.",
    "shards": "Shards, in use or not.",
    "live_writers": "Shards whose agent is alive.",
    "budget_limit_bytes": "What the store may use now, by its disk budget and its disk; 0 without a budget.",
    "budget_used_bytes": "What the store uses of its disk budget; 0 without a budget.",
    "budget_full": "1 if the disk budget is full, so that writers are refused; otherwise 0.",
    "clock_in_doubt": "1 if deletions wait until this machine's clock is confirmed; otherwise 0.",
    "clock_ahead_seconds": "How far the clock has gone ahead of the time by which rows become too old.",
}

#: Metrics that are there once for each value of a label: (what they say, the label).
_LABELLED = {
    "pending_rows_by_age": ("Rows in shards whose oldest pending row has been pending for at most this long.", "le"),
    "problems": ("What `edgeshard status` finds wrong, by its level.", "level"),
    "last_failure_timestamp_seconds": ("When a merge pass last failed with this error.", "error"),
}

#: The bounds of ages of pending rows, in seconds.
_AGES_S = (60, 600, 3_600, 21_600, 86_400)

_LEVELS: tuple[Level, ...] = ("yellow", "red")


class MetricsFile:
    """A file of metrics, written by one merger. Needs ``pip install 'edgeshard[metrics]'``.

    Args:
        path: the file; node_exporter reads only names that end in ``.prom``.
        root: the merger's store, or None.

    Raises:
        ConfigurationError: prometheus-client is not installed, the folder does not exist, or something is there that
            must not be replaced; see `PublishedFile`.
        AccessError, DiskFullError, StorageIOError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], root: Path | None = None) -> None:
        self._client = _client()
        self._file = PublishedFile(path, _ACTION, _BEGINNING, root)
        registry = self._registry = self._client.CollectorRegistry()
        self._counters = {
            name: self._client.Counter(_named(name), text, registry=registry) for name, text in _COUNTERS.items()
        }
        self._gauges = {
            name: self._client.Gauge(_named(name), text, registry=registry) for name, text in _GAUGES.items()
        }
        self._labelled = {
            name: self._client.Gauge(_named(name), text, [label], registry=registry)
            for name, (text, label) in _LABELLED.items()
        }
        self._seconds = self._client.Histogram(
            _named("pass_seconds"), "How long a merge pass took.", buckets=_BUCKETS_S, registry=registry
        )

    def count_pass(self, report: MergeReport) -> None:
        """Count a merge pass that completed."""
        self._counters["passes"].inc()
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
        self._counters["failed_passes"].inc()
        # next to the counter, which must be there before the first failure: rate() does not see a first sample
        self._labelled["last_failure_timestamp_seconds"].labels(type(error).__name__).set(time.time())

    def measure(self, status: StatusReport) -> None:
        """Set the gauges of what the store holds, what is pending, and what is wrong."""
        budget, clock = status.budget, status.clock
        values = {
            "pending_rows": status.pending_rows,
            "oldest_pending_seconds": status.oldest_age_s or 0.0,
            "written_bytes": status.write_stats.bytes,
            "written_bytes_today": status.write_stats.today_bytes,
            "written_bytes_per_row": status.write_stats.bytes_a_row or 0.0,
            "master_bytes": status.master.size_bytes,
            "master_wal_bytes": status.master.wal_bytes,
            "master_rows": status.master.rows,
            "shards": len(status.shards),
            "live_writers": sum(bool(shard.alive) for shard in status.shards),
            "budget_limit_bytes": 0 if budget is None else budget.limit_bytes,
            "budget_used_bytes": 0 if budget is None else budget.used_bytes,
            "budget_full": budget is not None and budget.is_full,
            "clock_in_doubt": clock is not None and not clock.complete,
            "clock_ahead_seconds": 0.0 if clock is None else clock.ahead_s,
        }
        for name, value in values.items():
            self._gauges[name].set(value)
        for age_s in (*_AGES_S, math.inf):
            rows = sum(shard.pending_rows or 0 for shard in status.shards if _age_s(shard) <= age_s)
            self._labelled["pending_rows_by_age"].labels("+Inf" if age_s == math.inf else str(age_s)).set(rows)
        levels = [problem.level for problem in status.problems]
        for level in _LEVELS:
            self._labelled["problems"].labels(level).set(levels.count(level))

    def write(self) -> None:
        """Replace the file; its readers see the old one or the new one, and never a part of it.

        Raises:
            ConfigurationError: meanwhile something else was put there, which stays.
            AccessError, DiskFullError, StorageIOError: it cannot be written; the old file stays.
        """
        self._file.replace(self._client.generate_latest(self._registry))


def _age_s(shard: ShardStatus) -> float:
    """Return how long the oldest row of a shard has been pending, at most; infinity if that is unknown."""
    return math.inf if shard.oldest_age_s is None else shard.oldest_age_s


def _named(name: str) -> str:
    return f"edgeshard_{name}"


def _client() -> Any:
    try:
        import prometheus_client  # most stores do not use it
    except ImportError as error:
        cause = "prometheus-client is not installed; install it with: pip install 'edgeshard[metrics]'"
        raise ConfigurationError(_ACTION, "", cause) from error
    return prometheus_client
