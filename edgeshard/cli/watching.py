"""``edgeshard merge --watch``: the service in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import json
import logging
import time

from edgeshard.cli import exits, pruning, signals, systemd
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import EdgeshardError
from edgeshard.merge.watcher import OBSERVERS, Listener, Watcher
from edgeshard.reports import MergeReport
from edgeshard.shard import write_profile
from edgeshard.store import Store

logger = logging.getLogger("edgeshard.merge")


def watch(store: Store, options: argparse.Namespace) -> int:
    """Merge what comes into a store until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: the store cannot be watched, or not be merged into at the start.
    """
    metrics = None if options.metrics_file is None else MetricsFile(options.metrics_file)
    level = write_profile.LEVELS[options.wear or "normal"]
    rescan_s = level.rescan_s if options.rescan is None else options.rescan
    listener = _Reporter(store, metrics, status_every_s=rescan_s, as_json=options.json)
    watcher = Watcher(
        store.root,
        interval_s=level.interval_s if options.interval is None else options.interval,
        rescan_s=rescan_s,
        observer=options.observer or OBSERVERS[0],
        keep_empty=options.keep_empty,
        listener=listener,
        prune=pruning.retention_of(options),
        profile=level,
    )

    def stop() -> None:
        watcher.stop()
        systemd.notify(STOPPING=1)

    with signals.stop_on_signals(stop, watcher.rescan):
        if watcher.open(options.lock_wait):
            watcher.run()
    if not options.quiet and not options.json:
        print(listener.summary())
    return exits.DONE


def _print(line: str) -> None:
    """Print a line. A full disk under stdout does not keep rows from being merged; that nobody reads ends it."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        logger.error("cannot write to stdout: %s", error)


def _write(metrics: MetricsFile) -> None:
    """What goes wrong with the metrics is said, and does not keep rows from being merged."""
    try:
        metrics.write()
    except EdgeshardError as error:
        logger.error("%s", error)


class _Reporter(Listener):
    """Tells the service manager, the log, stdout and the file of metrics what the service does."""

    def __init__(self, store: Store, metrics: MetricsFile | None, *, status_every_s: float, as_json: bool) -> None:
        self._store = store
        self._metrics = metrics
        self._status_every_s = status_every_s
        self._status_at = 0.0
        self.beat_s = systemd.watchdog_interval_s() or Listener.beat_s
        self._as_json = as_json
        self._began = time.monotonic()
        self._beat_at = 0.0
        self._rows = self._passes = self._pruned = 0

    def beat(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:  # it is called more often than it asked for
            self._beat_at = now + self.beat_s / 2
            systemd.notify(WATCHDOG=1)

    def opened(self) -> None:
        logger.info("watching the store")
        systemd.notify(READY=1, STATUS=self.summary())

    def merged(self, report: MergeReport) -> None:
        self._rows += report.rows
        self._pruned += 0 if report.pruned is None else report.pruned.rows
        self._passes += 1
        if report.rows or report.removed or report.pruned is not None or report.prune_problem:
            logger.info("%s", report)
            systemd.notify(STATUS=self.summary())
            if self._as_json:
                _print(json.dumps(report.as_dict()))
        if self._metrics is not None:
            self._metrics.cycle(report)
            self._look_at_what_waits(self._metrics)
            _write(self._metrics)

    def failed(self, error: EdgeshardError) -> None:
        systemd.notify(STATUS=f"failed, and tries again: {error}")
        if self._metrics is not None:
            self._metrics.failed(error)
            _write(self._metrics)

    def recovered(self) -> None:
        systemd.notify(STATUS=self.summary())

    def _look_at_what_waits(self, metrics: MetricsFile) -> None:
        """Now and then: it looks into each shard."""
        now = time.monotonic()
        if now >= self._status_at:
            self._status_at = now + self._status_every_s
            try:
                metrics.waiting(self._store.status())
            except EdgeshardError as error:
                logger.error("%s", error)

    def summary(self) -> str:
        seconds = time.monotonic() - self._began
        pruned = f", pruned {self._pruned} rows" if self._pruned else ""
        return f"merged {self._rows} rows in {self._passes} passes, in {seconds:.3f} s{pruned}"
