"""All versions of keyed rows are in PostgreSQL in the end, whoever pushed before."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeshard
from tests.support.forms import short_and_full
from tests.support.keyed_schema_versions import STEPS, Log
from tests.support.schema_versions import merged

pytest.importorskip("psycopg")
from psycopg.conninfo import make_conninfo

from tests.support.postgres_server import do, fetch

if TYPE_CHECKING:
    pass

from tests.support.keyed_pushes import plainly


@pytest.mark.parametrize("examples", short_and_full(5, 15))
def test_all_versions_are_there_in_the_end_whoever_pushed_before(pg: str, examples: int) -> None:
    """Steps that would merge one store into another push both."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS, st.sampled_from([1, 1000]))
    def law(steps: list[tuple[Any, ...]], batch: int) -> None:
        log = Log()
        schema = f"s{uuid.uuid4().hex}"
        do(pg, f"CREATE SCHEMA {schema}")
        dsn = make_conninfo(pg, options=f"-csearch_path={schema}")
        with tempfile.TemporaryDirectory() as folder:
            stores = [edgeshard.Store(Path(folder) / str(number)) for number in range(3)]
            for step in steps:
                if len(step) == 5:
                    place, *change = step
                    log.change(stores[place], *change)
                else:
                    for place in step:
                        merged(stores[place])
                        stores[place].push(dsn, batch=batch)  # may hold back what is narrower here
            # what others pushed by an older name gets the newer one there with the next row
            log.change(stores[0], 0, 5, 0, "q")
            for store in stores:
                merged(store)
            merged(stores[0], *stores[1:])
            assert stores[0].push(dsn, batch=batch).complete
            expected, _ = log.expected
            names = ", ".join(sorted(expected))
            union = f"SELECT {names} FROM sample UNION ALL SELECT {names} FROM sample_history ORDER BY n"
            found = [tuple(map(plainly, row)) for row in fetch(dsn, union)]
            assert [tuple(map(plainly, row)) for row in stores[0].query(union)] == found
            assert log.kept == [n for (n,) in fetch(dsn, "SELECT n FROM sample ORDER BY n")]

    law()
