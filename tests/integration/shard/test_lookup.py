"""References: what an agent looks up beside its shard, and that neither harms the other."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DamagedError,
    EdgeshardError,
    QueryError,
    ReferenceChangedError,
    ShardClosedError,
    ShardPoisonedError,
    StorageBusyError,
)
from edgeshard.records import queries
from edgeshard.shard import lookup
from edgeshard.sqlite import statements
from tests.support.processes import python, sql
from tests.support.stores import numbers, shard_path

PATTERNS = (
    "CREATE TABLE pattern(id TEXT PRIMARY KEY, name TEXT, uses INTEGER)",
    "INSERT INTO pattern VALUES ('RECURSIVE_001', 'base case first', 3), ('RECURSIVE_002', 'tail call', 5)",
)
LOOK_UP = "SELECT name, uses FROM patterns.pattern WHERE id = ?"


def make(path: Path, *statements: str, mode: str = "delete", page_bytes: int = 4096) -> Path:
    """A database of somebody else's making, with no file beside it."""
    connection = apsw.Connection(str(path))
    connection.pragma("page_size", page_bytes)
    connection.pragma("journal_mode", mode)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()
    return path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make(tmp_path / "patterns.db", *PATTERNS)


def opened(store: edgeshard.Store, path: Path, name: str = "patterns") -> edgeshard.Shard:
    return store.shard("agent", reference={name: path})


def refused(store: edgeshard.Store, references: Any) -> EdgeshardError:
    """The error of opening a shard with `references`; nothing of a shard may come of it."""
    with pytest.raises(EdgeshardError) as caught:
        store.shard("agent", reference=references)
    assert not store.root.exists()
    return caught.value


# -- looking up -------------------------------------------------------------------------------------------------------


def test_a_look_up_returns_rows_whose_values_are_attributes(store: edgeshard.Store, library: Path) -> None:
    with opened(store, library) as shard:
        (row,) = shard.lookup(LOOK_UP, ("RECURSIVE_002",))
        assert (("tail call", 5), "tail call", 5) == (tuple(row), row.name, row.uses)
        assert [] == shard.lookup(LOOK_UP, ("RECURSIVE_999",))
        assert [(5,)] == shard.lookup("SELECT max(uses) FROM pattern WHERE id LIKE :id", {"id": "RECURSIVE_%"})


def test_several_references_are_joined_in_one_look_up(store: edgeshard.Store, library: Path, tmp_path: Path) -> None:
    prices = make(tmp_path / "prices.db", "CREATE TABLE price(id, cents)", "INSERT INTO price VALUES ('tail call', 7)")
    with store.shard("agent", reference={"patterns": str(library), "prices": prices}) as shard:
        joined = "SELECT uses * cents FROM patterns.pattern AS p JOIN prices.price AS c ON c.id = p.name"
        assert [(35,)] == shard.lookup(joined)


def test_a_path_may_hold_what_a_uri_gives_a_meaning_and_be_a_link(store: edgeshard.Store, tmp_path: Path) -> None:
    odd = make(tmp_path / "a?mode=rwc#b %41.db", *PATTERNS)
    link = tmp_path / "link.db"
    link.symlink_to(odd.name)
    for path in (odd, link):
        with opened(store, path) as shard:
            assert [(2,)] == shard.lookup("SELECT count(*) FROM patterns.pattern")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_reference_is_the_same_byte_for_byte_afterwards(store: edgeshard.Store, tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "patterns.db", *PATTERNS, mode=mode)
    before = path.read_bytes()
    with opened(store, path) as shard:
        assert 2 == len(shard.lookup("SELECT * FROM patterns.pattern"))
        shard.write({"n": 1})
    assert before == path.read_bytes()


def test_a_wal_reference_is_read_with_what_only_its_log_holds(store: edgeshard.Store, tmp_path: Path) -> None:
    path = make(tmp_path / "patterns.db", *PATTERNS, mode="wal")
    code = (
        "import apsw, os, sys\nc = apsw.Connection(sys.argv[1])\n"
        'c.execute("UPDATE pattern SET uses = 6 WHERE uses = 5")\nos._exit(0)'
    )
    assert 0 == python(code, path).returncode
    with opened(store, path) as shard:
        assert [("tail call", 6)] == shard.lookup(LOOK_UP, ("RECURSIVE_002",))


