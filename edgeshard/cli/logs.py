"""How a command logs to stderr: for people, for systemd's journal, or as JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys
import time
from typing import Any, Final, Literal, TextIO

Form = Literal["text", "json"]

_ONCE: Final = "%(levelname)s %(name)s: %(message)s"

_LASTING: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"

_IN_JOURNAL: Final = "%(name)s: %(message)s"

#: From which of logging's levels on a line has which of syslog's.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_DEBUG_PRIORITY: Final = 7

#: What each record has, so that the rest is what its `extra` gave it.
_OF_RECORDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


def configure(level: int, form: Form = "text", *, lasting: bool = False) -> None:
    """Log to stderr; a process that has told logging where to log already keeps that.

    Args:
        level: the least of logging's levels that is logged.
        form: "text", a line for people; "json", an object a line with ``time`` (ISO 8601, UTC), ``level``,
            ``logger``, ``message``, ``exception`` where there is one, and what `extra` was given.
        lasting: whether the command lasts, so that a line of text needs its time. systemd's journal adds that
            itself, and gets the level as it wants it instead (sd-daemon(3)).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, lasting, sys.stderr))
    logging.basicConfig(handlers=[handler], level=level)
    # at debug they tell each event of a file, each look at a lock, and each step of a connection
    for name in ("watchdog", "filelock", "psycopg"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _formatter(form: Form, lasting: bool, stream: TextIO) -> logging.Formatter:
    if form == "json":
        return _Json()
    if not lasting:
        return logging.Formatter(_ONCE)
    return _Journal(_IN_JOURNAL) if _is_journal(stream) else _Utc(_LASTING, "%Y-%m-%dT%H:%M:%S")


def _is_journal(stream: TextIO) -> bool:
    """Whether a stream leads to the journal; the variable alone is inherited also where a stream is redirected."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is closed, or no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Utc(logging.Formatter):
    converter = staticmethod(time.gmtime)


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY)
        # each line is an entry of the journal
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
            if name not in _OF_RECORDS:
                fields.setdefault(name, value)
        line = ", ".join(f"{_dumped(name)}: {_dumped(value)}" for name, value in fields.items())
        return "{" + _NOT_ASCII.sub(_escaped, line) + "}"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # what is logged is of any type
        return f"{_text(record.msg)} % {_text(record.args)}"


def _dumped(value: object) -> str:
    """A value as JSON, or as a text where JSON has nothing like it."""
    try:
        return json.dumps(value, default=_text, ensure_ascii=False, allow_nan=False)
    except Exception:  # a value is of any type: NaN, its own member, a key that is no text
        return json.dumps(_text(value), ensure_ascii=False)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON in ASCII; half of a surrogate pair, which UTF-8 cannot hold, as text that shows it."""
    code = ord(match[0])
    return f"\\\\u{code:04x}" if 0xD800 <= code <= 0xDFFF else json.dumps(match[0])[1:-1]
