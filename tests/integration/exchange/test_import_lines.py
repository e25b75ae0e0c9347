"""Lines of NDJSON and CSV become dicts of a store, and each line is imported once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.exchange import import_lines
from edgeshard.reports import ImportedTable

#: For each form, the beginning of a file, and a line with a number.
FORMS: dict[str, tuple[bytes, Any]] = {
    "ndjson": (b"", lambda n: b'{"n": %d}\n' % n),
    "csv": (b"n,text\n", lambda n: b'%d,"two\nlines"\n' % n),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a file of another program is."""
    return tmp_path / "app.log"


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    """A form of files."""
    found: str = request.param
    return found


def lines(form: str, *numbers: int) -> bytes:
    """Lines without the beginning of a file."""
    return b"".join(map(FORMS[form][1], numbers))


def content(form: str, *numbers: int) -> bytes:
    return FORMS[form][0] + lines(form, *numbers)


def append(path: Path, added: bytes) -> None:
    with path.open("ab") as file:
        file.write(added)


def table(store: edgeshard.Store, source: Path, **options: Any) -> ImportedTable:
    ((found,),) = [file.tables for file in store.import_(source, **options).files]
    return found


def counts(store: edgeshard.Store, source: Path, **options: Any) -> tuple[int, int, str]:
    found = table(store, source, **options)
    return found.rows, found.known, found.error


def numbers(store: edgeshard.Store, table: str = "agent_data") -> list[Any]:
    return [row.n for row in store.query(f"select data->>'n' as n from {table} order by _id")]


def test_the_form_is_decided_by_the_content(form: str, store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(
        b"\xef\xbb\xbf\n\n" + content(form, 7) if form == "ndjson" else b"\xef\xbb\xbf" + content(form, 7)
    )
    found = table(store, source, table="event")
    assert (form, "event", 1, "") == (found.form, found.table, found.rows, found.error)
    assert [7] == numbers(store, "event")


def test_only_lines_that_were_added_are_imported(
    form: str, store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeshard.exchange.import_lines.BATCH_BYTES", 60)
    source.write_bytes(content(form))
    for known in (0, 7, 14):
        append(source, lines(form, *range(known, known + 7)))
        assert (7, known, "") == counts(store, source)
        assert (0, known + 7, "") == counts(store, source)
    assert list(range(21)) == numbers(store)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_last_line_without_its_end_is_imported_if_it_is_a_row(
    end: bytes, form: str, store: edgeshard.Store, source: Path
) -> None:
    source.write_bytes(content(form, 1, 2).removesuffix(b"\n"))
    assert (2, 0, "") == counts(store, source)
    append(source, end + lines(form, 3))
    assert (1, 2, "") == counts(store, source)
    assert [1, 2, 3] == numbers(store)


def test_a_line_that_was_continued_after_it_was_imported_is_noticed(store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(b"n,m\n1,2\n3,4")
    assert (2, 0, "") == counts(store, source)
    append(source, b"5\n6,7\n")
    assert "its line 3 had no end when it was imported, and was continued" in counts(store, source)[2]


@pytest.mark.parametrize(("begun", "rest"), [(b'{"n": ', b"2}\n"), (b'{"n": 2, "text": "x\xc3', b'\xbc"}\n')])
def test_a_line_that_is_being_written_is_left_for_the_next_import(
    begun: bytes, rest: bytes, store: edgeshard.Store, source: Path
) -> None:
    source.write_bytes(lines("ndjson", 1) + begun)
    report = store.import_(source)
    ((found,),) = [file.tables for file in report.files]
    assert (1, 2, "", True) == (found.rows, found.unfinished_line, found.error, report.complete)
    append(source, rest)
    assert (1, 1, "") == counts(store, source)
    assert [1, 2] == numbers(store)


def test_a_bad_line_is_named_the_rows_before_it_are_imported_and_the_next_import_continues_there(
    form: str, store: edgeshard.Store, source: Path
) -> None:
    good, bad = content(form, 1, 2), b"3\n"
    source.write_bytes(good + bad + lines(form, 4))
    number = good.count(b"\n") + 1
    found = table(store, source)
    assert (2, True) == (found.rows, found.error.startswith(f"line {number}: ")), found.error
    again = table(store, source)
    assert (0, 2, found.error) == (again.rows, again.known, again.error)
    source.write_bytes(good + lines(form, 3, 4))
    assert (2, 2, "") == counts(store, source)
    assert [1, 2, 3, 4] == numbers(store)


@pytest.mark.parametrize("batch_rows", [2, 3, 5_000])
def test_a_value_that_a_shard_refuses_is_named_and_the_rows_before_it_are_imported(
    batch_rows: int, store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_lines.LineReader.batches, "__defaults__", (batch_rows,))
    source.write_bytes(lines("ndjson", 1, 2, 3) + b'{"n": "\\ud800"}\n' + lines("ndjson", 5))
    found = table(store, source)
    assert (3, True) == (found.rows, found.error.startswith("line 4: ")), found.error
    source.write_bytes(lines("ndjson", 1, 2, 3, 4, 5))
    assert (2, 3, "") == counts(store, source)
    assert [1, 2, 3, 4, 5] == numbers(store)


def test_a_header_that_names_no_columns_is_refused(store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(b"a,,b\n1,2,3\n")
    assert counts(store, source)[2].startswith("line 1: column 2 has no name")


@pytest.mark.parametrize("changed", [b"", b"0", b"shorter"])
def test_a_file_whose_imported_lines_changed_is_refused(
    changed: bytes, form: str, store: edgeshard.Store, source: Path
) -> None:
    source.write_bytes(content(form, 1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    source.write_bytes(content(form, 4) if changed == b"shorter" else content(form, 1, 9, 3, 4))
    assert "it was changed or rotated" in counts(store, source)[2]
    assert [1, 2, 3] == numbers(store)


def test_a_log_that_is_rotated_is_continued(form: str, store: edgeshard.Store, source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "app.log.1", tmp_path / "app.log.2"
    source.write_bytes(content(form, 1, 2))
    assert (2, 0, "") == counts(store, source, agent="app")
    append(source, lines(form, 3))
    source.rename(first)
    source.write_bytes(content(form, 4, 5, 6))
    assert "import that first" in counts(store, source, agent="app")[2]
    report = store.import_([first, source], agent="app")
    assert [(1, 2, "app.log"), (3, 0, "")] == [
        (found.rows, found.known, found.continues) for file in report.files for found in file.tables
    ]
    first.rename(second)
    source.rename(first)
    source.write_bytes(content(form, 7))
    assert 1 == store.import_([second, first, source], agent="app").rows
    assert 0 == store.import_([second, first, source], agent="app").rows
    assert [1, 2, 3, 4, 5, 6, 7] == numbers(store)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "it is no SQLite database, NDJSON or CSV"),
        (b"just some words\nof a text\n", "it is no SQLite database, NDJSON or CSV"),
        (b"a;b;c\n1;2;3\n", "it is no SQLite database, NDJSON or CSV"),
    ],
)
def test_other_files_are_refused(content: bytes, cause: str, store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(content)
    (found,) = store.import_(source).files
    assert cause in found.error


def test_an_array_is_no_ndjson(store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(b'[{"n": 1}]\n')
    assert "line 1: it is an array" in counts(store, source)[2]


def test_a_csv_file_may_have_one_column(store: edgeshard.Store, source: Path) -> None:
    source.write_bytes(b"n\n1\n2\n")
    assert (2, 0, "") == counts(store, source)
    assert [1, 2] == numbers(store)
