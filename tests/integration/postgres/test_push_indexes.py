"""No index that a push creates makes a row fail: a row that does not fit into one has it replaced by a smaller one."""

from __future__ import annotations

import decimal
import random
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.postgres import indexes
from tests.support.forms import others_slow
from tests.support.schema_versions import merged, version, write
from tests.support.stores import new_store

pytest.importorskip("psycopg")

from tests.support.postgres_server import LOCKED, PASSWORD, PgServer, do, fetch

pytestmark = pytest.mark.slow

WAYS = pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])

_RANDOM = random.Random(1)


def long_text(length: int, start: str = "") -> str:
    """Return a text that cannot be compressed, of characters that take 4 bytes."""
    return start + "".join(chr(_RANDOM.randrange(0x10000, 0x40000)) for _ in range(length - len(start)))


def long_number(digits: int) -> decimal.Decimal:
    return decimal.Decimal("".join(_RANDOM.choice("123456789") for _ in range(digits)))


#: What does not fit into a B-tree. The largest entry has 2,704 bytes, and another limit, with another error, is 8,191.
LONG: dict[str, Any] = {
    "words": long_text(2_500),
    "raw": _RANDOM.randbytes(10_000),
    "data": {"text": long_text(2_500)},
    "amount": long_number(20_000),
}

SHORT: dict[str, Any] = {"words": "few", "raw": b"few", "data": {"n": 1}, "amount": decimal.Decimal("1.50")}


@edgeshard.table(
    name="indexed",
    index=["words", "raw", "data", "amount", "n", ("n", "words"), ("words", "raw", "data", "amount", "n")],
)
@attrs.frozen
class Indexed:
    words: str
    raw: bytes
    data: dict[str, Any]
    amount: decimal.Decimal
    n: int


def definitions(dsn: str, table: str = "indexed") -> dict[str, str]:
    """Return what each index of a table is over, except its primary key."""
    rows = fetch(dsn, "select indexname, indexdef from pg_indexes where tablename = %s", table)
    return {name: text.partition(" btree ")[2] for name, text in rows if "_stream" not in name}


def of_starts(dsn: str, table: str = "indexed") -> set[str]:
    """Return the names of a table's indexes over starts."""
    return {name for name, text in definitions(dsn, table).items() if "left" in text or "substr" in text}


@pytest.mark.parametrize(
    ("column", "inserts"),
    others_slow(
        [(column, inserts) for column in LONG for inserts in (False, True)],
        [("words", True), ("raw", False), ("data", False)],
    ),
)
def test_a_row_with_a_long_value_arrives_and_only_indexes_with_its_column_are_replaced(
    store: edgeshard.Store, pg: str, column: str, inserts: bool
) -> None:
    write(store, "x", Indexed(**SHORT, n=1))
    merged(store)
    assert store.push(pg, inserts=inserts).complete
    assert set() == of_starts(pg)
    long = {**SHORT, column: LONG[column]}
    write(store, "x", Indexed(**SHORT, n=2), Indexed(**long, n=3), Indexed(**SHORT, n=4))
    merged(store)
    report = store.push(pg, inserts=inserts)
    assert ((), 3) == (report.rejected, report.rows)
    assert [(*SHORT.values(), 1), (*SHORT.values(), 2), (*long.values(), 3), (*SHORT.values(), 4)] == fetch(
        pg, "select words, raw, data, amount, n from indexed order by n"
    )
    replaced = {name for name in definitions(pg) if column in name}
    assert {f"indexed by {column}", "indexed by words, raw, data, amount, n"} <= replaced == of_starts(pg)
    assert 7 == len(definitions(pg))
    assert 2 * len(replaced) == len(report.statements)
    assert () == store.push(pg).statements