def test_views_and_virtual_tables_of_a_reference_can_be_used(store: edgeshard.Store, tmp_path: Path) -> None:
    path = make(
        tmp_path / "patterns.db",
        *PATTERNS,
        "CREATE VIEW popular AS SELECT name FROM pattern WHERE uses > 4",
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "INSERT INTO words VALUES ('walk a tree'), ('fold a list')",
        "CREATE VIRTUAL TABLE box USING rtree(id, low, high)",
        "INSERT INTO box VALUES (1, 2, 3)",
    )
    with opened(store, path) as shard:
        assert [("tail call",)] == shard.lookup("SELECT name FROM patterns.popular")
        assert [("walk a tree",)] == shard.lookup("SELECT text FROM words WHERE words MATCH ?", ("tree",))
        assert [(1,)] == shard.lookup("SELECT id FROM box WHERE low < 3")
        with pytest.raises(QueryError, match=r"only reads references"):
            shard.lookup("INSERT INTO box VALUES (2, 3, 4)")


# -- a look-up only reads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO patterns.pattern VALUES ('x', 'y', 1)",
        "DELETE FROM pattern",
        "DROP TABLE pattern",
        "CREATE TABLE main.mine(x)",
        "CREATE TEMP TABLE mine(x)",
        "ATTACH 'made.db' AS made",
        "DETACH patterns",
        "VACUUM patterns INTO 'made.db'",
        "BEGIN",
        "SAVEPOINT here",
        "PRAGMA query_only = 0",
        "PRAGMA trusted_schema = 1",
        "PRAGMA patterns.journal_mode = WAL",
        "ANALYZE",
        "REINDEX",
    ],
)
def test_what_is_no_look_up_is_refused_and_changes_nothing(
    store: edgeshard.Store, library: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library.parent)
    before = library.read_bytes()
    with opened(store, library) as shard:
        with pytest.raises(QueryError, match=r"patterns\.db: .*only reads references; .* shard\.write"):
            shard.lookup(statement)
        assert [(2,)] == shard.lookup("SELECT count(*) FROM patterns.pattern")
    assert (before, False) == (library.read_bytes(), Path("made.db").exists())


@pytest.mark.parametrize(
    ("statement", "params", "said"),
    [
        (
            "SELECT * FROM patern",
            (),
            "no such table: patern. Did you mean pattern? The references have the tables patterns.pattern",
        ),
        ("SELEC 1", (), "syntax error"),
        ("SELECT :id", {}, "parameter 'id' has no value: lookup(sql, {\"id\": ...})"),
        ("SELECT ?", (), "1 parameter, but got 0: lookup(sql, [...])"),
        ("SELECT ?", (object(),), "object"),
        ("SELECT 1; SELECT 2, 3", (), "several statements"),
        ("SELECT load_extension('x')", (), "not authorized"),
    ],
)
def test_a_mistake_in_the_sql_is_told_and_the_handle_goes_on(
    store: edgeshard.Store, library: Path, statement: str, params: Any, said: str
) -> None:
    with opened(store, library) as shard:
        with pytest.raises(QueryError) as caught:
            shard.lookup(statement, params)
        assert said in caught.value.cause
        assert str(library) == caught.value.path
        assert 1 == shard.write({"n": 1})
        assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))


def test_a_trigger_and_an_unsafe_view_of_a_stranger_do_nothing(store: edgeshard.Store, tmp_path: Path) -> None:
    path = make(
        tmp_path / "patterns.db",
        *PATTERNS,
        "CREATE VIEW trap AS SELECT load_extension('evil')",
        "CREATE VIEW pages AS SELECT * FROM dbstat",
        "CREATE TRIGGER spring INSTEAD OF INSERT ON trap BEGIN SELECT load_extension('evil'); END",
    )
    with opened(store, path) as shard:
        for statement in ("SELECT * FROM trap", "SELECT * FROM pages", "INSERT INTO trap VALUES (1)"):
            with pytest.raises(QueryError):
                shard.lookup(statement)
        assert [(2,)] == shard.lookup("SELECT count(*) FROM patterns.pattern")


