"""``edgeshard status --html``: write the page, once or again and again."""

from __future__ import annotations

import argparse
import logging
import queue
import time
from pathlib import Path

from edgeshard import charts
from edgeshard.cli import arguments, exits, signals, status_page
from edgeshard.cli.published_file import PublishedFile
from edgeshard.errors import EdgeshardError, printable
from edgeshard.log_fields import fields
from edgeshard.reports import StatusReport

logger = logging.getLogger("edgeshard.status")


def run(options: argparse.Namespace) -> int:
    """Write the page once, or every so many seconds until SIGTERM or Ctrl-C, and return the exit code.

    Raises:
        ConfigurationError: there is no such store, no such folder for the page, something there that must not be
            replaced, or pygal is not installed.
        EdgeshardError: the store cannot be read, which the page says, or the page cannot be written. With --every, what
            fails later is logged, and tried again.
    """
    root = arguments.store_of(options).root
    charts.ensure_installed()
    file = PublishedFile(options.html, "write page", status_page.BEGINNING.encode(), root)
    if options.page_every_s is None:
        status = _write(file, options)
        print(printable(f"{file.path}: {status}"))
        return exits.report_code(complete=status.complete)
    return _keep(file, options)


def _keep(file: PublishedFile, options: argparse.Namespace) -> int:
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    failed_with: tuple[type[EdgeshardError], str] | None = None
    with signals.stop_on_signals(lambda: stop.put(None)):
        while True:
            due_at = time.monotonic() + options.page_every_s
            try:
                _write(file, options)
                failed_with = None
            except EdgeshardError as error:
                if failed_with != (type(error), error.path):
                    logger.error(
                        "%s; trying again every %.3g s",
                        error,
                        options.page_every_s,
                        extra=fields(store=options.root, state="failing", error=error),
                    )
                failed_with = (type(error), error.path)
            try:
                stop.get(timeout=max(0.0, due_at - time.monotonic()))
            except queue.Empty:
                continue
            return exits.DONE


def _write(file: PublishedFile, options: argparse.Namespace) -> StatusReport:
    """Write the page, and return what it shows; if the store cannot be read, the page says so."""
    root = Path(options.root)
    try:
        store = arguments.store_of(options)  # its folder may disappear, and come back
        status = store.status()
        text = status_page.page(status, store.activity(), store.root, options.page_every_s)
    except EdgeshardError as error:
        file.replace(status_page.failure_page(error, root, options.page_every_s).encode())
        raise
    file.replace(text.encode())
    return status
