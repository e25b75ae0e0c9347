"""``--watch``: a merger or a push as a service in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Final

import attrs

from edgeshard import units
from edgeshard.cli import arguments, exits, output, signals, systemd
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import EdgeshardError, printable
from edgeshard.log_fields import fields
from edgeshard.reports import MergeReport, PushReport, Rejected
from edgeshard.store import OBSERVERS, PROFILES, PUSH_INTERVAL_S, VERSION, MergeListener, PushListener, Store, load_all

#: How often a service logs what it has done, in seconds.
SUMMARY_EVERY_S: Final = 600.0


def merge(store: Store, options: argparse.Namespace) -> int:
    """Merge new rows of a store until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: the store cannot be watched, or the first merge failed.
    """
    metrics = None if options.metrics_file is None else MetricsFile(options.metrics_file, store.root)
    profile = PROFILES[options.wear or "normal"]
    rescan_s = profile.rescan_s if options.rescan is None else options.rescan
    interval_s = profile.interval_s if options.interval is None else options.interval
    observer = options.observer or OBSERVERS[0]
    settings = f"interval {interval_s:g} s, rescan {rescan_s:g} s, observer {observer}, {_settings(store, options)}"
    text = f"watches {store.root.absolute()}: {settings}"
    reporter = _MergeReporter(store, text, metrics, status_every_s=rescan_s, as_json=options.json)
    service = store.watcher(
        interval=options.interval,
        rescan=rescan_s,
        observer=observer,
        keep_empty=options.keep_empty,
        listener=reporter,
    )

    def run() -> None:
        if service.open(options.lock_wait):
            service.run()

    return _run(run, service.stop, reporter, options, on_hangup=service.rescan)


def _settings(store: Store, options: argparse.Namespace) -> str:
    """Describe the other settings of a merger."""
    budget = store.disk_budget()
    limit = "no disk budget" if budget is None else f"disk budget {units.size(budget.max_bytes)} ({budget.on_full})"
    parts = [f"wear {options.wear or 'normal'}", limit]
    rule = arguments.prune_rule_of(options, "prune_")
    if rule:
        parts.append("prune " + " ".join(f"{name.replace('_', '-')}={value}" for name, value in rule.items()))
    if options.metrics_file is not None:
        parts.append(f"metrics in {options.metrics_file}")
    return ", ".join(parts)


def push(store: Store, options: argparse.Namespace) -> int:
    """Push what merges bring into a store's master until SIGTERM or SIGINT.

    Raises:
        EdgeshardError: pushing cannot work, and waiting does not help.
    """
    interval_s = PUSH_INTERVAL_S if options.interval is None else options.interval
    text = f"pushes what merges bring to {store.root.absolute()}: interval {interval_s:g} s, batch {options.batch}"
    reporter = _PushReporter(store, text, as_json=options.json)
    service = store.push_watcher(
        options.dsn,
        interval=interval_s,
        batch=options.batch,
        inserts=options.inserts,
        retry_rejected=options.retry_rejected,
        on_invalid=options.on_invalid,
        distribute=options.distribute,
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

    load_all()
    with signals.stop_on_signals(on_stop, on_hangup):
        run()
    if not options.quiet and not options.json:
        print(reporter.summary())
    return exits.DONE


@attrs.define
class _Counts:
    """What was done in some time.

    Attributes:
        began: when it began (monotonic, seconds).
        rows: rows merged or pushed.
        rounds: passes or pushes that worked.
        failures: those that failed.
        slowest_s: how long the slowest of them took, in seconds.
        pruned: rows pruned.
    """

    began: float = attrs.Factory(lambda: time.monotonic())
    rows: int = 0
    rounds: int = 0
    failures: int = 0
    slowest_s: float = 0.0
    pruned: int = 0

    @property
    def seconds(self) -> float:
        """How long it is since it began."""
        return time.monotonic() - self.began


class _Reporter:
    """Reports what a service does to the service manager, the log and stdout.

    Args:
        store: the store.
        settings: what the service does and how, as the log says it once the service runs.
        done: what is done with rows: "merged".
        round_name: what a round is called: "pass".
        as_json: whether to print the report of each round as a line of JSON.
        log: where to log.
    """

    def __init__(
        self, store: Store, settings: str, done: str, round_name: tuple[str, str], *, as_json: bool, log: logging.Logger
    ) -> None:
        self._store = store
        self._settings = settings
        self._done = done
        self._round_name = round_name
        self._as_json = as_json
        self._log = log
        self._all = _Counts()
        self._lately = _Counts()

    def opened(self) -> None:
        text = "edgeshard %s (pid %d) %s"
        extra = fields(store=self._store.root, state="started")
        self._log.info(text, VERSION, os.getpid(), printable(self._settings), extra=extra)
        systemd.notify(READY=1, STATUS=self.summary())

    def recovered(self) -> None:
        systemd.notify(STATUS=self.summary())

    def summary(self) -> str:
        pruned = f", pruned {units.count(self._all.pruned, 'row')}" if self._all.pruned else ""
        return f"{self._counted(self._all)}, in {self._all.seconds:.3f} s{pruned}"

    def _counted(self, counts: _Counts) -> str:
        return f"{self._done} {units.count(counts.rows, 'row')} in {units.count(counts.rounds, *self._round_name)}"

    def _count(self, rows: int, seconds: float, pruned: int = 0) -> None:
        for counts in (self._all, self._lately):
            counts.rows += rows
            counts.rounds += 1
            counts.slowest_s = max(counts.slowest_s, seconds)
            counts.pruned += pruned
        self._summarise_if_due()

    def _summarise_if_due(self) -> None:
        """Log, now and then, what was done since the last time."""
        lately = self._lately
        if lately.seconds < SUMMARY_EVERY_S:
            return
        self._lately = _Counts()
        text, pending = self._counted(lately), self._pending_rows()
        text += f" in {units.duration(lately.seconds)}"
        text += f", the slowest took {lately.slowest_s:.3f} s" if lately.rounds else ""
        text += f"; {units.count(lately.failures, 'failure')}" if lately.failures else ""
        text += f"; pruned {units.count(lately.pruned, 'row')}" if lately.pruned else ""
        text += "" if pending is None else f"; {units.count(pending, 'row')} pending"
        extra = fields(
            store=self._store.root,
            rows=lately.rows,
            passes=lately.rounds,
            pending=pending,
            slowest=round(lately.slowest_s, 6),
            seconds=round(lately.seconds, 3),
        )
        self._log.info("%s", text, extra=extra)

    def _pending_rows(self) -> int | None:
        """Return how many rows wait for this service, or None if that is not known."""
        return None

    def _report(self, report: MergeReport | PushReport) -> None:
        extra = fields(store=self._store.root, rows=report.rows, seconds=round(report.seconds, 6))
        self._log.debug("%s", report, extra=extra)
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
            self._log.error("cannot write to stdout: %s", error, extra=fields(store=self._store.root, error=error))

    def _report_failure(self, error: EdgeshardError) -> None:
        for counts in (self._all, self._lately):
            counts.failures += 1
        self._summarise_if_due()
        systemd.notify(STATUS=f"failed, will try again: {error}")


class _MergeReporter(_Reporter, MergeListener):
    """Also keeps the metrics file, and tells systemd's watchdog that the service is alive; the merger logs failures."""

    def __init__(
        self, store: Store, settings: str, metrics: MetricsFile | None, *, status_every_s: float, as_json: bool
    ) -> None:
        log = logging.getLogger("edgeshard.merge")
        super().__init__(store, settings, "merged", ("pass", "passes"), as_json=as_json, log=log)
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
        self._count(report.rows, report.seconds, 0 if report.pruned is None else report.pruned.rows)
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

    def _pending_rows(self) -> int | None:
        try:
            return self._store.status().pending_rows
        except EdgeshardError as error:
            self._log.error("%s", error, extra=fields(store=self._store.root, error=error))
            return None

    def _measure_pending(self, metrics: MetricsFile) -> None:
        """Measure what is pending, from time to time: that opens each shard."""
        now = time.monotonic()
        if now >= self._status_at:
            self._status_at = now + self._status_every_s
            try:
                metrics.measure(self._store.status())
            except EdgeshardError as error:
                self._log.error("%s", error, extra=fields(store=self._store.root, error=error))

    def _write(self, metrics: MetricsFile) -> None:
        """Write the metrics. If that fails it is logged, and rows are still merged."""
        try:
            metrics.write()
        except EdgeshardError as error:
            self._log.error("%s", error, extra=fields(store=self._store.root, error=error))