def test_a_view_without_an_end_is_ended(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LOOKUP_STEPS", 2_000_000)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n WHERE x < 0"
    path = make(tmp_path / "patterns.db", *PATTERNS, f"CREATE VIEW pit AS {endless}")
    with opened(store, path) as shard:
        for _ in range(2):
            with pytest.raises(QueryError, match="more than 2,000,000 steps"):
                shard.lookup("SELECT * FROM pit")
            assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))


def test_many_look_ups_together_may_take_more_steps_than_one(
    store: edgeshard.Store, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LOOKUP_STEPS", 2_000_000)
    count = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 50000) SELECT count(*) FROM n"
    with opened(store, library) as shard:
        assert [[(50_000,)]] * 20 == [shard.lookup(count) for _ in range(20)]


def test_ctrl_c_ends_a_look_up_and_the_shard_goes_on(store: edgeshard.Store, library: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n WHERE x < 0"
    with opened(store, library) as shard:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            shard.lookup(endless)
        timer.join()
        assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))
        shard.write({"n": 1})
    store.merge()
    assert [1] == numbers(store)


# -- beside the shard's own work --------------------------------------------------------------------------------------


def test_a_look_up_in_the_middle_of_a_transaction_is_no_part_of_it(store: edgeshard.Store, library: Path) -> None:
    with opened(store, library) as shard:
        with shard.transaction():
            shard.write({"n": 1})
            with pytest.raises(QueryError):
                shard.lookup("SELECT * FROM nowhere")
            assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))
            shard.write({"n": 2})
        with pytest.raises(ZeroDivisionError), shard.transaction():
            shard.write({"n": 3})
            shard.lookup(LOOK_UP, ("RECURSIVE_001",))
            raise ZeroDivisionError
    store.merge()
    assert [1, 2] == numbers(store)


