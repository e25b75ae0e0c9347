"""What a watching merger does, as a file for Prometheus.

The file is for node_exporter's textfile collector: one that is written whole after each pass, so that an edge device
needs no server of its own. Counters begin at 0 with each process, as Prometheus expects of them.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from edgeshard.errors import ConfigurationError
from edgeshard.files.os_errors import explain_os_error
from edgeshard.reports import MergeReport

if TYPE_CHECKING:
    from edgeshard.inspect.status import StatusReport


_ACTION = "write metrics"

#: A pass that finds no news takes a millisecond, one with a large backlog minutes.
_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)

_COUNTERS = {
    "rows_merged": "Rows copied into the master.",
    "rows_truncated": "Rows deleted from shards, because the master holds them.",
    "rows_pruned": "Rows deleted from the master by the rules that the merger was given.",
    "shards_removed": "Shards removed, because their agent is gone and the master holds their rows.",
    "cycles": "Merge passes that came to their end.",
    "failed_cycles": "Merge passes that failed.",
}

_GAUGES = {
    "quarantined_shards": "Databases that the last pass set aside.",
    "missing_rows": "Rows known to exist that the master does not hold.",
    "last_success_timestamp_seconds": "When the last merge pass came to its end.",
    "pending_rows": "Rows in the shards that the master does not hold.",
    "written_bytes": "Written to shards and master since the first day, as far as it is counted.",
    "written_bytes_today": "The same, on this day (UTC).",
    "written_bytes_per_row": "The same since the first day, for each row that was merged.",
    "oldest_waiting_seconds": "For how long, at the most, the oldest of them has waited.",
}


class MetricsFile:
    """A file of metrics, kept by one merger. Needs ``pip install 'edgeshard[metrics]'``.

    Args:
        path: the file; node_exporter reads only names that end in ``.prom``.

    Attributes:
        path: the file, absolute.

    Raises:
        ConfigurationError: prometheus-client is not installed, there is no such folder, or a folder has that name.
        AccessError, DiskFullError, StorageIOError: nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._client = _client()
        _check(self.path)
        registry = self._registry = self._client.CollectorRegistry()
        self._counters = {
            name: self._client.Counter(_named(name), text, registry=registry) for name, text in _COUNTERS.items()
        }
        self._gauges = {
            name: self._client.Gauge(_named(name), text, registry=registry) for name, text in _GAUGES.items()
        }
        self._failed_at = self._client.Gauge(
            _named("last_failure_timestamp_seconds"), "When a merge pass last failed so.", ["error"], registry=registry
        )
        self._seconds = self._client.Histogram(
            _named("cycle_seconds"), "How long a merge pass took.", buckets=_BUCKETS_S, registry=registry
        )

    def cycle(self, report: MergeReport) -> None:
        """Count a merge pass that came to its end."""
        self._counters["cycles"].inc()
        self._counters["rows_merged"].inc(report.rows)
        self._counters["rows_truncated"].inc(report.truncated)
        self._counters["rows_pruned"].inc(0 if report.pruned is None else report.pruned.rows)
        self._counters["shards_removed"].inc(report.removed)
        self._seconds.observe(report.seconds)
        self._gauges["quarantined_shards"].set(len(report.quarantined))
        self._gauges["missing_rows"].set(sum(map(len, report.gaps)))
        self._gauges["last_success_timestamp_seconds"].set(time.time())

    def failed(self, error: BaseException) -> None:
        """Count a merge pass that failed."""
        self._counters["failed_cycles"].inc()
        # beside the counter, which must be there before the first failure: rate() does not see a first sample
        self._failed_at.labels(error=type(error).__name__).set(time.time())

    def waiting(self, status: StatusReport) -> None:
        """Note what waits to be merged."""
        oldest = status.oldest
        self._gauges["pending_rows"].set(status.pending_rows)
        self._gauges["written_bytes"].set(status.wear.bytes)
        self._gauges["written_bytes_today"].set(status.wear.today_bytes)
        self._gauges["written_bytes_per_row"].set(status.wear.bytes_a_row or 0.0)
        self._gauges["oldest_waiting_seconds"].set(0.0 if oldest is None else oldest.oldest_age_s or 0.0)

    def write(self) -> None:
        """Write the file, so that its readers see the old one or the new one, and never a part.

        Raises:
            AccessError, DiskFullError, StorageIOError: it cannot be written; the old one stays.
        """
        try:
            self._client.write_to_textfile(self.path, self._registry)
        except OSError as error:
            raise explain_os_error(error, _ACTION, self.path) from error


def _named(name: str) -> str:
    return f"edgeshard_{name}"


def _client() -> Any:
    try:
        import prometheus_client  # most stores have no use for it
    except ImportError as error:
        cause = "prometheus-client is not installed; install it with: pip install 'edgeshard[metrics]'"
        raise ConfigurationError(_ACTION, "", cause) from error
    return prometheus_client


def _check(path: str) -> None:
    """Find out now, and not after the first pass, that nothing can be written there."""
    import tempfile  # it brings all that packs archives, and most mergers keep no metrics

    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise ConfigurationError(_ACTION, path, "it is a folder; name the file to make in it")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(_ACTION, path, f"there is no folder {folder}; make it") from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, path) from error
