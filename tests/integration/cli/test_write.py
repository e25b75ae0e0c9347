"""``edgeshard write``: what is committed, what is reported of it, and what ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.errors import DiskFullError, EdgeshardError, ShardPoisonedError
from edgeshard.exchange import line_writer
from edgeshard.shard.shard import Shard
from tests.support.forms import others_slow
from tests.support.processes import command, sql
from tests.support.records import NOON, Reading
from tests.support.stores import shard_path
from tests.support.terminals import on_terminal
from tests.support.users import User, as_root, run_as


@attrs.frozen
class Done:
    """What a command that ran in this process returned and printed."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What it printed with ``--json``."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Run = Callable[..., Done]


@pytest.fixture
def write(store: edgeshard.Store, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs ``edgeshard write`` in this process, for the agent "door" of the store."""

    def run(*arguments: object) -> Done:
        try:
            code = cli.main(["write", str(store.root), "door", *map(str, arguments)])
        except SystemExit as end:  # argparse ends so after an error of usage
            code = int(str(end.code))
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """A function that makes a file with these lines."""

    def make(text: str | bytes) -> Path:
        path = tmp_path / "lines"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def numbered(count: int, first: int = 0) -> str:
    """So many lines of NDJSON, with the field n."""
    return "".join(f'{{"n": {n}}}\n' for n in range(first, first + count))


def rows(store: edgeshard.Store, table: str = "agent_data") -> list[Any]:
    """The rows that the shard of the agent holds."""
    with store.shard("door") as shard:
        return [json.loads(row.data) for row in shard.query(f"select data from {table} order by _id")]


def transactions(store: edgeshard.Store) -> list[tuple[int, int]]:
    """The first and last seqs of the transactions of several rows in the shard of the agent."""
    found = sql(shard_path(store, "door"), "select first_id, last_id from _edgeshard_transactions order by first_id")
    return [(first & 0xFFFFFFFF, last & 0xFFFFFFFF) for first, last in found]


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_is_committed_and_the_first_makes_the_store(store: edgeshard.Store, write: Run) -> None:
    done = write('{"open": true, "é": [1, 2.50, null, {"\\u00e9": "\\n"}]}')
    assert (0, "") == (done.code, done.err)
    made, committed = done.out.splitlines()
    assert made == f"made the store {store.root}"
    assert committed.startswith("1 row committed to the shard of agent 'door' in ")
    assert rows(store) == [{"open": True, "é": [1, 2.5, None, {"é": "\n"}]}]
    assert write('{\n "open": false\n}').out.count("\n") == 1
    assert rows(store)[1:] == [{"open": False}]


def test_the_rows_of_a_table(store: edgeshard.Store, write: Run, file: Callable[[str], Path]) -> None:
    assert 0 == write("--table", "event", '{"n": 1}').code  # in any order
    assert 0 == write('{"n": 1}', "--table", "event").code
    assert 0 == write("--ndjson", file('{"n": 2}\n{"n": 3}'), "--table", "event").code
    assert rows(store, "event") == [{"n": 1}, {"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize(
    ("batch", "expected"), [((), [(1, 1000), (1001, 1200)]), (("--batch", 500), [(1, 500), (501, 1000), (1001, 1200)])]
)
def test_lines_are_committed_in_batches(
    store: edgeshard.Store,
    write: Run,
    file: Callable[[str], Path],
    batch: tuple[object, ...],
    expected: list[tuple[int, int]],
) -> None:
    done = write("--ndjson", file(numbered(1200)), *batch)
    assert done.code == 0
    assert "1,200 rows committed to the shard of agent 'door' in " in done.out
    assert transactions(store) == expected
    assert rows(store) == [{"n": n} for n in range(1200)]


def test_with_a_batch_of_one_each_line_is_committed_by_itself(
    store: edgeshard.Store, write: Run, file: Callable[[str], Path]
) -> None:
    assert 0 == write("--ndjson", file(numbered(3)), "--batch", 1).code
    assert (transactions(store), len(rows(store))) == ([], 3)


def test_a_batch_ends_early_if_its_lines_are_large(
    store: edgeshard.Store, write: Run, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_writer, "BATCH_BYTES", 200_000)
    assert 0 == write("--ndjson", file((json.dumps({"text": "x" * 2_000}) + "\n") * 900)).code
    assert 5 < len(transactions(store)) < 20
    assert 900 == len(rows(store))


def test_fields_of_csv_are_numbers_texts_or_null(
    store: edgeshard.Store, write: Run, file: Callable[[str], Path]
) -> None:
    done = write("--csv", file('sensor,celsius,note\r\ninlet,71.5,"two\nlines"\r\n007,,1.10\r\n'))
    assert (0, True) == (done.code, "2 rows committed" in done.out)
    assert rows(store) == [
        {"sensor": "inlet", "celsius": 71.5, "note": "two\nlines"},
        {"sensor": "007", "celsius": None, "note": "1.10"},
    ]


def test_a_shard_at_power_is_opened_like_that(
    store: edgeshard.Store, write: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    write_many = Shard.write_many

    def noting(shard: Shard, *arguments: Any, **more: Any) -> int:
        opened.append(shard.durability)
        return write_many(shard, *arguments, **more)

    monkeypatch.setattr(Shard, "write_many", noting)
    assert (0, 0) == (write("{}", "--durability", "power").code, write("{}").code)
    assert opened == ["power", "process"]


def test_json_and_quiet(write: Run, file: Callable[[str], Path]) -> None:
    report = write("--ndjson", file(numbered(3)), "--json").report
    assert report.pop("seconds") >= 0
    assert report == {
        "agent": "door", "rows": 3, "bad": 0, "bad_lines": [], "last_line": 3, "ended": True, "unknown": 0,
        "complete": True,
    }  # fmt: skip
    assert Done(0, "", "") == write("{}", "-q")
    assert (0, 0) == (write("{}", "-q", "--json").code, write("--ndjson", file(""), "--json").report["rows"])


# -- bad lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text", "number", "said"),
    [
        ("--ndjson", b'{"n": 0}\n\n{"n": 1\n', 3, "it is not JSON: character 8"),
        ("--ndjson", b'{"n": 0}\n[1]\n', 2, "it is an array, and a row is an object"),
        ("--ndjson", b'{"n": 0}\n{"a": {"b": [NaN]}}\n', 2, "$.a.b[0]: JSON has no NaN; write null"),
        ("--ndjson", b'{"n": 0}\n{"a": 1e999}\n', 2, "$.a: 1e999: a float would round it"),
        ("--ndjson", b'{"n": 0}\n{"a": 1, "a": 1}\n', 2, "$.a: this key occurs twice"),
        ("--ndjson", b'{"n": 0}\n{"a": "\\ud800"}\n', 2, "$.a: it has half of a surrogate pair"),
        ("--ndjson", b'{"n": 0}\n{"a": "\xff"}\n', 2, "it is not UTF-8 (byte 8 is 0xff)"),
        ("--ndjson", b'{"n": 0}\n' + b'{"a":' * 101 + b"0" + b"}" * 101 + b"\n", 2, "more than 100 levels"),
        ("--csv", b"n,a\n0,x\n1\n", 3, "it has no field for the column 'a'"),
        ("--csv", b"n,a\n0,x\n1,2,3\n", 3, "its field '3' has no column"),
    ],
)
def test_the_first_bad_line_is_named_and_the_rows_before_it_are_committed(
    store: edgeshard.Store, write: Run, file: Callable[[bytes], Path], option: str, text: bytes, number: int, said: str
) -> None:
    path = file(text)
    done = write(option, path)
    assert done.code == 1
    assert "1 row committed to the shard of agent 'door' in " in done.out
    assert done.err.startswith(f"edgeshard write: read line {number} of {path}: ")
    assert (1, True) == (done.err.count("\n"), said in done.err)
    assert [0] == [row["n"] for row in rows(store)]


@pytest.mark.parametrize("bad", ["{", '{"a":' * 101 + "0" + "}" * 101], ids=["read", "stored"])
def test_what_is_reported_leads_to_the_line_to_go_on_from(
    store: edgeshard.Store, write: Run, file: Callable[[str], Path], bad: str
) -> None:
    lines = [*numbered(25).splitlines(), bad, *numbered(25, 25).splitlines()]
    report = write("--ndjson", file("\n".join(lines)), "--batch", 10, "--json").report
    assert (25, 25, 1, False) == (report["rows"], report["last_line"], report["bad"], report["ended"])
    assert [26] == [line["number"] for line in report["bad_lines"]]
    done = write("--ndjson", file("\n".join(lines[report["last_line"] + 1 :])), "-q")
    assert Done(0, "", "") == done
    assert [*range(50)] == [row["n"] for row in rows(store)]


def test_bad_lines_can_be_left_out_and_the_first_are_named(
    store: edgeshard.Store, write: Run, file: Callable[[str], Path]
) -> None:
    deep = '{"a":' * 101 + "0" + "}" * 101 + "\n"
    path = file(deep + '{"n": 0}\n{"n": NaN}\n' + "[]\n" * 12 + numbered(1, 1))
    done = write("--ndjson", path, "--skip-bad")
    assert done.code == 3
    assert "2 rows committed to the shard of agent 'door' in " in done.out
    assert "; left out 14 bad lines\n" in done.out
    named = done.err.splitlines()
    assert named[0] == f"edgeshard write: {path}, line 3: $.n: JSON has no NaN; write null"
    assert len(named) == 10
    assert [{"n": 0}, {"n": 1}] == rows(store)
    assert [(1, 2)] == transactions(store)

    done = write("--ndjson", path, "--skip-bad", "--json", "-q")
    assert (3, 2, 14, 16, True) == (
        done.code,
        *(done.report[name] for name in ("rows", "bad", "last_line", "ended")),
    )
    assert [1, *range(3, 12)] == [line["number"] for line in done.report["bad_lines"]]


def test_a_bad_row_in_an_argument_leaves_nothing_behind(store: edgeshard.Store, write: Run) -> None:
    for text, said in (("{", "it is not JSON"), (" ", "it is empty"), ('{"a": NaN}', "$.a: JSON has no NaN")):
        done = write(text)
        assert (1, True, True) == (done.code, done.err.startswith("edgeshard write: read JSON: "), said in done.err)
    assert not store.root.exists()


def test_a_header_that_does_not_name_the_columns_ends_the_write(write: Run, file: Callable[[str], Path]) -> None:
    for skip in ([], ["--skip-bad"]):
        path = file("a,b,a\n1,2,3\n")
        done = write("--csv", path, *skip)
        assert (1, True) == (done.code, "0 rows committed" in done.out)
        assert done.err.startswith(f"edgeshard write: read header of {path}: two columns are called 'a'")


# -- what else ends a write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["{}", "--csv", "x"],
        ["--ndjson", "x", "--csv", "x"],
        ["{}", "--skip-bad"],
        ["{}", "--batch", "0"],
        ["{}", "--batch", "x"],
        ["{}", "--durability", "none"],
        ["--ndjson", ""],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(store: edgeshard.Store, write: Run, arguments: list[str]) -> None:
    done = write(*arguments)
    assert (2, "") == (done.code, done.out)
    assert not store.root.exists()


def test_a_file_that_cannot_be_read(store: edgeshard.Store, write: Run, tmp_path: Path) -> None:
    done = write("--ndjson", tmp_path / "none")
    assert (78, True) == (done.code, f"read lines of {tmp_path / 'none'}: there is no such file" in done.err)
    assert not store.root.exists()
    done = write("--ndjson", tmp_path)
    assert (74, True) == (done.code, "it is a folder where a file is expected" in done.err)


def test_a_path_that_can_be_no_store_exits_78(
    tmp_path: Path, store: edgeshard.Store, write: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write("{}")
    (tmp_path / "file").touch()
    for root, said in ((tmp_path / "file", "it is a file"), (store.root / "shards", "the folder of the shards")):
        assert 78 == cli.main(["write", str(root), "door", "{}"])
        shown = capsys.readouterr()
        assert ("", True) == (shown.out, said in shown.err)


def test_a_shard_that_is_open_elsewhere_exits_75_and_names_the_process(store: edgeshard.Store) -> None:
    with store.shard("door"):
        done = command("write", store.root, "door", "{}")
    assert (75, True) == (done.returncode, "0 rows committed" in done.stdout)
    assert f"agent 'door' is open in process {os.getpid()} " in done.stderr
    assert "(--lock-wait SECONDS waits longer)" in done.stderr


def test_a_table_of_a_class_takes_no_dicts(store: edgeshard.Store, write: Run, file: Callable[[str], Path]) -> None:
    with store.shard("door") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
    for table in ("reading", "1", "x_with_agent"):
        done = write("--ndjson", file(numbered(3)), "--table", table)
        assert (1, True) == (done.code, "0 rows committed" in done.out), done.err
        assert f"table '{table}'" in done.err or f"table {table}" in done.err


def failing(monkeypatch: pytest.MonkeyPatch, batch: int, error: EdgeshardError) -> None:
    """Let the commit of a batch fail."""
    write_many, batches = Shard.write_many, iter(range(1, 100))

    def fail(shard: Shard, *arguments: Any, **more: Any) -> int:
        if next(batches) == batch:
            raise error
        return write_many(shard, *arguments, **more)

    monkeypatch.setattr(Shard, "write_many", fail)


def test_without_space_what_was_committed_before_is_reported(
    write: Run, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 3, DiskFullError("write to shard", "x", "there is no space"))
    done = write("--ndjson", file(numbered(50)), "--batch", 10)
    assert (74, "edgeshard write: shard x: there is no space\n") == (done.code, done.err)
    assert "20 rows committed" in done.out
    assert done.out.endswith("; ended after line 20\n")


def test_rows_whose_commit_failed_half_way_are_reported_as_unknown(
    write: Run, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 2, ShardPoisonedError("write to shard", "x", "a write failed; open it again"))
    done = write("--ndjson", file(numbered(50)), "--batch", 10)
    assert done.code == 1
    assert "10 rows committed" in done.out
    assert "ended after line 10; whether the next 10 rows are committed is unknown: all of them, or none" in done.out


@pytest.mark.slow
def test_within_a_disk_budget_what_is_committed_is_reported(tmp_path: Path, file: Callable[[str], Path]) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="3M")
    store.init()
    done = command("write", store.root, "door", "--ndjson", file(numbered(100_000)), "--json")
    assert (74, True) == (done.returncode, "raise the budget" in done.stderr)
    report = json.loads(done.stdout)
    assert (0, False) == (report["rows"] % 1000, report["ended"])
    assert [*range(report["rows"])] == [row["n"] for row in rows(store)]


# -- in a process of its own: pipes, signals and kills -----------------------------------------------------------------


def start(store: edgeshard.Store, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """``edgeshard write`` for the agent "door", with pipes."""
    started = [sys.executable, "-m", "edgeshard", "write", str(store.root), "door", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(started, **pipes)


def committed(store: edgeshard.Store) -> int:
    """How many rows are in the shard of the agent, which another process has open."""
    with_table = "select count(*) from sqlite_master where name = 'agent_data'"
    path = shard_path(store, "door")
    if not path.exists() or sql(path, with_table) == [[0]]:
        return 0
    return int(sql(path, "select count(*) from agent_data")[0][0])


def await_rows(store: edgeshard.Store, count: int) -> None:
    """Wait until so many rows are committed."""
    while committed(store) < count:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "batch", "said"),
    [
        (signal.SIGINT, 130, ["--batch", "1"], b"edgeshard write: interrupted; what is reported as committed stays\n"),
        (signal.SIGTERM, 3, [], b""),
    ],
    ids=["SIGINT", "SIGTERM"],
)
def test_lines_of_a_slow_pipe_are_committed_and_a_signal_ends_it_with_a_report(
    store: edgeshard.Store, number: int, code: int, batch: list[str], said: bytes
) -> None:
    with start(store, "--ndjson", "-", *batch) as process:
        assert process.stdin is not None
        for written in (3, 5):
            process.stdin.write(numbered(2 if written == 5 else 3).encode())
            process.stdin.flush()
            await_rows(store, written)  # the pipe stays open
        process.stdin.write(b'{"n": 7')  # a line that has not arrived as a whole
        process.stdin.flush()
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read().decode(), process.stderr.read()
        assert (code, said) == (process.wait(60), err)
    assert "5 rows committed to the shard of agent 'door' in " in out
    assert out.endswith("; ended after line 5\n")
    assert len(rows(store)) == 5


@pytest.mark.slow
def test_a_kill_leaves_whole_batches(store: edgeshard.Store, file: Callable[[str], Path]) -> None:
    lines = 2_000_000  # far more than it writes before it is killed
    with start(store, "--ndjson", file('{"n": 1}\n' * lines), "--batch", 700) as process:
        await_rows(store, 1)
        process.kill()
    assert 0 < committed(store) < lines
    assert committed(store) % 700 == 0


@pytest.mark.slow
def test_a_closed_output_loses_no_row_and_no_error(store: edgeshard.Store, file: Callable[[str], Path]) -> None:
    path = file(numbered(3) + "{\n")
    reading, writing = os.pipe()
    os.close(reading)
    with start(store, "--ndjson", path, stdout=writing) as process:
        os.close(writing)
        assert process.stderr is not None
        err = process.stderr.read().decode()
        assert 141 == process.wait(60)
    assert err.startswith(f"edgeshard write: read line 4 of {path}: it is not JSON")
    assert err.count("\n") == 1
    assert len(rows(store)) == 3


@pytest.mark.slow
def test_a_closed_input_is_named(store: edgeshard.Store) -> None:
    code = "import os, sys; os.close(0); os.execv(sys.executable, sys.argv[1:])"
    started = [sys.executable, "-m", "edgeshard", "write", str(store.root), "door", "--ndjson", "-"]
    done = subprocess.run([sys.executable, "-c", code, *started], capture_output=True, text=True, check=False)
    assert (78, True) == (done.returncode, "standard input: it is closed" in done.stderr), done.stderr


@pytest.mark.slow
def test_a_narrow_terminal_without_colours_and_with_ascii_only(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "60", "LANG": "C", "LC_ALL": "C", "NO_COLOR": "1"}
    done = command("write", "--help", env=environment)
    assert (0, "") == (done.returncode, done.stderr)
    done = command("write", tmp_path / "data", "tür", '{"größe": "ü"}', env=environment)
    assert (0, "") == (done.returncode, done.stderr)
    with edgeshard.Store(tmp_path / "data").shard("tür") as shard:
        assert [row.data for row in shard.query("select data from agent_data")] == ['{"größe":"ü"}']


@pytest.mark.parametrize(
    ("typed", "options", "code", "is_asked", "is_made"),
    others_slow(
        [("n\n", [], 1, True, False), ("y\n", [], 0, True, True), ("", ["--yes"], 0, False, True)],
        [("n\n", [], 1, True, False)],
    ),
)
def test_on_a_terminal_a_new_store_is_asked_for(
    store: edgeshard.Store, typed: str, options: list[str], code: int, is_asked: bool, is_made: bool
) -> None:
    found, shown = on_terminal("write", store.root, "door", "{}", *options, typed=typed, columns=1000)
    assert (code, is_asked) == (found, f"Make a store in {store.root}? [y/N]" in shown), shown
    assert is_made == store.exists()


@as_root
def test_another_user_may_not_write_and_is_told(store: edgeshard.Store, write: Run) -> None:
    write("{}")
    other = User(65_534, 65_534)
    assert 77 == run_as(other, lambda: cli.main(["write", str(store.root), "door", "{}"]))
    assert rows(store) == [{}]
