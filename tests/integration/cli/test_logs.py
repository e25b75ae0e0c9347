"""What the commands log, as stderr gets it from a process of its own."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from tests.support.processes import command
from tests.support.stores import shard_path

_PROLOGUE = """
import logging, sys
from edgeshard.cli import logs
logs.configure(logging.%s, %r, long_running=%r)
logger = logging.getLogger("edgeshard.tests")
"""


def logged(code: str, form: str, *, level: str = "INFO", lasting: bool = True, **options: Any) -> str:
    """What the code, which has a `logger`, logs."""
    script = _PROLOGUE % (level, form, lasting) + code
    settings = {"stderr": subprocess.PIPE, "check": False, "timeout": 60, **options}
    done = subprocess.run([sys.executable, "-c", script], text=True, encoding="utf-8", **settings)
    assert done.returncode == 0, done.stderr
    return done.stderr or ""


def objects(code: str, **options: Any) -> list[dict[str, Any]]:
    """The JSON objects that the code logs."""
    return [json.loads(line, parse_constant=pytest.fail) for line in logged(code, "json", **options).splitlines()]


# -- text -------------------------------------------------------------------------------------------------------------


def test_a_command_that_is_done_soon_logs_level_logger_and_message() -> None:
    assert "WARNING edgeshard.tests: 3 rows\n" == logged("logger.warning('%d rows', 3)", "text", lasting=False)


def test_a_command_that_lasts_logs_the_time_in_utc_as_well() -> None:
    before = datetime.datetime.now(datetime.UTC)
    line = logged("logger.warning('%d rows', 3)", "text", env={**os.environ, "TZ": "Asia/Tokyo"})
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) WARNING edgeshard\.tests: 3 rows\n", line)
    assert found, line
    elapsed = datetime.datetime.fromisoformat(found[1]) - before
    assert datetime.timedelta(seconds=-1) < elapsed < datetime.timedelta(seconds=60)


def journal(path: Path, code: str, **options: Any) -> str:
    """What the code logs to a file that it takes for the journal."""
    with path.open("w") as file:
        found = os.fstat(file.fileno())
        stream = f"{found.st_dev}:{found.st_ino}"
        logged(code, "text", stderr=file, env={**os.environ, "JOURNAL_STREAM": stream}, **options)
    return path.read_text()


def test_the_journal_gets_the_level_as_a_priority_and_no_time(tmp_path: Path) -> None:
    priorities = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
    code = "".join(f"logger.{level}('%d rows', 3)\n" for level in priorities)
    expected = [f"<{priority}>edgeshard.tests: 3 rows" for priority in priorities.values()]
    assert expected == journal(tmp_path / "log", code, level="DEBUG").splitlines()


def test_each_line_in_the_journal_has_a_priority(tmp_path: Path) -> None:
    lines = journal(tmp_path / "log", "try: 1 / 0\nexcept ZeroDivisionError: logger.exception('oh')").splitlines()
    assert ["<3>edgeshard.tests: oh", "<3>Traceback (most recent call last):"] == lines[:2]
    assert ["<3>"] * len(lines) == [line[:3] for line in lines]


def test_a_journal_that_stderr_does_not_lead_to_is_none() -> None:
    line = logged("logger.warning('oh')", "text", env={**os.environ, "JOURNAL_STREAM": "1:1"})
    assert line.endswith("Z WARNING edgeshard.tests: oh\n")


def test_a_stderr_that_is_no_file_is_no_journal() -> None:
    code = "import io\nsys.stderr = io.StringIO()\nlogs.configure(logging.INFO, 'text', long_running=True)"
    assert "" == logged(code, "text", env={**os.environ, "JOURNAL_STREAM": "1:1"})


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_json_has_the_time_in_utc_and_level_logger_and_message() -> None:
    before = datetime.datetime.now(datetime.UTC)
    (record,) = objects("logger.warning('%d rows', 3)", env={**os.environ, "TZ": "Asia/Tokyo"})
    time = datetime.datetime.fromisoformat(record.pop("time"))
    assert {"level": "WARNING", "logger": "edgeshard.tests", "message": "3 rows"} == record
    assert (datetime.timedelta(0), True) == (time.utcoffset(), before <= time <= datetime.datetime.now(datetime.UTC))


def test_json_has_what_extra_gives() -> None:
    (record,) = objects("logger.info('merged', extra={'rows': 3, 'shards': ['a', None], 'path': {'b': 1.5}})")
    assert (3, ["a", None], {"b": 1.5}) == (record["rows"], record["shards"], record["path"])
    assert {"time", "level", "logger", "message", "rows", "shards", "path"} == set(record)


def test_json_keeps_its_own_fields_whatever_extra_gives() -> None:
    (record,) = objects("logger.info('merged', extra={'level': 'mine', 'logger': 'mine', 'time': 'mine'})")
    assert ("INFO", "edgeshard.tests") == (record["level"], record["logger"])
    assert record["time"] != "mine"


def test_json_has_an_exception_on_the_same_line() -> None:
    (record,) = objects("try: 1 / 0\nexcept ZeroDivisionError: logger.exception('oh\\nno')")
    assert "oh\nno" == record["message"]
    assert re.fullmatch(r"(?s)Traceback .*\nZeroDivisionError: division by zero", record["exception"])


def test_json_has_no_exception_where_there_is_none() -> None:
    (record,) = objects("logger.exception('oh')")
    assert "exception" not in record


_ODD = """
class Mute:
    def __str__(self): raise ValueError
    __repr__ = __str__
