"""``--watch``: a merger or a push as a service in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

from edgeshard.cli import exits, output, signals, systemd
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import EdgeshardError
from edgeshard.reports import MergeReport, PushReport
from edgeshard.store import OBSERVERS, PROFILES, PUSH_INTERVAL_S, MergeListener, PushListener, Store


def merge(store: Store, options: argparse.Namespace) -> int:
    """Merge new rows of a store until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: the store cannot be watched, or the first merge failed.
    """
    metrics = None if options.metrics_file is None else MetricsFile(options.metrics_file)
    rescan_s = PROFILES[options.wear or "normal"].rescan_s if options.rescan is None else options.rescan
    reporter = _MergeReporter(store, metrics, status_every_s=rescan_s, as_json=options.json)
    service = store.watcher(
        interval=options.interval,
        rescan=rescan_s,
        observer=options.observer or OBSERVERS[0],
        keep_empty=options.keep_empty,
        listener=reporter,
    )

    def run() -> None:
        if service.open(options.lock_wait):
            service.run()

    return _run(run, service.stop, reporter, options, on_hangup=service.rescan)


def push(store: Store, options: argparse.Namespace) -> int:
    """Push what merges bring into a store's master until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: pushing cannot work, and waiting does not help.
    """
    reporter = _PushReporter(as_json=options.json)
    service = store.push_watcher(
        options.dsn,
        interval=PUSH_INTERVAL_S if options.interval is None else options.interval,
        batch=options.batch,
        inserts=options.inserts,
        listener=reporter,
    )
    return _run(service.run, service.stop, reporter, options)


def _run(
    run: Callable[[], None],
    stop: Callable[[], None],
    reporter: _Reporter,
    options: argparse.Namespace,
    on_hangup: Callable[[], None] | None = None,
) -> int:
    def on_stop() -> None:
        stop()
        systemd.notify(STOPPING=1)

    with signals.stop_on_signals(on_stop, on_hangup):
        run()
    if not options.quiet and not options.json:
        print(reporter.summary())
    return exits.DONE


class _Reporter:
    """Reports what a service does to the service manager, the log and stdout.

    Args:
        doing: what the log says once the service runs: "watching the store".
        done: what is done with rows: "merged".
        rounds: what its rounds are called: "passes".
        as_json: whether to print the report of each round as a line of JSON.
        log: where to log.
    """

    def __init__(self, doing: str, done: str, rounds: str, *, as_json: bool, log: logging.Logger) -> None:
        self._doing = doing
        self._done = done
        self._rounds = rounds
        self._as_json = as_json
        self._log = log
        self._began = time.monotonic()
        self._row_count = self._round_count = self._pruned_count = 0

    def opened(self) -> None:
        self._log.info("%s", self._doing)
        systemd.notify(READY=1, STATUS=self.summary())

    def recovered(self) -> None:
        systemd.notify(STATUS=self.summary())

    def summary(self) -> str:
        seconds = time.monotonic() - self._began
        pruned = f", pruned {self._pruned_count} rows" if self._pruned_count else ""
        return f"{self._done} {self._row_count} rows in {self._round_count} {self._rounds}, in {seconds:.3f} s{pruned}"

    def _count(self, rows: int) -> None:
        self._row_count += rows
        self._round_count += 1

    def _report(self, report: MergeReport | PushReport) -> None:
        self._log.info("%s", report)
        systemd.notify(STATUS=self.summary())
        if self._as_json:
            self._print(output.to_json(report.as_dict()))

    def _print(self, line: str) -> None:
        """Print a line. A full disk behind stdout does not end the service; a reader that closed the pipe does."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._log.error("cannot write to stdout: %s", error)

    def _report_failure(self, error: EdgeshardError) -> None:
        systemd.notify(STATUS=f"failed, will try again: {error}")


class _MergeReporter(_Reporter, MergeListener):
    """Also keeps the metrics file, and tells systemd's watchdog that the service is alive; the merger logs failures."""

    def __init__(self, store: Store, metrics: MetricsFile | None, *, status_every_s: float, as_json: bool) -> None:
        super().__init__(
            "watching the store", "merged", "passes", as_json=as_json, log=logging.getLogger("edgeshard.merge")
        )
        self._store = store
        self._metrics = metrics
        self._status_every_s = status_every_s
        self._status_at = 0.0
        self.beat_s = systemd.watchdog_interval_s() or MergeListener.beat_s
        self._beat_at = 0.0

    def beat(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:  # it is called more often than necessary
            self._beat_at = now + self.beat_s / 2
            systemd.notify(WATCHDOG=1)

    def merged(self, report: MergeReport) -> None:
        self._count(report.rows)
        self._pruned_count += 0 if report.pruned is None else report.pruned.rows
        if report.rows or report.removed or report.pruned is not None or report.prune_error:
            self._report(report)
        if self._metrics is not None:
            self._metrics.count_pass(report)
            self._measure_pending(self._metrics)
            self._write(self._metrics)

    def failed(self, error: EdgeshardError) -> None:
        self._report_failure(error)
        if self._metrics is not None:
            self._metrics.count_failure(error)
            self._write(self._metrics)

    def _measure_pending(self, metrics: MetricsFile) -> None:
        """Measure what is pending, from time to time: that opens each shard."""
        now = time.monotonic()
        if now >= self._status_at:
            self._status_at = now + self._status_every_s
            try:
                metrics.measure(self._store.status())
            except EdgeshardError as error:
                self._log.error("%s", error)

    def _write(self, metrics: MetricsFile) -> None:
        """Write the metrics. If that fails it is logged, and rows are still merged."""
        try:
            metrics.write()
        except EdgeshardError as error:
            self._log.error("%s", error)


class _PushReporter(_Reporter, PushListener):
    """Also logs rejected rows and failures."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(
            "pushing what merges bring", "pushed", "pushes", as_json=as_json, log=logging.getLogger("edgeshard.push")
        )

    def pushed(self, report: PushReport) -> None:
        self._count(report.rows)
        for rejected in report.rejected:
            self._log.warning("%s", rejected)
        self._report(report)

    def failed(self, error: EdgeshardError, delay_s: float) -> None:
        self._log.error("%s; trying again in %.3g s", error, delay_s)
        self._report_failure(error)

    def recovered(self) -> None:
        self._log.warning("pushing works again")
        super().recovered()
