"""Logging to stderr: for people, for systemd's journal, or as JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys
import time
from typing import Any, Final, Literal, TextIO

from edgeshard.errors import printable

Form = Literal["text", "json"]

_ONCE: Final = "%(levelname)s %(name)s: %(message)s"

_LONG_RUNNING: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"

_IN_JOURNAL: Final = "%(name)s: %(message)s"

#: The lowest of logging's levels that maps to each of syslog's.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_DEBUG_PRIORITY: Final = 7

#: Attributes that every record has; the others come from its `extra`.
_RECORD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_NOT_PRINTABLE_ASCII: Final = re.compile(r"[^\x20-\x7e]")


def configure(level: int, form: Form = "text", *, long_running: bool = False) -> None:
    """Log to stderr, unless this process has configured logging already.

    Args:
        level: the lowest of logging's levels that is logged.
        form: "text", lines for people; "json", one object per line with ``time`` (ISO 8601, UTC), ``level``,
            ``logger``, ``message``, ``exception`` if there is one, and the keys of `extra`.
        long_running: whether each line of text needs its time. systemd's journal adds the time itself, and gets the
            level in its own form instead (sd-daemon(3)).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, long_running, sys.stderr))
    logging.basicConfig(handlers=[handler], level=level)
    # at debug level they log each event of a file, each attempt at a lock, and each step of a connection
    for name in ("watchdog", "filelock", "psycopg"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _formatter(form: Form, long_running: bool, stream: TextIO) -> logging.Formatter:
    if form == "json":
        return _Json()
    if not long_running:
        return _Text(_ONCE)
    return _Journal(_IN_JOURNAL) if _is_journal(stream) else _Utc(_LONG_RUNNING, "%Y-%m-%dT%H:%M:%S")


def _is_journal(stream: TextIO) -> bool:
    """Return whether a stream leads to the journal. The variable alone is inherited even if a stream is redirected."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is closed, or not a file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Text(logging.Formatter):
    """Formats a record as lines that control no terminal, the message as one: a name in it cannot forge a second."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _Utc(_Text):
    converter = staticmethod(time.gmtime)


class _Journal(_Text):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY)
        # each line is an entry of its own in the journal
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _RECORD_ATTRIBUTES:
                fields.setdefault(name, value)
        line = ", ".join(f"{_dumped(name)}: {_dumped(value)}" for name, value in fields.items())
        return "{" + _NOT_PRINTABLE_ASCII.sub(_escaped, line) + "}"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments can be anything
        return f"{_text(record.msg)} % {_text(record.args)}"


def _dumped(value: object) -> str:
    """Return a value as JSON, or as a text if JSON cannot express it."""
    try:
        return json.dumps(value, default=_text, ensure_ascii=False, allow_nan=False)
    except Exception:  # a value can be anything: NaN, a member of itself, a key that is not text
        return json.dumps(_text(value), ensure_ascii=False)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _escaped(match: re.Match[str]) -> str:
    """Return a character as JSON in ASCII; a lone surrogate, which UTF-8 cannot hold, as text that shows it."""
    code = ord(match[0])
    escape = f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(match[0])[1:-1]
    return f"\\{escape}" if 0xD800 <= code <= 0xDFFF else escape
