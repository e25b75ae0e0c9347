"""Break a merge of keyed tables on purpose, and expect the laws of keyed tables to find it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from edgeshard.master import superseded, versions
from edgeshard.merge import conflicts
from edgeshard.records import keys
from tests.integration.merge import test_keyed_tables as keyed_tables
from tests.property.test_keyed_laws import check_law
from tests.support import keyed_model
from tests.support.keyed_model import Lww

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (conflicts, "settle", lambda target, first_id: None),
        (superseded, "add", lambda connection, number, rows: None),
        (conflicts, "count_changes", lambda target, origin, table, piece: len(piece)),
        (keys, "order", lambda key, ranked, timestamp, address: ", ".join(f"{term} DESC" for term in address)),
        (versions, "select_changed_keys", lambda name, key: "SELECT row, col FROM cell WHERE 0 AND ?1 AND ?2"),
    ],
)
def test_the_law_finds_a_merge_that_does_not_do_its_part(
    module: object, name: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settle nothing, count nothing, or ignore timestamps."""
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises((AssertionError, ExceptionGroup)):  # streams have random ids: an example may fail now and then
        check_law(Lww, monkeypatch, settings(max_examples=200, phases=keyed_model.UNSHRUNK))


def test_that_finds_a_merge_that_leaves_it_to_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "order", lambda key, ranked, timestamp, address: f"ifnull({timestamp}, 0) DESC")
    with pytest.raises(AssertionError):
        keyed_tables.test_changes_of_the_same_moment_are_told_apart_alike_everywhere(tmp_path, monkeypatch)
