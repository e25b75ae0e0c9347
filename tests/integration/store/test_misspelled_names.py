"""A misspelled column or table in a user's SQL: the error names the nearest one, and lists the columns."""

from __future__ import annotations

import pytest

import edgeshard
from edgeshard.errors import QueryError
from tests.support.processes import command
from tests.support.records import NOON, Reading


@pytest.fixture
def filled(store: edgeshard.Store) -> edgeshard.Store:
    """A store with the tables agent_data and reading."""
    with store.shard("pump") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
        shard.write({"n": 1})
    store.merge()
    return store


def told(store: edgeshard.Store, sql: str) -> str:
    """What the error of a query says."""
    with pytest.raises(QueryError) as caught:
        store.query(sql)
    return str(caught.value)


COLUMNS = "Table reading has the columns _id, _stream, _seq, sensor, celsius, at"


@pytest.mark.parametrize(
    "sql",
    [
        "select sensr from reading",
        "select SENSR from READING",
        'select "r".[sensr] from reading as `r`',
        "select r.sensr from reading r",
        "select count(*) from reading group by sensr",
        "select sensor from reading order by sensr",
        "select 1 from reading where 'é' = sensr and celsus = 1",
        "select 'sensr', /* sensr */ sensor from reading -- sensr\nwhere sensr = 1",
        "select 1 from reading r join reading q on r.sensr = q.sensor",
        "with a as (select sensr from reading) select * from a",
    ],
)
def test_the_nearest_column_is_named_and_the_tables_columns_are_listed(filled: edgeshard.Store, sql: str) -> None:
    assert told(filled, sql).endswith(f"Did you mean sensor? {COLUMNS}")


@pytest.mark.parametrize("sql", ["select * from readng", "select 1 from agent_data, readng", "select 1 from Readng"])
def test_the_nearest_table_is_named(filled: edgeshard.Store, sql: str) -> None:
    assert ". Did you mean reading? The master has the tables agent_data, reading; " in told(filled, sql)


@pytest.mark.parametrize("sql", ["select zzz from reading", "select r.zzz from reading r", "select q.at from reading"])
def test_without_a_near_name_the_columns_are_listed(filled: edgeshard.Store, sql: str) -> None:
    text = told(filled, sql)
    assert (True, False) == (text.endswith(f". {COLUMNS}"), "Did you mean" in text)


@pytest.mark.parametrize(
    "sql", ["selec 1 from reading", "select foo(1) from reading", "select sensor frm reading", "select 1 from zzz"]
)
def test_other_mistakes_get_no_such_advice(filled: edgeshard.Store, sql: str) -> None:
    text = told(filled, sql)
    assert (False, False, True) == ("Did you mean" in text, COLUMNS in text, "The master has the tables" in text)


def test_nothing_is_run_to_find_it(filled: edgeshard.Store) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(i), sensr from n, reading"
    assert "Did you mean sensor? " in told(filled, endless)


def test_a_shard_and_the_commands_say_so_too(filled: edgeshard.Store) -> None:
    with filled.shard("late") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
        with pytest.raises(QueryError, match="Did you mean sensor"):
            shard.query("select sensr from reading")
    for arguments in (("query",), ("query", "--csv"), ("query", "--json"), ("shell",)):
        done = command(arguments[0], filled.root, *arguments[1:], "select sensr from reading")
        assert (1, True, True) == (done.returncode, "Did you mean sensor?" in done.stderr, COLUMNS in done.stderr)
