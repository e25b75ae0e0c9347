"""Numbers and texts that stand for numbers: each has limits, and beyond them the error is about the argument.

SQLite and Python fail with errors of many kinds for a number that is too large. Raised while a master is read, these
would say that the master is damaged.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.errors import ConfigurationError, DamagedError, EdgeshardError, TableError
from edgeshard.options import MAX_INTERVAL_S
from edgeshard.retention import quantities
from tests.support.forms import others_slow
from tests.support.processes import sql

#: Nobody listens there.
DSN = "postgresql://nobody@127.0.0.1:1/x?connect_timeout=1"

TEXTS = [
    *(
        "",
        " ",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "-0",
        "-1",
        "1_000",
        "٣",
        "٣d",
        "٣M",
        "²",
        "0x10",
        "1,5",
        "1.5",
        "-",
        "--",
    ),
    *("1-2-3", "3-٣", "9" * 400, "9" * 5_000, "9" * 5_000 + "d", "9" * 400 + "M", "9" * 5_000 + "T"),
    *("99999999999999999999", "9999999999999d", "99999999999999999999T", "99999-99-99", "99999-01-01T00:00:00Z"),
    *("9" * 5_000 + "-" + "9" * 5_000, "a\0b", "\ud800", "1\n2", "\x1b[31m"),
]

NUMBERS: list[Any] = [
    *(float("nan"), float("inf"), -float("inf"), -1, -0.0, 1.5, True, None, b"1", 2**63, 2**64, 10**18, 10**400),
    *(-(10**400), 10**5_000, -(10**5_000), 1e18, 1e308, 5e-324, decimal.Decimal("sNaN"), decimal.Decimal("1e999")),
    *(datetime.timedelta.max, datetime.timedelta.min, [], {}, object()),
]

Call = Callable[[edgeshard.Store, Any], object]

#: Each takes one value for one argument, and changes nothing, whatever that is.
ARGUMENTS: dict[str, Call] = {
    "Store(max_bytes)": lambda store, value: edgeshard.Store(store.root, max_bytes=value),
    "Store(on_full)": lambda store, value: edgeshard.Store(store.root, max_bytes="9G", on_full=value),
    "Store(wear)": lambda store, value: edgeshard.Store(store.root, wear=value),
    "Store(nan)": lambda store, value: edgeshard.Store(store.root, nan=value),
    "Store(encode)": lambda store, value: edgeshard.Store(store.root, encode=value),
    "Store(prune)": lambda store, value: edgeshard.Store(store.root, prune=value),
    "Store(older_than)": lambda store, value: edgeshard.Store(store.root, prune={"older_than": value}),
    "Store(keep_rows)": lambda store, value: edgeshard.Store(store.root, prune={"keep_rows": value}),
    "Store(rule max_bytes)": lambda store, value: edgeshard.Store(store.root, prune={"max_bytes": value}),
    "Store(forget_after)": lambda store, value: edgeshard.Store(store.root, prune={"forget_after": value}),
    "prune(older_than)": lambda store, value: store.prune(older_than=value, dry_run=True),
    "prune(keep_rows)": lambda store, value: store.prune(keep_rows=value, dry_run=True),
    "prune(max_bytes)": lambda store, value: store.prune(max_bytes=value, dry_run=True),
    "prune(deletions_older_than)": lambda store, value: store.prune(deletions_older_than=value, dry_run=True),
    "prune(forget_after)": lambda store, value: store.prune(forget_after=value, dry_run=True),
    "prune(lock_wait)": lambda store, value: store.prune(keep_rows=9, dry_run=True, lock_wait=value),
    "prune(table)": lambda store, value: store.prune(keep_rows=9, dry_run=True, table=value),
    "init(lock_wait)": lambda store, value: store.init(lock_wait=value),
    "merge(lock_wait)": lambda store, value: store.merge(dry_run=True, lock_wait=value),
    "accept_loss(lock_wait)": lambda store, value: store.accept_loss(why="x", dry_run=True, lock_wait=value),
    "accept_loss(seqs)": lambda store, value: store.accept_loss(why="x", dry_run=True, seqs=value),
    "accept_loss(last seq)": lambda store, value: store.accept_loss(why="x", dry_run=True, seqs=(1, value)),
    "accept_loss(stream)": lambda store, value: store.accept_loss(why="x", dry_run=True, stream=value),
    "accept_loss(agent)": lambda store, value: store.accept_loss(why="x", dry_run=True, agent=value),
    "accept_loss(why)": lambda store, value: store.accept_loss(why=value, dry_run=True),
    "erase(params)": lambda store, value: store.erase("agent_data", "_id > ? and 0", (value,), dry_run=True),
    "erase(lock_wait)": lambda store, value: store.erase("agent_data", "0", dry_run=True, lock_wait=value),
    "confirm_clock(lock_wait)": lambda store, value: store.confirm_clock(dry_run=True, lock_wait=value),
    "shard(wait)": lambda store, value: store.shard("new", wait=value).close(),
    "shard(transaction_wait)": lambda store, value: store.shard("new", transaction_wait=value).close(),
    "shard(durability)": lambda store, value: store.shard("new", durability=value).close(),
    "line_writer(batch)": lambda store, value: store.line_writer("new", batch=value),
    "watcher(interval)": lambda store, value: store.watcher(interval=value).close(),
    "watcher(rescan)": lambda store, value: store.watcher(rescan=value).close(),
    "watcher(observer)": lambda store, value: store.watcher(observer=value).close(),
    "push(batch)": lambda store, value: store.push(DSN, batch=value),
    "push_watcher(batch)": lambda store, value: store.push_watcher(DSN, batch=value),
    "push_watcher(interval)": lambda store, value: store.push_watcher(DSN, interval=value),
    "rejected(limit)": lambda store, value: store.rejected(limit=value),
    "query(params)": lambda store, value: store.query("select _id from agent_data where _id > ?", (value,)),
    "query(json)": lambda store, value: store.query("select 1", json=value),
    "query(reference)": lambda store, value: store.query("select 1", reference={"x": value}),
    "query_table(width)": lambda store, value: store.query_table("select 1", colour=False, width=value, unicode=True),
    "forget_peer(database)": lambda store, value: store.forget_peer(value, dry_run=True),
    "export(since_hub)": lambda store, value: store.export(store.root / "no" / "x", since_hub=value),
    "import_(agent)": lambda store, value: store.import_("none.csv", agent=value, dry_run=True),
    "table(priority)": lambda _, value: edgeshard.table(name="t", priority=value)(attrs.make_class("T", ["a"])),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_error_is_of_ours_short_and_about_the_argument(prepared: Path, name: str) -> None:
    store, call = edgeshard.Store(prepared / "data"), ARGUMENTS[name]
    before = store.status().states
    for value in (*TEXTS, *NUMBERS):
        try:
            call(store, value)
        except DamagedError as error:
            raise AssertionError(f"{name} of {_quoted(value)} is taken for damage: {error}") from error
        except EdgeshardError as error:
            assert error.action
            assert 0 < len(error.cause) < 1_000
        except Exception as error:
            raise AssertionError(f"{name} of {_quoted(value)} raised {error!r}") from error
    assert before == store.status().states


def _quoted(value: object) -> str:
    try:
        return repr(value)[:60]
    except ValueError:
        return "a number of more digits than Python prints"


# -- limits -----------------------------------------------------------------------------------------------------------

#: The largest value of each argument, one that is too large, and what the error names.
LIMITS: dict[str, tuple[Any, Any, str]] = {
    "prune(keep_rows)": (quantities.MAX_ROWS, quantities.MAX_ROWS + 1, "number of rows must be at most 9999999"),
    "Store(keep_rows)": (quantities.MAX_ROWS, 2**64, "number of rows must be at most 9999999"),
    "prune(max_bytes)": ("1000000T", "1000001T", "size must be at most 1000000T"),
    "Store(max_bytes)": (10**18, 10**18 + 1, "size must be at most 1000000T"),
    "Store(rule max_bytes)": ("1000000T", "9" * 400 + "M", "size must be at most 1000000T"),
    "prune(older_than)": ("365250d", "365251d", "age must be between 0 and 1000 years"),
    "prune(forget_after)": (365_250 * 86_400.0, 10**400, "age must be between 0 and 1000 years"),
    "prune(lock_wait)": (MAX_INTERVAL_S, MAX_INTERVAL_S + 1, "lock_wait must be a number of seconds up to 300000000"),
    "merge(lock_wait)": (-1, 10**400, "lock_wait must be a number of seconds up to 300000000"),
    "watcher(interval)": (MAX_INTERVAL_S, MAX_INTERVAL_S + 1, "interval must be a number of seconds above 0"),
    "watcher(rescan)": (MAX_INTERVAL_S, 10**5_000, "rescan must be a number of seconds above 0"),
    "shard(wait)": (1, 10**5_000, "wait must be a number of seconds from 0"),
    "shard(transaction_wait)": (1, 1e308, "transaction_wait must be a number of seconds from 0"),
    "line_writer(batch)": (10**18 - 1, 10**18, "batch must be a whole number from 1 to 9999999"),
    "rejected(limit)": (10**18 - 1, 2**63, "limit must be a whole number from 0 to 9999999"),
    "query_table(width)": (1 << 20, (1 << 20) + 1, "width must be a whole number from 1 to 1048576"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_largest_value_is_accepted_and_a_larger_one_refused_by_name(prepared: Path, name: str) -> None:
    store, call = edgeshard.Store(prepared / "data"), ARGUMENTS[name]
    largest, larger, text = LIMITS[name]
    call(store, largest)
    with pytest.raises(ConfigurationError) as caught:
        call(store, larger)
    assert text in caught.value.cause
    assert str(caught.value.path).startswith(str(store.root))


def test_the_largest_number_of_rows_is_counted_with(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write_many({"n": n} for n in range(9))
    store.merge()
    assert 0 == store.prune(keep_rows=quantities.MAX_ROWS).rows
    assert 0 == store.prune(max_bytes=quantities.MAX_MAX_BYTES).rows
    assert 0 == store.prune(older_than="365250d", forget_after="365250d").rows
    largest = edgeshard.Store(store.root, max_bytes=quantities.MAX_MAX_BYTES, on_full="drop-oldest")
    with largest.shard("agent") as shard:
        shard.write({"n": 9})
    assert (1, 10) == (largest.merge().rows, largest.status().states.present)


def test_a_time_in_the_master_that_is_too_large_is_still_damage(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    sql(store.master_path, f"update _edgeshard_arrivals set at = {2**62}")
    for call in (store.tables, store.status, store.activity):
        with pytest.raises(DamagedError, match="its own tables are not as edgeshard makes them") as caught:
            call()
        assert isinstance(caught.value.__cause__, OverflowError)


def test_a_priority_that_is_too_large_is_refused() -> None:
    with pytest.raises(TableError, match="priority must be a whole number from 0 to"):
        ARGUMENTS["table(priority)"](edgeshard.Store("unused"), 10**5_000)


# -- the command line -------------------------------------------------------------------------------------------------

#: Commands with % where a value goes. None of them changes anything.
COMMANDS = [
    "prune ROOT --dry-run --keep-rows=%",
    "prune ROOT --dry-run --older-than=%",
    "prune ROOT --dry-run --max-bytes=%",
    "prune ROOT --dry-run --deletions-older-than=%",
    "prune ROOT --dry-run --forget-after=%",
    "prune ROOT --dry-run --keep-rows=9 --lock-wait=%",
    "merge ROOT --dry-run --lock-wait=%",
    "merge ROOT --dry-run --max-bytes=%",
    "merge ROOT --dry-run --prune-keep-rows=%",
    "merge ROOT --dry-run --prune-max-bytes=%",
    "merge ROOT --dry-run --prune-older-than=%",
    "merge ROOT --dry-run --interval=%",
    "merge ROOT --dry-run --rescan=%",
    "write ROOT new {} --table=1 --batch=%",
    "write ROOT new {} --table=1 --lock-wait=%",
    "push ROOT postgresql://nobody@127.0.0.1:1/x --dry-run --batch=%",
    "push ROOT postgresql://nobody@127.0.0.1:1/x --dry-run --interval=%",
    "rejected ROOT --limit=%",
    "accept-loss ROOT --why=x --dry-run --seqs=%",
    "accept-loss ROOT --why=x --dry-run --stream=%",
    "clock ROOT --lock-wait=%",
    "query ROOT select+? --param=%",
    "query ROOT select+:a --param=a=%",
    "forget-peer ROOT % --dry-run",
    "status ROOT --html=ROOT/no/x.html --refresh=%",
]


@pytest.mark.parametrize("line", others_slow(COMMANDS, COMMANDS[:3]))
def test_a_command_tells_what_is_wrong_with_a_value(
    line: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(prepared / "data")
    for text in TEXTS:
        if "\0" in text:  # no argument of a process has that
            continue
        words = [word.replace("+", " ").replace("ROOT", root).replace("%", text) for word in line.split()]
        try:
            code: Any = cli.main(words)
        except SystemExit as error:
            code = error.code
        except Exception as error:
            raise AssertionError(f"{line} of {text[:60]!r} raised {error!r}") from error
        printed = capsys.readouterr()
        assert code in (0, 1, 2, 64, 65, 69, 75, 78), (text[:60], printed.err)
        assert "as edgeshard makes them" not in printed.err, text[:60]
        assert not code or printed.err.startswith("edgeshard"), (text[:60], printed.err)
        assert not code or len(printed.err) < 2_000, text[:60]


@pytest.mark.parametrize(
    "line", [line for line in COMMANDS if line.endswith(("rows=%", "batch=%", "limit=%", "wait=%"))]
)
@pytest.mark.parametrize("text", ["1_000", "٣", "²", "0x10", "1,5", "inf", "nan", "1e999", "9" * 5_000], ids=ascii)
def test_a_number_on_the_command_line_has_ascii_digits(
    line: str, text: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("ROOT", str(prepared / "data")).replace("%", text) for word in line.split()]
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert (2, True) == (caught.value.code, "must be a" in capsys.readouterr().err)


def test_a_size_beyond_all_disks_is_refused_by_a_command(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(prepared / "data")
    for option, text in (
        ("--keep-rows", "9" * 20),
        ("--max-bytes", "9" * 400 + "M"),
        ("--older-than", "9" * 400 + "d"),
    ):
        with pytest.raises(SystemExit) as caught:
            partial(cli.main, ["prune", root, "--dry-run", option, text])()
        printed = capsys.readouterr().err
        assert (2, True) == (caught.value.code, printed.startswith(f"edgeshard prune: argument {option}: ")), printed
