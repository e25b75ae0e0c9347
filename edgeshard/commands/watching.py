"""``edgeshard merge --watch``: the service in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import json
import logging
import time

from edgeshard import exits, systemd
from edgeshard.commands import signals
from edgeshard.errors import EdgeshardError
from edgeshard.merge.service import Listener, Service
from edgeshard.metrics import MetricsFile
from edgeshard.report import MergeReport
from edgeshard.store import Store

logger = logging.getLogger("edgeshard.merge")


def watch(store: Store, options: argparse.Namespace) -> int:
    """Merge what comes into a store until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: the store cannot be watched, or not be merged into at the start.
    """
    metrics = None if options.metrics_file is None else MetricsFile(options.metrics_file)
    listener = _Reporter(store, metrics, status_every_s=options.rescan, as_json=options.json)
    service = Service(
        store.root,
        interval_s=options.interval,
        rescan_s=options.rescan,
        observer=options.observer,
        keep_empty=options.keep_empty,
        listener=listener,
    )
    with signals.heeded(service.stop, service.rescan):
        if service.open(options.lock_wait):
            service.run()
    systemd.notify(STOPPING=1)
    if not options.quiet and not options.json:
        print(listener.summary())
    return exits.DONE


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
        self._rows = self._passes = 0

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
        self._passes += 1
        if report.rows or report.removed:
            logger.info("%s", report)
            systemd.notify(STATUS=self.summary())
            if self._as_json:
                print(json.dumps(report.as_dict()), flush=True)
        if self._metrics is not None:
            self._metrics.cycle(report)
            self._write(self._metrics)

    def failed(self, error: EdgeshardError) -> None:
        systemd.notify(STATUS=f"failed, and tries again: {error}")
        if self._metrics is not None:
            self._metrics.failed(error)
            self._write(self._metrics)

    def _write(self, metrics: MetricsFile) -> None:
        """What goes wrong with the metrics is said, and does not keep rows from being merged."""
        now = time.monotonic()
        try:
            if now >= self._status_at:  # it looks at each shard
                self._status_at = now + self._status_every_s
                metrics.waiting(self._store.status())
            metrics.write()
        except EdgeshardError as error:
            logger.error("%s", error)

    def summary(self) -> str:
        seconds = time.monotonic() - self._began
        return f"merged {self._rows} rows in {self._passes} passes, in {seconds:.3f} s"
