"""``edgeshard push --watch``: the pushing service in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import json
import logging
import time

from edgeshard.cli import exits, signals, systemd
from edgeshard.errors import EdgeshardError
from edgeshard.postgres.options import INTERVAL_S, Listener
from edgeshard.postgres.watcher import Watch
from edgeshard.reports import PushReport
from edgeshard.store import Store

logger = logging.getLogger("edgeshard.push")


def watch(store: Store, options: argparse.Namespace) -> int:
    """Push what merges bring into a store's master until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: it cannot work, and waiting does not help.
    """
    reporter = _Reporter(as_json=options.json)
    pushing = Watch(
        store.master_path,
        options.dsn,
        interval_s=INTERVAL_S if options.interval is None else options.interval,
        batch=options.batch,
        inserts=options.inserts,
        listener=reporter,
    )

    def stop() -> None:
        pushing.stop()
        systemd.notify(STOPPING=1)

    with signals.stop_on_signals(stop):
        pushing.run()
    if not options.quiet and not options.json:
        print(reporter.summary())
    return exits.DONE


class _Reporter(Listener):
    """Tells the service manager, the log and stdout what the service does."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._rows = self._pushes = 0

    def opened(self) -> None:
        logger.info("pushing what comes")
        systemd.notify(READY=1, STATUS=self.summary())

    def pushed(self, report: PushReport) -> None:
        self._rows += report.rows
        self._pushes += 1
        for item in report.held_back:
            logger.warning("%s", item)
        logger.info("%s", report)
        systemd.notify(STATUS=self.summary())
        if self._as_json:
            print(json.dumps(report.as_dict()), flush=True)

    def failed(self, error: EdgeshardError, delay_s: float) -> None:
        logger.error("%s; tried again in %.3g s", error, delay_s)
        systemd.notify(STATUS=f"failed, and tries again: {error}")

    def recovered(self) -> None:
        logger.warning("pushing works again")
        systemd.notify(STATUS=self.summary())

    def summary(self) -> str:
        seconds = time.monotonic() - self._began
        return f"pushed {self._rows} rows in {self._pushes} pushes, in {seconds:.3f} s"