def test_what_replaces_an_index_is_the_documented_one_and_the_log_says_so(
    store: edgeshard.Store, pg: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "x", Indexed(**LONG, n=1))
    merged(store)
    report = store.push(pg)
    assert report.complete
    dropped = [text for text in report.statements if text.startswith("DROP INDEX")]
    assert 6 == len(dropped)
    assert all(text in caplog.text for text in dropped)
    assert {
        "indexed by words": '("left"(words, 512))',
        "indexed by raw": "(substr(raw, 1, 512))",
        "indexed by data": '("left"((data)::text, 512))',
        "indexed by amount": '("left"((amount)::text, 512))',
        "indexed by n": "(n)",
        "indexed by n, words": '(n, "left"(words, 256))',
        "indexed by words, raw, data, amount, n": (
            '("left"(words, 102), substr(raw, 1, 102), "left"((data)::text, 102), "left"((amount)::text, 102), n)'
        ),
    } == definitions(pg)


@pytest.mark.parametrize("columns", others_slow([1, 2, 3, 7, 31, 32, 33, 60], [1, 32, 33]))
def test_any_row_fits_into_an_index_over_starts(store: edgeshard.Store, pg: str, columns: int) -> None:
    names = [f"c{n}" for n in range(columns)]
    cls: Any = edgeshard.table(name="wide", index=[tuple(names)])(
        attrs.make_class("Wide", {name: attrs.field(type=str) for name in names})
    )
    for length in (1, 600, 2_500):
        write(store, "x", cls(*(long_text(length) for _ in names)))
    merged(store)
    assert () == store.push(pg).rejected
    assert 3 == len(fetch(pg, "select 1 from wide"))
    ((text,),) = (definitions(pg, "wide").values(),)
    assert min(columns, indexes.COLUMNS_MAX) == text.count("left")


