"""What people read is one line of printable characters, whatever the names in it are."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeshard import errors, reports
from edgeshard.cli import logs, output
from edgeshard.errors import printable
from tests.support.report_classes import report_classes

#: Any characters, with lone surrogates, and more of those that matter.
TEXTS = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"]))


@given(TEXTS)
def test_a_text_becomes_one_printable_line_and_a_printable_one_stays(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()  # no lone surrogate
    assert printable(shown) == shown
    assert text == shown or not text.isprintable()


@given(TEXTS)
def test_what_is_escaped_within_json_stays_json_with_the_same_value(text: str) -> None:
    for line in (printable(json.dumps(text, ensure_ascii=False)), output.to_json(text)):
        assert line.isprintable()
        assert text == json.loads(line)
    assert output.to_json({text: [text]}).isascii()


@given(TEXTS, TEXTS, TEXTS)
def test_an_error_is_one_printable_line(action: str, path: str, cause: str) -> None:
    assert str(errors.StorageError(action, path, cause)).isprintable()


@pytest.mark.parametrize("cls", report_classes(), ids=lambda cls: cls.__name__)
def test_every_report_prints_as_the_base_does(cls: type[reports.Report]) -> None:
    assert cls.__str__ is reports.Report.__str__


@given(TEXTS)
def test_a_report_is_one_printable_line(text: str) -> None:
    rejected = reports.Rejected(text, text, text, text, text, text, 1, 1, text, text, 1, 2, 1)
    for report in (rejected, reports.Gap(text, text, 1, 2), reports.Quarantined(text, text)):
        assert str(report).isprintable()


@pytest.mark.parametrize("long_running", [False, True])
@given(TEXTS)
def test_a_line_of_the_log_is_one_and_printable(long_running: bool, text: str) -> None:
    formatter = logs._formatter("text", long_running, io.StringIO())
    record = logging.makeLogRecord(
        {"msg": "merging %s", "args": (text,), "levelno": logging.WARNING, "name": "edgeshard"}
    )
    assert formatter.format(record).isprintable()
    try:
        raise ValueError(text)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert all(line.isprintable() for line in formatter.format(record).split("\n"))
    assert logs._formatter("json", long_running, io.StringIO()).format(record).isprintable()
    journal = logs._Journal(logs._IN_JOURNAL).format(record)
    assert all(line.startswith("<4>") and line.isprintable() for line in journal.split("\n"))