def test_a_transaction_outlives_a_reference_that_is_damaged_meanwhile(store: edgeshard.Store, tmp_path: Path) -> None:
    path = make(tmp_path / "patterns.db", *PATTERNS, "CREATE TABLE big(x)", "INSERT INTO big VALUES (zeroblob(9000))")
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with opened(store, path) as shard, shard.transaction():
        shard.write({"n": 1})
        with pytest.raises(DamagedError, match=r"patterns\.db: the database is damaged"):
            shard.lookup("SELECT count(*) FROM patterns.big")
        shard.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_the_one_of_several_references_that_is_damaged_is_named(
    store: edgeshard.Store, library: Path, tmp_path: Path
) -> None:
    bad = make(tmp_path / "bad.db", "CREATE TABLE big(x)", "INSERT INTO big VALUES (zeroblob(9000))")
    with open(bad, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with store.shard("agent", reference={"patterns": library, "bad": bad}) as shard:
        with pytest.raises(DamagedError) as caught:
            shard.lookup("SELECT * FROM bad.big, patterns.pattern")
        assert str(bad) == caught.value.path


def test_the_shards_rows_are_not_to_be_looked_up_nor_the_references_to_be_written(
    store: edgeshard.Store, library: Path
) -> None:
    with opened(store, library) as shard:
        shard.write({"n": 1})
        with pytest.raises(QueryError, match="no such table: agent_data"):
            shard.lookup("SELECT * FROM agent_data")
    assert [["agent_data"]] == sql(shard_path(store, "agent"), "SELECT DISTINCT table_name FROM _edgeshard_columns")


def test_threads_look_up_while_others_write(store: edgeshard.Store, library: Path) -> None:
    found: list[int] = []

    def look() -> None:
        for _ in range(200):
            ((_, uses),) = shard.lookup(LOOK_UP, ("RECURSIVE_002",))
            found.append(uses)

    with opened(store, library) as shard:
        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(200):
            shard.write({"n": n})
        for thread in threads:
            thread.join()
    store.merge()
    assert ([5] * 600, list(range(200))) == (found, numbers(store))


def test_a_look_up_does_not_wait_for_another_threads_transaction(store: edgeshard.Store, library: Path) -> None:
    found: list[Any] = []
    with opened(store, library) as shard, shard.transaction():
        thread = threading.Thread(target=lambda: found.extend(shard.lookup(LOOK_UP, ("RECURSIVE_001",))))
        thread.start()
        thread.join(60)
        assert [("base case first", 3)] == found


def test_a_look_up_from_a_signal_handler_that_interrupts_one_is_refused(store: edgeshard.Store, library: Path) -> None:
    seen: list[str] = []

    def handle(*_: object) -> None:
        try:
            shard.lookup(LOOK_UP, ("RECURSIVE_001",))
        except EdgeshardError as error:
            seen.append(type(error).__name__)

    count = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n"
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with opened(store, library) as shard:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert [(3_000_000,)] == shard.lookup(count)
            assert ["TransactionError"] == seen
    finally:
        signal.signal(signal.SIGALRM, before)


# -- handles that cannot be used --------------------------------------------------------------------------------------


def test_a_shard_without_references_says_how_to_give_it_some(shard: edgeshard.Shard) -> None:
    with pytest.raises(ConfigurationError, match=r"reference=\{name: path\}"):
        shard.lookup("SELECT 1")


def test_a_closed_handle_refuses_and_its_files_are_let_go(store: edgeshard.Store, library: Path) -> None:
    shard = opened(store, library)
    shard.lookup(LOOK_UP, ("RECURSIVE_001",))
    shard.close()
    with pytest.raises(ShardClosedError):
        shard.lookup(LOOK_UP, ("RECURSIVE_001",))
    open_files = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    assert [] == [path for path in open_files if path.startswith(str(library))]


def test_a_poisoned_handle_refuses_look_ups_too(store: edgeshard.Store, library: Path) -> None:
    shard = opened(store, library)
    shard.write({"n": 1})
    shard_path(store, "agent").rename(store.root / "elsewhere.db")
    with pytest.raises(ShardPoisonedError):
        shard.sync()
    with pytest.raises(ShardPoisonedError):
        shard.lookup(LOOK_UP, ("RECURSIVE_001",))
    shard.close()


def test_a_forked_child_may_not_look_up_and_the_parent_goes_on(store: edgeshard.Store, library: Path) -> None:
    code = """
import os, sys, threading, warnings
import edgeshard
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what this is about
shard = edgeshard.Store(sys.argv[1]).shard("agent", reference={"patterns": sys.argv[2]})
shard.lookup("SELECT * FROM pattern")
held = threading.Event()
def hold():
    with shard._lookups._lock:
        held.set()
        forked.wait()
forked = threading.Event()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    try:
        shard.lookup("SELECT * FROM pattern")
    except edgeshard.errors.ShardForkedError:
        shard.close()
        del shard
        os._exit(7)
    os._exit(1)
forked.set()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, len(shard.lookup("SELECT * FROM pattern")), shard.write({"n": 1}))
shard.close()
"""
    done = python(code, store.root, library)
    assert ("7 2 1\n", "") == (done.stdout, done.stderr)


def test_a_shard_that_is_in_use_leaves_no_reference_open(store: edgeshard.Store, library: Path) -> None:
    with store.shard("agent"), pytest.raises(edgeshard.ShardInUseError):
        opened(store, library)
    open_files = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    assert [] == [path for path in open_files if path.startswith(str(library))]


# -- names and files that cannot be references ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["main", "Temp", "", "1st", "a b", "a.b", 'a"b', "a'", "ä", "edgeshard_x", "SQLITE_x", "a" * 65, "a\n", None, 7],
)
def test_a_name_that_cannot_be_one_is_refused(store: edgeshard.Store, library: Path, name: Any) -> None:
    error = refused(store, {name: library})
    assert (ConfigurationError, str(library), True) == (type(error), error.path, repr(name) in error.cause)


@pytest.mark.parametrize("references", ["patterns.db", ["patterns.db"], {}, {"a": None}, {"a": b"x.db"}, {"a": 1}])
def test_what_is_no_mapping_of_names_to_paths_is_refused(store: edgeshard.Store, references: Any) -> None:
    assert ConfigurationError is type(refused(store, references))


def test_two_names_that_sqlite_takes_for_one_are_refused(store: edgeshard.Store, library: Path) -> None:
    assert "two references" in refused(store, {"Patterns": library, "patterns": library}).cause


