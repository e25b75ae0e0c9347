"""``edgeshard VERB`` as people and scripts run it: in processes of its own, on terminals and in pipes."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import units
from edgeshard.cli import main
from tests.support.forms import others_slow, short_and_full
from tests.support.processes import command, merge_command, paused, python, sql, unwrapped
from tests.support.project import PROJECT
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, shard_path
from tests.support.terminals import on_terminal, read_all

READERS = [
    ["verify"], ["tables"], ["query", "select 1"], ["shell", "select 1"], ["snapshot", "copy.db"], ["export", "copy.db"], ["ranges"],
    ["clock"],
]  # fmt: skip
VERBS = [
    "init", "write", "import", "merge", "status", "tables", "verify", "query", "shell", "snapshot", "restore", "export", "ranges",
    "receipt", "salvage",
    "clock",
]  # fmt: skip
ENDLESS = "with recursive r(n) as (select 1 union all select n + 1 from r) select n from r "


def on(root: object, verb: list[str]) -> list[object]:
    """The arguments of a verb, with the store's folder in its place."""
    return [verb[0], root, *verb[1:]]


def started(*arguments: object) -> list[str]:
    """The command line of ``edgeshard``."""
    return [sys.executable, "-m", "edgeshard", *map(str, arguments)]


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """``edgeshard``, under way, with pipes."""
    return subprocess.Popen(started(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def merged(store: edgeshard.Store) -> edgeshard.Store:
    """A store whose master has three dicts and a record."""
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(3)])
        shard.write(Reading("inlet", 71.5, NOON))
    store.merge(keep_empty=True)
    return store


# -- all verbs --------------------------------------------------------------------------------------------------------


