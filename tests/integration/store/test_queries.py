"""`Store.query`, `erase` and look-ups: mistakes in SQL and parameters, and columns of JSON."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import Row, Rows
from edgeshard.errors import ConfigurationError, EdgeshardError, QueryError, UnreadableRowError
from tests.support.enums import Colour
from tests.support.records import NOON, Reading


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> edgeshard.Store:
    """Return a store of a dict and a record, which no test changes."""
    store = edgeshard.Store(tmp_path_factory.mktemp("queries") / "data")
    with store.shard("agent") as shard:
        shard.write({"n": 1, "big": 2**70, "none": None})
        shard.write(Reading("inlet", 1.5, NOON))
    store.merge()
    return store


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_query_returns_rows_with_columns_even_if_there_are_none(store: edgeshard.Store) -> None:
    rows = store.query("select _seq, _stream, 1 as class, 2 as class, count(*) as count from agent_data")
    assert [(1, 1, 1, 2, 1)] == rows
    assert ("_seq", "_stream", "class", "class_2", "count") == rows.columns == rows[0]._fields
    assert (1, 2, 1) == (rows[0]._seq, rows[0]["class_2"], rows[0].count)
    empty = store.query("select agent_id, data from agent_data where 0")
    assert ([], ("agent_id", "data")) == (empty, empty.columns)
    assert_type(rows, Rows)
    assert_type(rows[0], Row)
    assert_type(rows[:1], Rows)
    assert_type(dict(rows[0]), dict[str, Any])


# -- mistakes ---------------------------------------------------------------------------------------------------------

#: Each calls a method with SQL and parameters.
CALLS: dict[str, Callable[[edgeshard.Store, Any, Any], Any]] = {
    "query": lambda store, sql, params: store.query(sql, params),
    "query_rows": lambda store, sql, params: list(store.query_rows(sql, params)),
    "query_table": lambda store, sql, params: store.query_table(sql, params, colour=False, width=80, unicode=False),
    "lookup": lambda store, sql, params: looked_up(store, sql, params),
}


def looked_up(store: edgeshard.Store, sql: Any, params: Any) -> Any:
    with store.shard("looker", reference={"other": store.root / "other.db"}) as shard:
        return shard.lookup(sql, params)


class Odd(enum.Enum):
    """Values that no column stores."""

    HUGE = 2**64
    NAN = float("nan")


class Whole(int):
    """A subclass, as numpy and others have them."""


class Fraction(float):
    """A subclass, as numpy and others have them."""


#: SQL, parameters, and what the error says; CALL stands for the method.
MISTAKES: list[tuple[Any, Any, str]] = [
    ("select ?", "one", "one value, 'one'; give a list of values, or a dict of them by name: CALL(sql, ['one'])"),
    ("select ?", b"one", "one value, b'one'; give a list of values, or a dict of them by name: CALL(sql, [b'one'])"),
    ("select ?", 5, "by name: CALL(sql, [5])"),
    ("select ?", None, "by name: CALL(sql, [None])"),
    ("select ?", NOON, "one value, datetime.datetime(2026"),
    ("select ?", {1}, "a set, which has no order; give a list of values, or a dict of them by name: CALL(sql, [...])"),
    ("select ?", (n for n in [1]), "a generator; give a list of values, or a dict of them by name: CALL(sql, list(...))"),
    ("select ?", {"n": 1}, "given in a list, not in a dict: CALL(sql, [1])"),
    ("select ?, :n", {"n": 1}, "given in a list, not in a dict: CALL(sql, [1])"),
    ("select ?", [], "1 parameter, but got 0: CALL(sql, [...])"),
    ("select ?, ?", [1], "2 parameters, but got 1: CALL(sql, [..., ...])"),
    ("select ?", [1, 2], "1 parameter, but got 2: CALL(sql, [...])"),
    ("select 1", [1], "0 parameters, but got 1: CALL(sql)"),
    ("select :a, :b", {"a": 1}, """parameter 'b' has no value: CALL(sql, {"a": ..., "b": ...})"""),
    ("select ?", [{1}], "parameter 1 = {1}: no column stores a set"),
    ("select ?, ?", [1, object()], "no column stores an object; convert it first"),
    ("select ?", [float("nan")], "parameter 1 = nan: "),
    ("select ?", [2**64], "parameter 1 = 18446744073709551616: "),
    ("select ?", ["\ud800"], "parameter 1 = "),
    ("select ?", [Odd.HUGE], "parameter 1 = <Odd.HUGE"),
    ("select ?", [Odd.NAN], "parameter 1 = <Odd.NAN"),
    ("select ?", [Whole(2**64)], "parameter 1 = 18446744073709551616: "),
    ("select ?", [Fraction("nan")], "parameter 1 = nan: "),
    ("select :a", {"a": [1, {2}]}, "parameter a = [1, {2}]: "),
    ("", (), "the SQL is empty; give exactly one statement that reads, such as a SELECT"),
    (" ; -- nothing\n", (), "the SQL is empty"),
    ("select 1; select 2", (), "the SQL has several statements"),
    ("select 1; delete from agent_data", (), ""),
    (5, (), "the SQL must be a str, not an int: CALL(sql)"),
    (None, (), "the SQL must be a str, not a NoneType"),
    (b"select 1", (), "the SQL must be a str, not a bytes"),
    *[
        (sql, (), "")
        for sql in (
            "insert into agent_data values (1)", "delete from agent_data", "create temp table x(y)",
            "pragma journal_mode = delete", "pragma nonsense", "begin", "attach 'x.db' as x", "vacuum into 'x.db'",
        )
    ],
    ("select * from nowhere", (), "no such table: nowhere. The "),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_mistake_is_named_with_the_right_form(
    store: edgeshard.Store, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = apsw.Connection(str(store.root / "other.db"))
    other.execute("create table if not exists agent_data(x)")
    other.close()
    before = store.master_path.read_bytes()
    for sql, params, said in MISTAKES:
        with pytest.raises(QueryError) as caught:
            CALLS[call](store, sql, params)
        assert said.replace("CALL", call) in caught.value.cause, (sql, params)
        assert caught.value.cause.isascii()
    assert (before, []) == (store.master_path.read_bytes(), list(tmp_path.iterdir()))


def test_subclasses_and_enums_are_bound_as_their_values(store: edgeshard.Store) -> None:
    assert [(7, 0.5, "red")] == store.query("select ?, ?, ?", [Whole(7), Fraction(0.5), Colour.RED])


def test_a_semicolon_and_comments_are_no_second_statement(store: edgeshard.Store) -> None:
    for sql in ("select 1;", "select 1 -- one", "/* one */ select 1; ; -- end", "-- one\n;select 1"):
        assert [(1,)] == store.query(sql)
        assert [("1",), (1,)] == list(store.query_rows(sql)) or sql != "select 1;"
    assert [(1, "text")] == store.query("select 1, 'text'", [])
    assert "agent_data" in {row.name for row in store.query("pragma table_list")}


def test_names_and_positions_can_be_given_as_in_sqlite(store: edgeshard.Store) -> None:
    assert [(1, 2)] == store.query("select :a, :b", {"a": 1, "b": 2, "unused": 3}) == store.query("select ?, ?", (1, 2))
    (row,) = store.query("select 1 as a, 2 as b")
    assert [(2, 1)] == store.query("select :b, :a", dict(row))
    assert [(1, 2)] == store.query("select ?, ?", row)


@pytest.mark.parametrize(
    ("table", "where", "params", "error", "said"),
    [
        ("agent_data", "_id = ?", "one", QueryError, r"erase\(table, where, \['one'\]\)"),
        ("agent_data", "_id = ?", 5, QueryError, r"erase\(table, where, \[5\]\)"),
        ("agent_data", "_id = ?", {"n": 1}, QueryError, r"erase\(table, where, \[1\]\)"),
        ("agent_data", 5, (), QueryError, "must be a str, not an int"),
        ("agent_data", " ", (), QueryError, "the condition is empty"),
        ("agent_data", "1); select (1", (), QueryError, "several statements|it only reads"),
        (5, "true", (), ConfigurationError, "a table is its name or its class, not 5"),
    ],
)
def test_an_erasure_tells_the_same_mistakes(
    store: edgeshard.Store, table: Any, where: Any, params: Any, error: type[EdgeshardError], said: str
) -> None:
    for dry_run in (True, False):
        with pytest.raises(error, match=said):
            store.erase(table, where, params, dry_run=dry_run)
    assert 1 == len(store.query("select * from agent_data"))


# -- JSON -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Plan:
    steps: list[Any]
    notes: dict[str, Any] | None
    title: str


@pytest.fixture
def plans(tmp_path: Path) -> edgeshard.Store:
    store = edgeshard.Store(tmp_path / "data")
    with store.shard("a") as shard:
        shard.write(Plan([1, 2**70, 0.1], None, '{"not": "decoded"}'))
        shard.write(Plan([], {"é": [None, True]}, "t"))
        shard.write({"n": 2**70})
    store.merge()
    return store


def test_columns_of_json_are_decoded_on_request(plans: edgeshard.Store) -> None:
    sql = "select steps, notes, title from plan order by _id"
    assert ("[1,1180591620717411303424,0.1]", None, '{"not": "decoded"}') == plans.query(sql)[0]
    rows = plans.query(sql, json=True)
    assert [([1, 2**70, 0.1], None, '{"not": "decoded"}'), ([], {"é": [None, True]}, "t")] == rows
    assert ("steps", "notes", "title") == rows.columns
    assert {"n": 2**70} == plans.query("select data from agent_data", json=True)[0].data
    assert [] == plans.query("select data from agent_data where 0", json=True)


def test_json_is_found_through_aliases_views_and_subqueries(plans: edgeshard.Store) -> None:
    connection = apsw.Connection(str(plans.master_path))
    connection.execute("create view renamed as select steps as other, upper(title) as title from plan")
    connection.close()
    for sql in (
        "select steps as s from plan limit 1",
        "select other from renamed limit 1",
        "select x from (select steps as x from plan) limit 1",
        "with p as (select STEPS from Plan) select * from p limit 1",
        "select p.steps from plan p join agent_data d on true limit 1",
    ):
        assert [1, 2**70, 0.1] == plans.query(sql, json=True)[0][0], sql


def test_an_expression_stays_text_unless_its_column_is_named(plans: edgeshard.Store) -> None:
    sql = "select data -> 'n' as n, json_array(1, 2) as pair, data ->> 'n' as value from agent_data"
    assert ("1180591620717411303424", "[1,2]") == plans.query(sql, json=True)[0][:2]
    assert (2**70, [1, 2]) == plans.query(sql, json=["n", "pair"])[0][:2]
    assert "[1,2]" == plans.query(sql, json="n")[0].pair
    with pytest.raises(QueryError, match="json names 'm', but the columns are n, pair, value"):
        plans.query(sql, json=["m"])
    with pytest.raises(QueryError, match="json= is True, or a list of names of columns, not 5"):
        plans.query(sql, json=5)  # type: ignore[arg-type]
    assert plans.query(sql) == plans.query(sql, json=[]) == plans.query(sql, json=False)


def test_columns_of_references_are_decoded_if_they_are_declared_as_json(plans: edgeshard.Store, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("create table plan(steps text, notes json); insert into plan values ('[1]', '[2]'), ('[3]', 4)")
    other.close()
    found = plans.query("select o.* from o.plan as o", reference={"o": tmp_path / "other.db"}, json=True)
    assert [("[1]", [2]), ("[3]", 4)] == found


@pytest.mark.parametrize("text", ["{", "", "nul", "NaN", '{"a": Infinity}', "[" * 5_000, "9" * 5_000])
def test_what_is_no_json_is_reported_with_its_place(plans: edgeshard.Store, text: str) -> None:
    connection = apsw.Connection(str(plans.master_path))
    connection.execute("update plan set notes = ? where title = 't'", (text,))
    connection.close()
    with pytest.raises(UnreadableRowError, match=r"notes of row 2 of the result = .*not JSON.*Leave out json="):
        plans.query("select notes from plan order by _id", json=True)
    assert text == plans.query("select notes from plan order by _id")[1].notes
    assert 3 == len(plans.query("select title, steps from plan union all select 'x', null", json=True))


# -- reading a class --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("reading", r"takes the class of the rows, .*read\(Reading\).*query\('select \* from reading'\)"),
        (5, r"takes the class of the rows, such as read\(Reading\), not 5"),
        (None, r"such as read\(Reading\), not None"),
        (Reading("x", 1.0, NOON), r"not an instance of it: read\(Reading\)"),
        (dict, r"read\(edgeshard.AgentData\)"),
        (list[int], "list"),
        (int, r"int"),
    ],
)
def test_what_is_no_class_of_rows_is_named_with_the_right_form(store: edgeshard.Store, cls: Any, said: str) -> None:
    with pytest.raises(EdgeshardError, match=said):
        list(store.read(cls))


# -- DataFrames -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scalars_of_numpy_are_parameters(plans: edgeshard.Store) -> None:
    numpy: Any = importlib.import_module("numpy")  # its types are not those of Python
    given = [numpy.int64(7), numpy.float32(0.5), numpy.str_("x"), numpy.bool_(True)]
    assert [(7, 0.5, "x", 1)] == plans.query("select ?, ?, ?, ?", given)
    with pytest.raises(QueryError, match="parameter 1 = array"):
        plans.query("select ?", [numpy.array([1])])
    with pytest.raises(QueryError, match="ndarray; give a list"):
        plans.query("select ?", numpy.array([1]))


@pytest.mark.slow
def test_pandas_finds_the_columns(plans: edgeshard.Store) -> None:
    pandas: Any = importlib.import_module("pandas")  # it has no types
    sql = "select _seq, steps as class, title as 'a b', 1 as n, 2 as n, _id as count, null as keys from plan order by 1"
    names = ["_seq", "class", "a b", "n", "n_2", "count", "keys"]
    rows = plans.query(sql)
    frame = pandas.DataFrame(rows)
    assert names == list(frame.columns)
    assert [1, 2] == frame["_seq"].tolist()
    assert [2, 2] == frame["n_2"].tolist()
    assert frame.equals(pandas.DataFrame(rows, columns=rows.columns))
    assert frame.equals(pandas.DataFrame([dict(row) for row in rows]))
    empty = plans.query(f"select * from ({sql}) where false")
    assert names[:4] == list(pandas.DataFrame(empty, columns=empty.columns).columns)[:4]
    decoded = pandas.DataFrame(plans.query("select steps, notes from plan", json=True))
    assert [1, 2**70, 0.1] == decoded["steps"][0]