def test_as_many_references_as_the_limit_are_opened_and_no_more(store: edgeshard.Store, library: Path) -> None:
    many = {f"r{number}": library for number in range(lookup.REFERENCES_MAX + 1)}
    assert "1 to 10 references, not 11" in refused(store, many).cause
    del many["r0"]
    with store.shard("agent", reference=many) as shard:
        assert [(10,)] == shard.lookup(f"SELECT {' + '.join(f'(SELECT count(*) / 2 FROM {n}.pattern)' for n in many)}")


def missing(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_text(path: Path) -> None:
    path.write_text("no database\n" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:512])


def in_utf16(path: Path) -> None:
    path.unlink()
    make(path, "PRAGMA encoding = 'UTF-16'", *PATTERNS)


def a_log_alone(path: Path) -> None:
    path.rename(str(path) + "-wal")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (missing, ConfigurationError, "there is no such file"),
        (a_folder, ConfigurationError, "not a regular file"),
        (a_pipe, ConfigurationError, "not a regular file"),
        (empty, ConfigurationError, "empty"),
        (a_log_alone, ConfigurationError, "its database is missing"),
        (a_text, DamagedError, "not a SQLite database"),
        (cut, DamagedError, "damaged"),
        (in_utf16, DamagedError, "same text encoding"),
    ],
)
def test_a_file_that_cannot_be_a_reference_is_named_and_no_shard_is_made(
    store: edgeshard.Store, library: Path, spoil: Callable[[Path], None], kind: type[EdgeshardError], said: str
) -> None:
    spoil(library)
    error = refused(store, {"patterns": library})
    assert (kind, str(library), True) == (type(error), error.path, said in error.cause), error
    assert spoil is not missing or not library.exists()  # SQLite's ATTACH would make it


def test_a_reference_with_a_journal_to_be_undone_is_refused(store: edgeshard.Store, library: Path) -> None:
    code = (
        "import apsw, os, sys\nc = apsw.Connection(sys.argv[1])\nc.pragma('cache_size', 1)\n"
        "c.execute('BEGIN; CREATE TABLE big(x)')\n"
        "c.executemany('INSERT INTO big VALUES (zeroblob(?))', [(4000,)] * 50)\nos._exit(0)"
    )
    assert 0 == python(code, library).returncode
    error = refused(store, {"patterns": library})
    assert (StorageBusyError, str(library), True) == (type(error), error.path, "only a writer can undo" in error.cause)


def test_a_wal_database_on_a_read_only_medium_is_refused_and_another_is_read(
    store: edgeshard.Store, small_disk: Path
) -> None:
    with_log = make(small_disk / "log.db", *PATTERNS, mode="wal")
    plain = make(small_disk / "plain.db", *PATTERNS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    error = refused(store, {"patterns": with_log})
    assert (AccessError, str(with_log), True) == (type(error), error.path, "journal_mode = DELETE" in error.cause)
    with opened(store, plain) as shard:
        assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))


# -- a file that changes ----------------------------------------------------------------------------------------------


def replaced(path: Path) -> None:
    os.replace(make(path.with_name("new.db"), *PATTERNS, "UPDATE pattern SET uses = 9"), path)


def copied_over(path: Path) -> None:
    """As cp does; made by as many statements as the old one, so that SQLite's own counter is the same."""
    new = make(path.with_name("new.db"), PATTERNS[0], PATTERNS[1].replace("3", "8"))
    path.write_bytes(new.read_bytes())


def removed(path: Path) -> None:
    path.unlink()


def written(path: Path) -> None:
    sql(path, "UPDATE pattern SET uses = 9")