own = []
own.append(own)
deep = []
for _ in range(100_000): deep = [deep]
"""


VALUES = [
    ("1j", "1j"),
    ("b'x'", "b'x'"),
    ("float('nan')", "nan"),
    ("[float('inf')]", "[inf]"),
    ("{(1, 2): 3}", "{(1, 2): 3}"),
    ("own", "[[...]]"),
    ("deep", "a list that cannot be shown"),
    ("Mute()", "a Mute that cannot be shown"),
    ("[1, Mute()]", [1, "a Mute that cannot be shown"]),
    ("'é名🤖\\u2028'", "é名🤖\u2028"),
    ("'\\udcff\\ud83e'", "\\udcff\\ud83e"),
    ("['\\udcff']", ["\\udcff"]),
]
MESSAGES = [
    ("'%d rows', 'no'", "%d rows % ('no',)"),
    ("'%s', Mute()", "%s % a tuple that cannot be shown"),
    ("Mute()", "a Mute that cannot be shown % ()"),
    ("'%s', '\\udcff'", "\\udcff"),
    ("'%(a)s', {'a': 1}", "1"),
    ("'100 %'", "100 %"),
]


def test_json_has_something_for_any_value() -> None:
    code = "".join(f"logger.info('merged', extra={{'value': {value}}})\n" for value, _ in VALUES)
    assert [expected for _, expected in VALUES] == [record["value"] for record in objects(_ODD + code)]


def test_json_has_something_for_any_message() -> None:
    code = "".join(f"logger.info({message})\n" for message, _ in MESSAGES)
    assert [expected for _, expected in MESSAGES] == [record["message"] for record in objects(_ODD + code)]


def test_json_is_ascii_whatever_the_stream_can_hold() -> None:
    (record,) = objects("logger.info('é')", env={**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"})
    assert "é" == record["message"]


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_only_what_has_the_level_is_logged(form: str) -> None:
    lines = logged("logger.info('one')\nlogger.debug('two')", form).splitlines()
    assert [True] == ["one" in line for line in lines]


def test_the_details_of_libraries_are_no_news_at_debug() -> None:
    code = """
for name in ("watchdog.observers.inotify_move_event_grouper", "filelock"):
    logging.getLogger(name).debug("detail")
    logging.getLogger(name).warning("news")
"""
    assert ["news", "news"] == [record["message"] for record in objects(code, level="DEBUG")]


def test_the_commands_log_as_before(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    shard_path(store, "other").write_bytes(b"no database" * 100)
    done = command("merge", store.root)
    assert (3, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert done.stderr.startswith(f"WARNING edgeshard.merge: quarantined {shard_path(store, 'other')}: ")