class _PushReporter(_Reporter, PushListener):
    """Also logs rejected rows and failures."""

    def __init__(self, store: Store, settings: str, *, as_json: bool) -> None:
        log = logging.getLogger("edgeshard.push")
        super().__init__(store, settings, "pushed", ("push", "pushes"), as_json=as_json, log=log)
        self._failed_with: type[EdgeshardError] | None = None
        self._rejected: tuple[Rejected, ...] = ()

    def pushed(self, report: PushReport) -> None:
        self._count(report.rows, report.seconds)
        for rejected in report.rejected:
            if rejected not in self._rejected:  # it has more rows than before
                extra = fields(store=self._store.root, agent=rejected.agent, table=rejected.table, state="rejected")
                self._log.warning("%s", rejected, extra=extra)
        self._rejected = report.rejected
        self._report(report)

    def failed(self, error: EdgeshardError, delay_s: float) -> None:
        level = logging.DEBUG if self._failed_with is type(error) else logging.ERROR
        extra = fields(store=self._store.root, state="failing", error=error)
        self._log.log(level, "%s; trying again in %.3g s", error, delay_s, extra=extra)
        self._failed_with = type(error)
        self._report_failure(error)

    def recovered(self) -> None:
        self._failed_with = None
        self._log.warning("pushing works again", extra=fields(store=self._store.root, state="recovered"))
        super().recovered()