def truncated(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(b"\xaa" * path.stat().st_size)


@pytest.mark.parametrize("change", [replaced, copied_over, removed, written, truncated, garbled])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_reference_that_changed_is_refused_and_named_and_the_shard_goes_on(
    store: edgeshard.Store, tmp_path: Path, change: Callable[[Path], None], mode: str
) -> None:
    path = make(tmp_path / "patterns.db", *PATTERNS, mode=mode)
    with opened(store, path) as shard:
        shard.lookup(LOOK_UP, ("RECURSIVE_001",))
        time.sleep(0.02)  # a file system's clock ticks every few milliseconds
        change(path)
        for _ in range(2):
            with pytest.raises(ReferenceChangedError, match="open the shard again") as caught:
                shard.lookup(LOOK_UP, ("RECURSIVE_001",))
            assert str(path) == caught.value.path
        shard.write({"n": 1})
    store.merge()
    assert [1] == numbers(store)


def test_a_shard_that_is_opened_anew_reads_the_new_reference(store: edgeshard.Store, library: Path) -> None:
    with opened(store, library) as shard:
        assert [("tail call", 5)] == shard.lookup(LOOK_UP, ("RECURSIVE_002",))
        replaced(library)
    with opened(store, library) as shard:
        assert [("tail call", 9)] == shard.lookup(LOOK_UP, ("RECURSIVE_002",))


def test_other_readers_that_come_and_go_change_nothing(store: edgeshard.Store, tmp_path: Path) -> None:
    path = make(tmp_path / "patterns.db", *PATTERNS, mode="wal")
    other = edgeshard.Store(tmp_path / "other")
    with opened(store, path) as shard:
        with opened(other, path) as beside:
            assert 1 == len(beside.lookup(LOOK_UP, ("RECURSIVE_001",)))
        assert [(2,)] == shard.lookup("SELECT count(*) FROM patterns.pattern")


def test_a_reference_that_somebody_keeps_locked_is_busy(
    store: edgeshard.Store, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_BUSY_TIMEOUT_S", 0.05)
    holder = apsw.Connection(str(library))
    with opened(store, library) as shard:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageBusyError):
            shard.lookup(LOOK_UP, ("RECURSIVE_001",))
        holder.execute("ROLLBACK")
        assert 1 == len(shard.lookup(LOOK_UP, ("RECURSIVE_001",)))
    holder.close()


# -- a query of the master beside references --------------------------------------------------------------------------


def results(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write_many({"used": f"RECURSIVE_00{n}"} for n in (1, 2, 2))
    store.merge()


JOINED = "SELECT name, count(*) AS n FROM agent_data JOIN patterns.pattern ON id = data ->> 'used' GROUP BY id"


def test_a_query_joins_the_master_with_a_reference(store: edgeshard.Store, library: Path) -> None:
    results(store)
    rows = store.query(JOINED, reference={"patterns": library})
    assert [("base case first", 1), ("tail call", 2)] == [(row.name, row.n) for row in rows]


def test_a_query_changes_no_reference(store: edgeshard.Store, library: Path) -> None:
    results(store)
    before = library.read_bytes()
    with pytest.raises(QueryError, match="would write"):
        store.query("DELETE FROM patterns.pattern", reference={"patterns": library})
    assert before == library.read_bytes()


def test_a_query_says_whether_the_reference_is_damaged_or_the_sql_is_wrong(
    store: edgeshard.Store, library: Path, tmp_path: Path
) -> None:
    results(store)
    bad = make(tmp_path / "bad.db", "CREATE TABLE big(x)", "INSERT INTO big VALUES (zeroblob(9000))")
    with open(bad, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    references = {"patterns": library, "bad": bad}
    for statement, kind, path in (
        ("SELECT * FROM bad.big", DamagedError, bad),
        ("SELECT * FROM nowhere", QueryError, store.master_path),
    ):
        with pytest.raises(kind) as caught:
            store.query(statement, reference=references)
        assert str(path) == caught.value.path
    with pytest.raises(ConfigurationError, match="no such file"):
        store.query("SELECT 1", reference={"patterns": tmp_path / "nowhere.db"})


@pytest.mark.parametrize("sql", [JOINED, "SELECT * FROM patterns.nowhere"])
def test_a_query_during_which_the_reference_is_replaced_is_refused(
    store: edgeshard.Store, library: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    results(store)
    select = statements.read_one

    def replace_and_select(*arguments: Any) -> Any:
        replaced(library)
        return select(*arguments)

    monkeypatch.setattr(queries, "read_one", replace_and_select)
    with pytest.raises(ReferenceChangedError) as caught:
        store.query(sql, reference={"patterns": library})
    assert str(library) == caught.value.path