def test_the_script_is_the_main_of_the_commands() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["edgeshard"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_help_lists_the_verbs_and_exit_codes() -> None:
    done = command("--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_shows_examples_and_exit_codes(verb: str) -> None:
    done = command(verb, "--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert f"  edgeshard {verb} data" in done.stdout
    assert "exit codes:" in done.stdout


def test_the_version_is_printed() -> None:
    for option in ("-V", "--version"):
        done = command(option)
        assert (0, f"edgeshard {edgeshard.__version__}\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("verbs", short_and_full(["merge", "query"], VERBS))
def test_wrong_usage_exits_2(merged: edgeshard.Store, verbs: list[str]) -> None:
    assert 2 == command("mrege", merged.root).returncode
    assert 2 == command("query", merged.root).returncode
    assert 2 == command("query", merged.root, "select 1", "--csv", "--json").returncode
    assert 2 == command("snapshot", merged.root).returncode
    for verb in verbs:
        assert 2 == command(verb, merged.root, "--nonsense").returncode
        assert 2 == command(verb, "").returncode


@pytest.mark.parametrize("verb", [["merge"], ["status"], *READERS])
def test_a_folder_that_is_not_there_exits_78_and_is_not_made(tmp_path: Path, verb: list[str]) -> None:
    done = command(*on(tmp_path / "typo", verb), cwd=tmp_path)
    assert (78, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith(f"edgeshard {verb[0]}: ")
    assert "no such folder" in done.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", READERS)
def test_a_store_without_a_master_exits_78_and_none_is_made(tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "data" / "shards").mkdir(parents=True)
    done = command(*on(tmp_path / "data", verb), cwd=tmp_path)
    assert (78, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "no agent has written to this store" in done.stderr
    assert "merge" not in done.stderr.replace(str(tmp_path), ""), "it would bring nothing"
    assert ["shards"] == os.listdir(tmp_path / "data")
    assert [] == [*tmp_path.glob("copy*")]


@pytest.mark.parametrize("verb", others_slow([["merge"], ["status"], *READERS], [["merge"], ["query", "select 1"]]))
def test_who_may_not_read_the_store_gets_77(merged: edgeshard.Store, verb: list[str]) -> None:
    powerless: list[str] = []
    if os.geteuid() == 0:  # may read what nobody may, unless these rights are given up
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv")
    merged.root.chmod(0)
    try:
        arguments = [*powerless, *started(*on(merged.root, verb))]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    finally:
        merged.root.chmod(0o700)
    assert (77, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done.stderr
    assert "permission denied" in done.stderr


@pytest.mark.parametrize("verb", [["status"], *READERS[1:]])
def test_a_master_that_is_no_database_exits_65(merged: edgeshard.Store, tmp_path: Path, verb: list[str]) -> None:
    merged.master_path.write_bytes(b"garbage\0" * 1000)
    done = command(*on(merged.root, verb), cwd=tmp_path)
    assert (65, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "not a SQLite database" in done.stderr


@pytest.mark.slow
def test_who_closes_the_pipe_ends_the_command_quietly(merged: edgeshard.Store) -> None:
    for verb in (["query", ENDLESS, "--csv"], ["query", ENDLESS, "--json"], ["shell", ENDLESS]):
        process = start(*on(merged.root, verb))
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (141, "") == (process.wait(60), process.stderr.read()), verb
        process.stderr.close()


@pytest.mark.slow
def test_the_pipe_of_the_last_lines_may_be_closed_too(merged: edgeshard.Store) -> None:
    for verb in (["merge"], ["status"], ["verify"], ["query", "select 1"], ["shell", "select 1"]):
        process = start(*on(merged.root, verb))
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (141, "") == (process.wait(60), process.stderr.read()), verb
        process.stderr.close()


@pytest.mark.slow
def test_a_full_disk_behind_the_output_exits_74(merged: edgeshard.Store) -> None:
    with open("/dev/full", "w") as full:
        for verb in (["verify"], ["status"], ["query", "select 1"], ["query", ENDLESS, "--csv"]):
            done = command(*on(merged.root, verb), capture_output=False, stdout=full, stderr=subprocess.PIPE)
            assert (74, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
            assert "No space left" in done.stderr


@pytest.mark.slow
def test_a_closed_output_is_no_failure(merged: edgeshard.Store) -> None:
    for closed in (1, 2):
        code = f"import os, sys; os.close({closed}); os.execv(sys.executable, sys.argv[1:])"
        done = python(code, *started("query", merged.root, "select 1"))
        assert (0, "") == (done.returncode, done.stderr)


def test_an_output_that_takes_only_ascii_gets_ascii(merged: edgeshard.Store) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("query", merged.root, "select char(252) as letter", env=environment)
    assert (0, "") == (done.returncode, done.stderr)
    assert ["+--------+", "| letter |", "| \\xfc      |", "+--------+"] == done.stdout.split("\n")[:-1]


def test_an_interrupt_ends_a_long_statement_with_130(merged: edgeshard.Store) -> None:
    # a timer of the process's own CPU time, which only the endless statement uses up
    code = (
        "import signal, sys\n"
        "from edgeshard.cli import main\n"
        "signal.signal(signal.SIGVTALRM, signal.default_int_handler)\n"
        "signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)\n"
        "sys.exit(main(['query', sys.argv[1], sys.argv[2]]))\n"
    )
    done = python(code, merged.root, f"select count(*) from ({ENDLESS})")
    assert (130, "edgeshard query: interrupted\n") == (done.returncode, done.stderr)


# -- merge ------------------------------------------------------------------------------------------------------------


def test_merge_is_the_same_under_both_names(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    done = command("merge", store.root)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("merged 1 row from 1 shard, truncated 1, in ")
    ours, theirs = command("merge", tmp_path / "typo"), merge_command(tmp_path / "typo")
    assert ours.stderr.removeprefix("edgeshard merge: ") == theirs.stderr.removeprefix("edgeshard.merge: ")
    assert "usage: python -m edgeshard.merge [-h]" in merge_command("--help").stdout
    assert "usage: edgeshard merge [-h]" in command("merge", "--help").stdout


# -- verify -----------------------------------------------------------------------------------------------------------


def test_verify_of_a_whole_master_exits_0(merged: edgeshard.Store) -> None:
    done = command("verify", merged.root)
    shards = f"This is the master. For the shards, run `edgeshard status {merged.root}`\n"
    assert (0, f"4 rows of 1 stream: all well\n{shards}", "") == (done.returncode, done.stdout, done.stderr)
    report = json.loads(command("verify", merged.root, "--json").stdout)
    database = sql(merged.master_path, "select lower(hex(database_id)) from _edgeshard_database")[0][0]
    found = {"rows": 4, "streams": 1, "errors": [], "gaps": [], "losses": [], "database": database, "pruned": {}}
    gone = ("superseded", "collected", "pruned", "erased", "by_hand", "written_off", "pending", "missing")
    states = dict.fromkeys(gone, 0) | {"present": 4, "total": 4}
    found |= {"by_hand": [], "accepted": [], "unnamed": "", "findings": []}
    assert {**found, "states": states, "ok": True} == report
    assert 0 == command("verify", merged.root, "--deep").returncode


def test_verify_names_the_missing_rows_and_exits_3(merged: edgeshard.Store, tmp_path: Path) -> None:
    hub = new_store(tmp_path / "hub")
    hub.merge([shard_path(merged, "agent")])
    done = command("verify", hub.root)
    assert (3, "") == (done.returncode, done.stderr)
    first, *table = done.stdout.splitlines()
    assert "0 rows of 1 stream: 0 errors, 4 rows missing in 1 gap" == first
    columns, row = ([cell.strip() for cell in line.strip("│").split("│")] for line in table if line.startswith("│"))
    assert ["agent", "stream", "first missing", "last missing", "rows", "where they are"] == columns
    ids = [sql(path, f"select lower(hex({name})) from {of}")[0][0] for path, name, of in (
        (hub.master_path, "stream_id", "_edgeshard_streams"), (merged.master_path, "database_id", "_edgeshard_database")
    )]  # fmt: skip
    assert ["agent", ids[0], "1", "4", "4", f"master {ids[1]}"] == row
    assert f"the id {ids[1]}" in unwrapped(done.stdout)
    assert f" edgeshard merge {hub.root} --from DATABASE" in unwrapped(done.stdout)
    done = command("verify", hub.root, "--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert ("another master", [f"edgeshard merge {hub.root} --from DATABASE"]) == (finding["kind"], finding["next"])
    assert (3, [1, 4]) == (done.returncode, [json.loads(done.stdout)["gaps"][0][key] for key in ("first", "last")])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("update agent_data set _seq = 9 where _seq = 2", "1 row not where the address says"),
        ("drop table _edgeshard_blocks", "_edgeshard_blocks"),
        ("update _edgeshard_columns set table_name = cast(x'ff' as text)", "utf-8"),
    ],
)
def test_verify_of_a_master_that_contradicts_itself_exits_65(merged: edgeshard.Store, damage: str, said: str) -> None:
    sql(merged.master_path, damage)
    done = command("verify", merged.root)
    assert (65, "") == (done.returncode, done.stderr)
    assert said in done.stdout
    assert json.loads(command("verify", merged.root, "--json").stdout)["errors"]


def test_verify_of_a_file_that_is_no_database_exits_65(merged: edgeshard.Store) -> None:
    merged.master_path.write_bytes(b"garbage\0" * 1000)
    done = command("verify", merged.root)
    assert (65, "") == (done.returncode, done.stderr)
    assert "not a SQLite database" in done.stdout
    report = json.loads(command("verify", merged.root, "--json").stdout)
    assert (False, 1) == (report["ok"], len(report["errors"]))


# -- query ------------------------------------------------------------------------------------------------------------


def objects(store: edgeshard.Store, text: str, *options: object) -> Any:
    """The rows of a query as its JSON has them."""
    done = command("query", store.root, text, "--json", *options)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_query_draws_a_table(merged: edgeshard.Store) -> None:
    done = command("query", merged.root, "select agent_id, data, null as empty from agent_data limit 1")
    assert (0, "") == (done.returncode, done.stderr)
    assert ["│ agent_id │  data   │ empty  │", "│ agent    │ {\"n\":0} │ (null) │"] == done.stdout.splitlines()[1:3]  # fmt: skip


def test_a_table_in_a_pipe_has_neither_colours_nor_wrapped_lines(merged: edgeshard.Store) -> None:
    done = command("query", merged.root, f"select '{'word ' * 100}' as words")
    assert "word " * 100 in done.stdout
    assert "\x1b" not in done.stdout


def test_control_characters_in_the_data_do_not_reach_the_terminal(merged: edgeshard.Store) -> None:
    _, shown = on_terminal("query", merged.root, "select char(27) || '[2J' as evil", NO_COLOR="1")
    assert "\x1b" not in shown
    assert "\\u001b[2J" in shown


@pytest.mark.slow
def test_on_a_terminal_a_table_is_coloured_and_as_wide_as_it(merged: edgeshard.Store) -> None:
    words = f"select '{'word ' * 100}' as words"
    code, shown = on_terminal("query", merged.root, words, columns=40, NO_COLOR="1")
    assert (0, 40) == (code, max(map(len, shown.splitlines())))
    assert "\x1b" not in shown
    assert "\x1b[" in on_terminal("query", merged.root, words)[1]
    assert "\x1b[" in on_terminal("query", merged.root, words, NO_COLOR="")[1]  # https://no-color.org: not empty
    assert "\x1b[" not in on_terminal("query", merged.root, words, TERM="dumb")[1]


def test_json_is_an_array_of_objects_also_without_rows(merged: edgeshard.Store) -> None:
    rows = objects(merged, "select data ->> 'n' as n, x'00ff' as b, null as empty, 9e999 as big from agent_data")
    assert [{"n": n, "b": "00ff", "empty": None, "big": "Infinity"} for n in range(3)] == rows
    assert [] == objects(merged, "select * from agent_data where 0")


def test_with_json_cols_columns_of_json_are_values(merged: edgeshard.Store, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select data, 1 as one, data ->> 'n' as n, '[1]' as text from agent_data limit 1"
    assert [{"data": {"n": 0}, "one": 1, "n": 0, "text": "[1]"}] == objects(merged, sql, "--json-cols")
    assert [{"data": '{"n":0}', "one": 1, "n": 0, "text": "[1]"}] == objects(merged, sql)
    sql_of_merged = apsw.Connection(str(merged.master_path))
    sql_of_merged.execute("update agent_data set data = '[9e999, {\"a\": -9e999}]' where data ->> 'n' = 0")
    sql_of_merged.execute("update agent_data set data = '{broken' where data ->> 'n' = 1")
    sql_of_merged.close()
    first = "select data from agent_data where _seq = 1"
    assert [{"data": ["Infinity", {"a": "-Infinity"}]}] == objects(merged, first, "--json-cols"), "JSON has no infinity"
    assert 1 == main(["query", str(merged.root), "select data from agent_data where _seq = 2", "--json", "--json-cols"])
    assert "data of row 1 of the result = '{broken': it is not JSON" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["query", str(merged.root), sql, "--json-cols"])
    assert "--json-cols: requires --json" in capsys.readouterr().err


def test_json_refuses_two_columns_of_one_name(merged: edgeshard.Store) -> None:
    done = command("query", merged.root, "select 1 as a, 2 as a", "--json")
    assert (1, "", True) == (done.returncode, done.stdout, "name them with AS" in done.stderr)


def test_csv_has_the_names_first_also_without_rows(merged: edgeshard.Store) -> None:
    done = command("query", merged.root, "--csv", "select 'a,\"b\"' || char(10) as t, x'00ff' as b, null as n")
    assert (0, "") == (done.returncode, done.stderr)
    assert [["t", "b", "n"], ['a,"b"\n', "00ff", ""]] == list(csv.reader(io.StringIO(done.stdout, newline="")))
    done = command("query", merged.root, "--csv", "select sensor, celsius from reading where 0")
    assert "sensor,celsius\n" == done.stdout  # text=True reads \r\n so


def test_parameters_go_to_places_or_names(merged: edgeshard.Store) -> None:
    assert [{"a": 1, "b": "x=y"}] == objects(merged, "select ? as a, ? as b", "-p", "1", "--param", "x=y")
    assert [{"a": 1, "b": "x=y"}] == objects(merged, "select :a as a, $b as b", "-p", "b=x=y", "-p", "a=1")
    assert [{"a": "v", "b": "v"}] == objects(merged, "select ?1 as a, ?1 as b", "-p", "v")
    found = objects(merged, "select data ->> 'n' as n from agent_data where n = :n", "-p", "n=2")
    assert [{"n": 2}] == found


def test_a_parameter_is_a_number_only_where_it_is_written_as_one(merged: edgeshard.Store) -> None:
    texts = ["7", "-7", "0.5", "007", "1e3", "+7", " 7", "nan", "inf", "", "1_000", "٣"]
    places = ", ".join(f"? as c{n}" for n in range(len(texts)))
    (row,) = objects(merged, f"select {places}", *(f"-p={text}" for text in texts))
    assert [7, -7, 0.5, "007", "1e3", "+7", " 7", "nan", "inf", "", "1_000", "٣"] == list(row.values())


@pytest.mark.parametrize(
    ("text", "params", "said"),
    [
        ("selec", [], 'near "selec"'),
        ("select * from raeding", [], "The master has the tables agent_data, reading"),
        ("insert into reading(sensor) values ('x')", [], "A query only reads"),
        ("drop table reading", [], "A query only reads"),
        ("update reading set celsius = 0", [], "A query only reads"),
        ("begin", [], "returns no rows; give exactly one"),
        ("vacuum into 'new.db'", [], "A query only reads"),
        ("select 1; select 2", [], "one SQL statement"),
        ("select 1; selec", [], "one SQL statement"),
        ("-- nothing", [], "one SQL statement"),
        (" ", [], "one SQL statement"),
        ("select ?", [], "1 parameter, but got 0"),
        ("select 1", ["1"], "0 parameters, but got 1"),
        ("select :a, :b", ["a=1"], "the statement needs -p a=VALUE, -p b=VALUE; given were: a"),
        ("select :a", ["a=1", "b=2"], "given were: a, b"),
        ("select :a, ?", ["a=1"], "2 parameters, but got 1"),
        ("select cast(x'ff' as text)", [], "not valid UTF-8"),
    ],
)
@pytest.mark.parametrize("style", others_slow(["--table", "--json", "--csv"], ["--table"]))
def test_sql_that_cannot_be_run_exits_1_and_says_why(
    merged: edgeshard.Store, tmp_path: Path, text: str, params: list[str], said: str, style: str
) -> None:
    given = [f"-p={param}" for param in params] + ([] if style == "--table" else [style])
    done = command("query", merged.root, *given, "--", text, cwd=tmp_path)
    assert (1, 1) == (done.returncode, done.stderr.count("\n")), done
    assert done.stderr.startswith(f"edgeshard query: {merged.master_path}: ")
    assert said in done.stderr
    assert not (tmp_path / "new.db").exists()
    assert 4 == merged.verify().rows


def test_a_query_attaches_no_database_that_is_not_there(merged: edgeshard.Store, tmp_path: Path) -> None:
    done = command("query", merged.root, "attach 'new.db' as new", cwd=tmp_path)
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert not (tmp_path / "new.db").exists()


def test_a_comment_or_semicolon_behind_the_statement_is_none_of_its_own(merged: edgeshard.Store) -> None:
    assert [{"a": 1}] == objects(merged, "select 1 as a; ; -- the end")


def test_fresh_merges_first_and_makes_the_master(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert [{"rows": 1}] == objects(store, "select count(*) as rows from agent_data", "--fresh")
        shard.write({"n": 2})
        assert [{"rows": 1}] == objects(store, "select count(*) as rows from agent_data")
        assert [{"rows": 2}] == objects(store, "select count(*) as rows from agent_data", "--fresh")


# -- shell ------------------------------------------------------------------------------------------------------------


def test_the_shell_takes_sql_from_a_pipe(merged: edgeshard.Store) -> None:
    done = command("shell", merged.root, input="select count(*) from agent_data;\nselect sensor\nfrom reading;\n")
    assert (0, "3\ninlet\n", "") == (done.returncode, done.stdout, done.stderr)


def test_the_end_of_a_pipe_ends_the_last_statement(merged: edgeshard.Store) -> None:
    done = command("shell", merged.root, input="select 1")
    assert (0, "1\n", "") == (done.returncode, done.stdout, done.stderr)
    done = command("shell", merged.root, input="select 1;\nselect\n2 -- two\n")
    assert (0, "1\n2\n", "") == (done.returncode, done.stdout, done.stderr)
    done = command("shell", merged.root, input="select 1 from")
    assert (1, "", True) == (done.returncode, done.stdout, "syntax error" in done.stderr)


def test_a_piped_statement_that_fails_is_named_and_exits_1_after_the_others(merged: edgeshard.Store) -> None:
    done = command("shell", merged.root, input="selec;\nselect 7;\n.nonsense\ndelete from reading;\n")
    assert (1, "7\n") == (done.returncode, done.stdout)
    assert 'near "selec"' in done.stderr
    assert 'Unknown command "nonsense"' in done.stderr
    assert "readonly" in done.stderr
    assert 4 == merged.verify().rows


def test_the_shell_takes_statements_as_arguments_and_stops_at_the_first_that_fails(merged: edgeshard.Store) -> None:
    done = command("shell", merged.root, "select 1", "selec", "select 2")
    assert (1, "1\n", 1) == (done.returncode, done.stdout, done.stderr.count('near "selec"'))
    done = command("shell", merged.root, ".tables")
    assert ["agent_data|", "reading|"] == [line[: line.index("|") + 1] for line in done.stdout.splitlines()]
    assert ".tables ?PATTERN?" in command("shell", merged.root, ".help tables").stderr
    done = command("shell", merged.root, ".tables _edgeshard_s%")
    assert ["_edgeshard_shards", "_edgeshard_streams", "_edgeshard_superseded"] == done.stdout.split()
    done = command("shell", merged.root, ".mode json", "select 1 as a, x'00' as b")
    assert (0, "") == (done.returncode, done.stderr)


def test_dot_exit_ends_the_shell_with_its_code(merged: edgeshard.Store) -> None:
    done = command("shell", merged.root, input=".exit 7\nselect 1;\n")
    assert (7, "", "") == (done.returncode, done.stdout, done.stderr)


def test_dot_shards_lists_the_shards_and_touches_none(merged: edgeshard.Store) -> None:
    with merged.shard("Käthe") as shard:
        shard.write({"n": 1})
    merged.merge(keep_empty=True)
    (merged.root / "shards" / "bad.db").write_bytes(b"garbage" * 1000)
    (merged.root / "shards" / "none.db").write_bytes(b"")
    before = {path.name: path.stat().st_mtime_ns for path in (merged.root / "shards").iterdir()}
    with merged.shard("late") as shard:
        shard.write({"n": 2})
        done = command("shell", merged.root, ".mode json", ".shards")
        assert (0, "") == (done.returncode, done.stderr)
        shard.write({"n": 3})
    rows = {row["agent"] or row["name"]: row for row in json.loads(done.stdout)}
    assert {"agent", "Käthe", "bad.db", "none.db", "late.db"} == set(rows)
    assert shard_path(merged, "agent").stat().st_size == rows["agent"]["bytes"]
    assert rows["late.db"]["bytes"] > 0
    assert (None, "it is empty (zero length)") == (rows["agent"]["reason"], rows["none.db"]["reason"])
    after = {path.name: path.stat().st_mtime_ns for path in (merged.root / "shards").iterdir()}
    assert before == {name: time for name, time in after.items() if not name.startswith("late")}
    assert 1 == command("shell", merged.root, ".shards x").returncode


def test_on_a_terminal_the_shell_is_interactive_and_goes_on_after_errors(
    merged: edgeshard.Store, tmp_path: Path
) -> None:
    typed = "selec;\nselect 6 * 7 as answer;\n.shards\n.help shards\n.exit\n"
    code, shown = on_terminal("shell", merged.root, typed=typed, HOME=str(tmp_path), columns=120)
    assert 0 == code
    for text in ("read-only", "edgeshard> ", 'near "selec"', "42", "agent.db", "Lists the store's shards", "\x1b["):
        assert text in shown
    assert "6 * 7" in (tmp_path / ".sqlite_history").read_text()
    code, shown = on_terminal("shell", merged.root, typed="select 1;\n.exit\n", HOME=str(tmp_path / "no"), NO_COLOR="1")
    assert (0, True) == (code, "the history of this session is not kept" in shown)
    assert "\x1b[3" not in shown


# -- snapshot ---------------------------------------------------------------------------------------------------------


def as_store(copy: Path) -> edgeshard.Store:
    """A store whose master the copy is, from now on."""
    folder = copy.parent / "put-back"
    folder.mkdir()
    copy.rename(folder / "master.db")
    return edgeshard.Store(folder)


def grow(store: edgeshard.Store) -> None:
    """Make the master larger than a snapshot copies at a time."""
    with store.shard("large") as shard:
        shard.write_many({"n": n, "much": "x" * 3_000} for n in range(2_000))
    store.merge()


def test_a_snapshot_is_one_file_that_is_whole(merged: edgeshard.Store, tmp_path: Path) -> None:
    done = command("snapshot", merged.root, "copy.db", cwd=tmp_path)
    copy = tmp_path / "copy.db"
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"copied {units.size(copy.stat().st_size)} to copy.db in ")
    assert 0o600 == copy.stat().st_mode & 0o777
    assert [["delete"]] == sql(copy, "pragma journal_mode")
    assert ["copy.db", "data"] == sorted(path.name for path in tmp_path.iterdir())
    (rows,) = sql(merged.master_path, "select count(*), max(_seq) from agent_data")
    assert [rows] == sql(copy, "select count(*), max(_seq) from agent_data")
    assert merged.verify() == as_store(copy).verify()


def test_a_snapshot_holds_what_is_only_in_the_log(merged: edgeshard.Store, tmp_path: Path) -> None:
    held = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('begin'); c.execute('select 1 from reading').fetchall(); print(flush=True); sys.stdin.read()"
    reader = subprocess.Popen(
        [sys.executable, "-c", held, merged.master_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    with merged.shard("agent") as shard:
        shard.write({"n": 3})
    merged.merge()
    assert Path(f"{merged.master_path}-wal").stat().st_size > 0
    merged.snapshot(tmp_path / "copy.db")
    reader.communicate()
    assert 5 == as_store(tmp_path / "copy.db").verify().rows


def test_a_snapshot_that_is_put_back_is_merged_into_again(merged: edgeshard.Store, tmp_path: Path) -> None:
    merged.snapshot(tmp_path / "copy.db")
    again = as_store(tmp_path / "copy.db")
    with again.shard("other") as shard:
        shard.write({"n": 9})
        assert 1 == again.merge().rows
    assert [["wal"]] == sql(again.master_path, "pragma journal_mode")
    assert (True, 5) == (again.verify().ok, again.verify().rows)


def test_a_snapshot_is_merged_from_a_read_only_medium(
    merged: edgeshard.Store, tmp_path: Path, small_disk: Path
) -> None:
    merged.snapshot(small_disk / "master.db")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    hub = new_store(tmp_path / "hub")
    done = command("merge", hub.root, "--from", small_disk / "master.db")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("merged 4 rows from 1 shard")
    assert 0 == command("verify", small_disk).returncode
    done = command("snapshot", merged.root, small_disk / "other.db")
    assert (77, True) == (done.returncode, "read-only medium" in done.stderr)


def test_an_existing_file_is_replaced_only_with_force(merged: edgeshard.Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    done = command("snapshot", merged.root, copy)
    assert (78, "", True) == (done.returncode, done.stdout, "--force" in done.stderr)
    assert "precious" == copy.read_text()
    done = command("snapshot", merged.root, copy, "--force", "-q")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert 4 == as_store(copy).verify().rows


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_target_that_cannot_be_is_refused_and_nothing_is_made(
    merged: edgeshard.Store, tmp_path: Path, force: list[str]
) -> None:
    (tmp_path / "link.db").symlink_to(merged.master_path)
    (tmp_path / "used.db-wal").write_text("of a live database")

    def files() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*") if not path.name.startswith("master.db-"))

    before = files()
    for target in (merged.master_path, tmp_path / "link.db", tmp_path, tmp_path / "no" / "copy.db", "used.db"):
        done = command("snapshot", merged.root, target, *force, cwd=tmp_path)
        assert (78, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done
    assert before == files()
    assert 4 == merged.verify().rows


def test_a_full_disk_exits_74_and_leaves_nothing(merged: edgeshard.Store, small_disk: Path) -> None:
    grow(merged)
    done = command("snapshot", merged.root, small_disk / "copy.db")
    assert (74, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert [] == list(small_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert 0 == command("snapshot", merged.root, small_disk / "copy.db").returncode


@pytest.fixture(params=["middle", "end"])
def stopped(
    merged: edgeshard.Store, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[bytes]]:
    """A snapshot to copy.db that is paused in the middle, or with all pages copied."""
    grow(merged)
    with paused(merged.root, "snapshot", tmp_path / "copy.db", request.param) as process:
        yield process


@pytest.mark.parametrize("old", others_slow([False, True], always=(True,)))
def test_a_kill_leaves_no_half_target_and_the_next_snapshot_removes_what_it_left(
    merged: edgeshard.Store, tmp_path: Path, stopped: subprocess.Popen[bytes], old: bool
) -> None:
    if old:
        (tmp_path / "copy.db").write_text("the old one")
    stopped.kill()
    stopped.wait()
    assert old == (tmp_path / "copy.db").exists()
    assert not old or "the old one" == (tmp_path / "copy.db").read_text()
    assert 1 == len(list(tmp_path.glob("copy.db.edgeshard-*.new")))
    assert 0 == command("snapshot", merged.root, tmp_path / "copy.db", "--force").returncode
    assert ["copy.db", "data"] == sorted(path.name for path in tmp_path.iterdir())
    assert merged.verify() == as_store(tmp_path / "copy.db").verify()


def test_an_interrupt_leaves_nothing(tmp_path: Path, stopped: subprocess.Popen[bytes]) -> None:
    stopped.send_signal(signal.SIGINT)
    stopped.communicate()
    assert ["data"] == sorted(path.name for path in tmp_path.iterdir())


def test_two_snapshots_to_one_target_do_not_meet(
    merged: edgeshard.Store, tmp_path: Path, stopped: subprocess.Popen[bytes]
) -> None:
    done = command("snapshot", merged.root, tmp_path / "copy.db")
    assert (75, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    _, errors = stopped.communicate(b"\n" * 100)
    assert (0, b"") == (stopped.returncode, errors)
    assert 0 == command("snapshot", merged.root, tmp_path / "other.db").returncode
    assert merged.verify() == as_store(tmp_path / "copy.db").verify()


def test_a_target_that_appears_meanwhile_is_not_replaced(merged: edgeshard.Store, tmp_path: Path) -> None:
    def appear(_done: int, _to_do: int) -> None:
        (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(edgeshard.EdgeshardError, match="exists already"):
        merged.snapshot(tmp_path / "copy.db", progress=appear)
    assert "precious" == (tmp_path / "copy.db").read_text()
    assert ["copy.db", "data"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_snapshot_ends_though_each_of_its_steps_meets_a_commit(merged: edgeshard.Store, tmp_path: Path) -> None:
    grow(merged)
    rows = merged.verify().rows
    calls: list[tuple[int, int]] = []
    with merged.shard("busy") as shard:

        def merge_one(done: int, to_do: int) -> None:
            calls.append((done, to_do))
            assert len(calls) < 20, "the backup starts over again and again"
            shard.write({"n": len(calls)})
            assert 1 == merged.merge().rows

        merged.snapshot(tmp_path / "copy.db", progress=merge_one)
    assert len(calls) > 1
    assert sorted(calls) == calls
    assert calls[-1][0] == calls[-1][1]
    copy = as_store(tmp_path / "copy.db").verify()
    assert (True, rows) == (copy.ok, copy.rows)
    assert (True, rows + len(calls)) == (merged.verify().ok, merged.verify().rows)


@pytest.mark.slow
def test_snapshots_beside_a_live_writer_and_merger_are_whole_and_grow(merged: edgeshard.Store, tmp_path: Path) -> None:
    work = (
        "import sys, edgeshard\n"
        "store = edgeshard.Store(sys.argv[1])\n"
        "with store.shard('busy') as shard:\n"
        "    while True:\n"
        "        with shard.transaction():\n"
        "            for n in range(20): shard.write({'n': n, 'much': 'x' * 500})\n"
        "        store.merge()\n"
        "        print(flush=True)\n"
    )
    grow(merged)
    worker = subprocess.Popen([sys.executable, "-c", work, merged.root], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    try:
        counts = []
        for number in range(3):
            for _ in range(5):
                assert worker.stdout.readline()
            folder = tmp_path / str(number)
            folder.mkdir()
            assert 0 == command("snapshot", merged.root, folder / "master.db").returncode
            assert 0 == command("verify", folder).returncode
            counts += sql(folder / "master.db", "select count(*) from agent_data where agent_id = 'busy'")
        assert counts == sorted(counts)
        assert all(count > 0 and count % 20 == 0 for (count,) in counts)
    finally:
        worker.kill()
        worker.communicate()


def test_the_progress_of_a_snapshot_is_shown_on_a_terminal_where_it_is_long(
    merged: edgeshard.Store, tmp_path: Path
) -> None:
    grow(merged)
    slow = (
        "import sys\n"
        "from edgeshard.cli import main, output\n"
        "calls = iter(range(0, 10**6, 2))\n"
        "class Clock:\n"
        "    monotonic = staticmethod(lambda: next(calls))\n"
        "output.time = Clock\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-c", slow, "snapshot", str(merged.root), str(tmp_path / "copy.db")]
    done = subprocess.run(arguments, stderr=theirs, stdout=subprocess.DEVNULL, check=False)
    os.close(theirs)
    shown = read_all(ours)
    os.close(ours)
    assert 0 == done.returncode
    assert "\r1,000 of " in shown
    assert shown.endswith(" pages copied\r\n")


def test_a_shell_without_an_input_ends(
    merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it if the caller closed descriptor 0
    assert 78 == main(["shell", str(merged.root)])
    assert "standard input: it is closed" in capsys.readouterr().err
    assert 0 == main(["shell", str(merged.root), "select 6 * 7"])
    assert "42\n" == capsys.readouterr().out