@WAYS
def test_an_index_that_is_declared_later_takes_the_long_values_that_are_there(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    values = {"a": long_text(700), "b": "few", "c": long_text(2_500)}
    fields: dict[str, Any] = dict.fromkeys(values, str)
    write(store, "x", version(**fields)(**values))
    merged(store)
    assert store.push(pg, inserts=inserts).complete
    write(store, "y", version(index=("a", "b", "c"), **fields)(**values))
    merged(store)
    report = store.push(pg, inserts=inserts)
    assert ((), 1) == (report.rejected, report.rows)
    assert {"sample by a", "sample by c"} == of_starts(pg, "sample")
    assert "(b)" == definitions(pg, "sample")["sample by b"]
    assert () == store.push(pg).statements


def test_indexes_of_other_names_and_of_other_masters_are_replaced_too(tmp_path: Path, pg: str) -> None:
    stores = [edgeshard.Store(tmp_path / name) for name in ("older", "newer", "plain")]
    few, long = "few", long_text(2_500)
    versions = [
        version(index=("a",), a=str)(few),
        version(index=("b",), renamed={"a": "b"}, b=str)(few),
        version(renamed={"a": "b"}, b=str)(long),
    ]
    for store, record in zip(stores, versions, strict=True):
        write(store, "x", record)
        merged(store)
        assert () == store.push(pg).rejected
    assert dict.fromkeys(["sample by a", "sample by b"], '("left"(b, 512))') == definitions(pg, "sample")


@WAYS
def test_long_values_that_move_to_an_indexed_column_fit(tmp_path: Path, pg: str, inserts: bool) -> None:
    stores = [new_store(tmp_path / name) for name in ("one", "other", "third")]
    long = [long_text(2_500) for _ in range(2)]
    versions = [
        version(n=int, a=str)(1, long[0]),
        version(index=("b",), n=int, b=str)(2, "few"),
        version({"a": "b"}, index=("b",), n=int, b=str)(3, long[1]),
    ]
    for store, record in zip(stores, versions, strict=True):
        write(store, "x", record)
        merged(store)
        assert () == store.push(pg, inserts=inserts).rejected
    assert [(1, long[0]), (2, "few"), (3, long[1])] == fetch(pg, "select n, b from sample order by n")
    assert {"sample by b": '("left"(b, 512))'} == definitions(pg, "sample")


# -- keyed tables -----------------------------------------------------------------------------------------------------


def keyed_class(first: type, columns: int = 2) -> Any:
    names = ["k", *(f"k{n}" for n in range(1, columns))]
    fields = {"k": attrs.field(type=first), **{name: attrs.field(type=str) for name in names[1:]}}
    fields["value"] = attrs.field(type=int)
    return edgeshard.table(name="keyed", key=names, history=True)(attrs.make_class("Keyed", fields, frozen=True))


@pytest.mark.parametrize(
    ("first", "columns", "inserts"),
    others_slow(
        [(first, columns, inserts) for first in (str, bytes) for columns in (1, 2, 40) for inserts in (False, True)],
        [(str, 1, False), (bytes, 2, True), (str, 40, False)],
    ),
)
def test_versions_of_long_keys_supersede_one_another(
    store: edgeshard.Store, pg: str, first: type, columns: int, inserts: bool
) -> None:
    cls: Any = keyed_class(first, columns)
    shared = long_text(600)  # is all that an index over starts has of the keys
    long = [f"{shared}{n}" + long_text(2_500) for n in range(2)]
    keys = ["few", *long]
    firsts: list[Any] = [key.encode() for key in keys] if first is bytes else list(keys)
    rest = [key[:20] for key in keys]
    with store.shard("a") as shard:
        for value in range(3):
            shard.write_many(cls(key, *[other] * (columns - 1), value) for key, other in zip(firsts, rest, strict=True))
            if value == 2:
                shard.delete(cls, firsts[2], *[rest[2]] * (columns - 1))
            merged(store)
            report = store.push(pg, inserts=inserts)
            assert ((), 0) == (report.rejected, report.remaining)
    assert sorted([(firsts[0], 2), (firsts[1], 2)]) == sorted(fetch(pg, "select k, value from keyed"))
    assert [(firsts[2],)] == fetch(pg, "select k from keyed_deleted")
    history = fetch(pg, "select k, value from keyed_history")
    assert sorted([(key, n) for key in firsts for n in range(2)] + [(firsts[2], 2)]) == sorted(history)
    for table in ("keyed", "keyed_deleted"):
        assert definitions(pg, table).keys() == of_starts(pg, table)
    assert () == store.push(pg).statements


#: Has a server look for each key by itself, in an index if one can be used, however few rows there are.
_ONLY_INDEXES = [
    f"do $$begin execute format('alter database %I set enable_{how} = off', current_database()); end$$"
    for how in ("seqscan", "hashjoin", "mergejoin")
]


@pytest.mark.parametrize("first", [str, bytes])
@pytest.mark.parametrize("long", [False, True])
def test_a_keyed_push_uses_the_index_of_the_key_in_either_form(
    store: edgeshard.Store, pg: str, first: type, long: bool
) -> None:
    cls: Any = keyed_class(first)

    def scans() -> int:
        sql = "select idx_scan from pg_stat_user_indexes where indexrelname like %s"
        return sum(count for (count,) in fetch(pg, sql, "keyed by k,%"))

    with store.shard("a") as shard:
        if long:
            key = long_text(2_500)
            shard.write(cls(key.encode() if first is bytes else key, "", 0))
        for value in range(2):
            keys = [str(n) for n in range(500)]
            shard.write_many(cls(key.encode() if first is bytes else key, "s", value) for key in keys)
            merged(store)
            if value:
                do(pg, "analyze", *_ONLY_INDEXES)
                before = scans()
            assert store.push(pg).complete
    assert long == bool(of_starts(pg, "keyed"))
    deadline = time.monotonic() + 10  # a connection reports what it did a moment after it was closed
    while (found := scans() - before) < 500:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


# -- what still rejects a row -----------------------------------------------------------------------------------------


@WAYS
def test_an_index_of_the_user_rejects_a_row_and_ours_stay_as_they_are(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    cls = version(index=("a",), a=str, b=str)
    write(store, "x", cls("few", "few"))
    merged(store)
    assert store.push(pg, inserts=inserts).complete
    do(pg, "create index mine on sample (b)")
    write(store, "x", cls("few", long_text(2_500)))
    merged(store)
    assert 1 == len(store.push(pg, inserts=inserts).rejected)
    assert {"sample by a": "(a)", "mine": "(b)"} == definitions(pg, "sample")
    write(store, "y", cls(long_text(2_500), "few"))
    write(store, "z", cls(long_text(2_500), long_text(2_500)))
    merged(store)
    report = store.push(pg, inserts=inserts)
    (rejected,) = report.rejected  # the same reason for rows of both agents
    assert ("x", 2, True) == (rejected.agent, rejected.rows, "index row" in rejected.reason)
    assert {"x", "z"} == {item.agent for item in store.rejected().ranges}
    assert {"sample by a": '("left"(a, 512))', "mine": "(b)"} == definitions(pg, "sample")
    assert 2 == len(fetch(pg, "select 1 from sample"))
    do(pg, "drop index mine")
    assert store.push(pg, inserts=inserts, retry_rejected=True).complete


def test_a_row_that_is_too_large_without_any_index_is_rejected_and_indexes_stay_as_they_are(
    store: edgeshard.Store, pg: str
) -> None:
    names = [f"c{n}" for n in range(400)]
    cls: Any = edgeshard.table(name="wide", index=["c0"])(
        attrs.make_class("Wide", {name: attrs.field(type=str) for name in names})
    )
    write(store, "x", cls(*["x" * 23] * 400))
    merged(store)
    (rejected,) = store.push(pg).rejected
    assert "row is too big" in rejected.reason
    assert {"wide by c0": "(c0)"} == definitions(pg, "wide")


@pytest.mark.parametrize("owns", [False, True])
def test_a_user_who_may_not_replace_an_index_gets_the_row_rejected(
    store: edgeshard.Store, pg_server: PgServer, owns: bool
) -> None:
    cls = version(index=("a",), a=str)
    with pg_server.database() as name:
        dsn = pg_server.dsn(name)
        write(store, "x", cls("few"))
        merged(store)
        assert store.push(dsn).complete
        do(dsn, f"grant select, insert, update, delete on all tables in schema public to {LOCKED}")
        if owns:  # it lacks CREATE on the schema, which an index needs
            do(dsn, f"alter table sample owner to {LOCKED}")
        write(store, "x", cls(long_text(2_500)))
        write(store, "y", cls("few"))
        merged(store)
        report = store.push(f"{pg_server.dsn(name, LOCKED)}?password={PASSWORD}")
        assert (["x"], 1) == ([item.agent for item in report.rejected], report.rows)
        assert {"sample by a": "(a)"} == definitions(dsn, "sample")
        assert store.push(dsn, retry_rejected=True).complete


def test_an_index_that_the_user_dropped_does_not_come_back(store: edgeshard.Store, pg: str) -> None:
    cls = version(index=("a", "b"), a=str, b=str)
    write(store, "x", cls("few", "few"))
    merged(store)
    assert store.push(pg).complete
    do(pg, 'drop index "sample by a"')
    write(store, "x", cls(long_text(2_500), long_text(2_500)))
    merged(store)
    assert store.push(pg).complete
    assert {"sample by b": '("left"(b, 512))'} == definitions(pg, "sample")


def test_devices_with_long_values_push_at_once(tmp_path: Path, pg: str) -> None:
    stores = [edgeshard.Store(tmp_path / str(number)) for number in range(3)]
    for store in stores:
        with store.shard("x") as shard:
            shard.write_many(Indexed(**(LONG if n % 10 == 5 else SHORT), n=n) for n in range(30))
        merged(store)
    threads = [threading.Thread(target=store.push, args=(pg,), kwargs={"batch": 7}) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [True] * 3 == [store.push(pg).complete for store in stores]
    assert [(90,)] == fetch(pg, "select count(*) from indexed")
    assert 6 == len(of_starts(pg))
