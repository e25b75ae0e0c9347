"""Kill imports: after the next one each row is there once, and a source that grew meanwhile is imported to its end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeshard.exchange import import_lines, import_tables
from tests.support import ordinary
from tests.support.forms import short_and_full
from tests.support.pruning import killed_in
from tests.support.stores import contradictions, new_store, numbers

ROWS = 40


def check_kills(folder: Path, every: int) -> set[tuple[int, int]]:
    """Kill an import at every so many of its statements; return how many rows were committed of each file."""
    lines, database = folder / "lines.ndjson", folder / "plant.db"
    lines.write_text("".join(f'{{"n": {n}}}\n' for n in range(ROWS)))
    ordinary.run(
        database, "create table readings(n int)", "insert into readings values (?)", rows=[(n,) for n in range(ROWS)]
    )
    files = [lines, database]
    found: set[tuple[int, int]] = set()
    number = 0
    while True:
        number += every
        store = new_store(folder / f"data{number}")
        if not killed_in(lambda store=store: store.import_(files), number):  # type: ignore[misc]
            return found
        counts = [table.known for file in store.import_(files, dry_run=True).files for table in file.tables]
        report = store.import_(files)
        assert [ROWS - count for count in counts] == [table.rows for file in report.files for table in file.tables]
        assert report.complete
        assert list(range(ROWS)) == numbers(store)
        assert list(range(ROWS)) == [row.n for row in store.query("select n from readings order by n")]
        checked = store.verify(deep=True)
        assert ((), True) == (contradictions(checked), checked.ok)
        found.add((counts[0], counts[1]))
        shutil.rmtree(store.root)


@pytest.mark.parametrize("every", short_and_full(61, 13))
def test_an_import_that_is_killed_goes_on_after_the_last_batch_that_was_committed(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in (import_lines.LineReader, import_tables.TableReader):
        monkeypatch.setattr(reader.batches, "__defaults__", (7,))  # rows of a batch
    found = check_kills(tmp_path, every)
    assert {0, ROWS} < {rows for rows, _ in found}
    assert {0} < {rows for _, rows in found}
