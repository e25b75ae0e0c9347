"""All rows are in PostgreSQL in the end, by the newest names and in the widest types, whoever pushed before."""

from __future__ import annotations

import ast
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeshard
from tests.support.forms import others_slow, short_and_full
from tests.support.keyed_schema_versions import STEPS, Log
from tests.support.schema_versions import STEPS as PLAIN_STEPS
from tests.support.schema_versions import expected_of, merged, record_of, write
from tests.support.stores import new_store

pytest.importorskip("psycopg")
from psycopg.conninfo import make_conninfo

from tests.support.keyed_pushes import plainly
from tests.support.postgres_server import do, fetch


@pytest.mark.parametrize("examples", short_and_full(3, 15))
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
            stores = [new_store(Path(folder) / str(number)) for number in range(3)]
            log.change(stores[0], 0, 0, 0, "q")
            for step in steps:
                if len(step) == 5:
                    place, *change = step
                    log.change(stores[place], *change)
                else:
                    for place in step:
                        merged(stores[place])
                        stores[place].push(dsn, batch=batch)  # may hold back what is narrower here
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


@pytest.mark.slow
@pytest.mark.parametrize("inserts", others_slow([False, True], always=[False]))
@pytest.mark.parametrize("examples", short_and_full(6, 60))
def test_masters_that_know_different_classes_push_the_same_in_any_order(pg: str, examples: int, inserts: bool) -> None:
    """Steps that would merge one store into another push the first one; what a master does not know, it never learns."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(PLAIN_STEPS, st.permutations(range(3)), st.sampled_from([1, 1000]))
    def law(steps: list[tuple[int, ...]], order: list[int], batch: int) -> None:
        schema = f"s{uuid.uuid4().hex}"
        do(pg, f"CREATE SCHEMA {schema}")
        dsn = make_conninfo(pg, options=f"-csearch_path={schema}")
        written: list[Any] = []
        with tempfile.TemporaryDirectory() as folder:
            stores = [new_store(Path(folder) / str(number)) for number in range(3)]

            def push(store: edgeshard.Store) -> None:
                merged(store)
                report = store.push(dsn, batch=batch, inserts=inserts)
                assert report.complete, report.rejected

            for step in steps:
                if len(step) == 4:
                    written.append(record_of(len(written), *step[2:]))
                    write(stores[step[0]], str(step[1]), written[-1])
                else:
                    push(stores[step[0]])
            for number in order:
                push(stores[number])
        if not written:
            return
        columns, rows = expected_of(written)
        recorded = fetch(dsn, "SELECT column_name, type FROM edgeshard_columns WHERE table_name = 'sample'")
        assert columns.items() <= dict(recorded).items()
        names = sorted(columns)
        found = fetch(dsn, f"SELECT {', '.join(names)} FROM sample ORDER BY n")
        expected = [tuple(plainly(ast.literal_eval(row[name])) for name in names) for row in rows]
        assert expected == [tuple(map(plainly, row)) for row in found]
        for old in dict(recorded).keys() - columns.keys():
            assert [] == fetch(dsn, f"SELECT 1 FROM sample WHERE {old} IS NOT NULL")

    law()
