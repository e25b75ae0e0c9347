"""The benchmark: each system with its real servers, in small; and systems that lie are found out."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from edgeshard.bench import command, options, servers, summary, trials, units
from edgeshard.bench import measure as measuring
from edgeshard.bench.costs.curve import Curve, Scale
from edgeshard.bench.costs.registry import CURVES
from edgeshard.bench.goals import bare_copy, many_shards, processes, second_copy
from edgeshard.bench.goals.cost import OURS, Cost
from edgeshard.bench.goals.goal import GOALS
from edgeshard.bench.goals.merge_once import merge_once
from edgeshard.bench.goals.registry import BATCHES, COSTS
from edgeshard.bench.goals.shard_holder import LiveShards
from edgeshard.bench.machine import current_machine
from edgeshard.bench.measure import measure
from edgeshard.bench.measurement import Measurement, latencies
from edgeshard.bench.messages import AgentError
from edgeshard.bench.plan import Plan, full_workloads, short_workloads
from edgeshard.bench.report import html, json_file, markdown, tables
from edgeshard.bench.row_check import RowCheck, check_rows
from edgeshard.bench.samples import workload_label
from edgeshard.bench.spread import Spread
from edgeshard.bench.system import BusyError, NotRunError, Setting
from edgeshard.bench.systems import SYSTEMS, turso
from edgeshard.bench.systems.postgres import Postgres
from edgeshard.bench.systems.queue import Queue
from edgeshard.bench.systems.redis_stream import connect
from edgeshard.bench.systems.sqlite_tuned import Tuned
from edgeshard.bench.trials import ServerAddresses, rotated
from edgeshard.bench.workload import Durability, Result, Workload, payload
from edgeshard.cli import exits
from edgeshard.files import scan
from edgeshard.sqlite import Connection
from tests.integration.bench import broken_systems
from tests.support.forms import others_slow
from tests.support.project import PROJECT

LENGTH_S = 0.15
SMALL = ["--length", "0.1", "--rounds", "1", "--agents", "2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What measurements share, in a folder that a server can reach that runs as nobody."""
    with trials.scratch(None) as folder:
        yield folder


def measured(name: str, cache: Path, workload: Workload) -> Measurement:
    setting = Setting(cache / f"run-{uuid.uuid4().hex}", workload.durability, workload.agents, cache)
    try:
        return measure(name, setting, workload)
    except NotRunError as error:
        pytest.skip(f"{name} cannot be run here: {error}")


# -- the systems ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", others_slow(SYSTEMS, ["edgeshard"]))
def test_a_system_holds_each_acknowledged_row_once_after_commits_of_one_row(name: str, cache: Path) -> None:
    found = measured(name, cache, Workload("process", 2, length_s=LENGTH_S))
    assert RowCheck(found.row_check.acknowledged) == found.row_check
    assert found.row_check.acknowledged == found.rows + 2  # the first of each agent is not timed
    assert found.commits.count == found.rows > 0
    assert found.commits.p50_s <= found.commits.p99_s <= found.commits.p999_s <= found.commits.worst_s
    assert found.total_s >= found.written_s > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["queue", "postgres", "edgeshard"])
def test_a_measurement_leaves_no_process_behind_also_where_it_fails(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip(f"{sys.platform} has no /proc to look for processes in")
    monkeypatch.setenv("EDGESHARD_BENCH_MARK", mark := uuid.uuid4().hex)
    seen: list[int] = []

    def fail(*_: Any) -> None:
        seen.extend(marked(mark))
        raise AgentError("on purpose")

    monkeypatch.setattr(measuring, "check_rows", fail)
    with pytest.raises(AgentError, match="on purpose"):
        measured(name, cache, Workload("process", 2, length_s=0.05))
    assert len(seen) > 0  # servers, which still serve; agents have closed
    assert [] == marked(mark)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SYSTEMS if not name.startswith("hybrid")])
def test_a_system_holds_each_acknowledged_row_once_after_commits_of_ten_rows_on_disk(name: str, cache: Path) -> None:
    found = measured(name, cache, Workload("power", 2, commit_rows=10, payload_bytes=1000, length_s=LENGTH_S))
    assert RowCheck(found.row_check.acknowledged) == found.row_check
    assert (found.row_check.acknowledged, found.commits.count) == (found.rows + 20, found.rows // 10)
    assert found.rows > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sqlite-default", "sqlite-fair", "turso-threads", "queue", "postgres", "edgeshard"])
def test_a_reader_of_a_system_at_a_pace_sees_each_row_and_how_old_it_is(name: str, cache: Path) -> None:
    found = measured(name, cache, Workload("process", 2, rate=20, length_s=0.5))
    assert found.row_check.is_exact
    assert found.stale is not None
    assert found.rows == found.stale.count
    assert found.behind is not None
    assert found.rows == found.behind.count <= 20
    assert found.on_pace is not None


@pytest.mark.slow
def test_what_a_system_used_is_counted(cache: Path) -> None:
    if sys.platform != "linux":
        pytest.skip(f"{sys.platform} has no /proc, so nothing is known of processes")
    found = measured("edgeshard", cache, Workload("process", 2, length_s=LENGTH_S))
    assert found.used.cpu_s is not None
    assert found.used.cpu_s > 0
    assert found.used.dirtied_bytes is not None
    assert found.used.dirtied_bytes > found.rows * 100
    if found.used.written_bytes is not None:  # no such counter in a container, or on a file system in memory
        assert found.used.written_bytes > found.rows * 100
    assert found.used.memory_bytes is not None
    assert found.used.memory_bytes > 2**20
    assert found.disk_bytes > found.rows * 100


@pytest.mark.slow
def test_systems_that_are_not_installed_are_reported_as_not_run_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    hidden = ("redis", "psycopg")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else real(name, *rest))
    code = command.main(["--systems", "queue", "postgres", "hybrid-postgres", "edgeshard", *SMALL])
    lines = capsys.readouterr().out.splitlines()
    assert exits.DONE == code
    for title, module in (("Redis", "redis"), ("PostgreSQL", "psycopg"), ("hybrid: library + PostgreSQL", "psycopg")):
        (line,) = [line for line in lines if f"| {title} " in line and "| 2 " in line]
        assert f"not run: {module} not installed" in line
        assert not re.search(r"\d \| ", line.removeprefix("| 2      |"))  # nothing is estimated
    (line,) = [line for line in lines if "| edgeshard " in line and "| 2 " in line]
    assert line.endswith(" all |")


def test_a_server_that_cannot_be_reached_is_not_run_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--postgres",
        "host=/nowhere-at-all",
        "--redis",
        "unix:///nowhere-at-all",
        "--systems",
        "postgres",
        "queue",
    ]
    assert exits.DONE == command.main([*given, *SMALL])
    lines = [line for line in capsys.readouterr().out.splitlines() if "not run: " in line]
    assert [True, True] == ["nowhere-at-all" in line and line.endswith(" |") for line in lines]


@pytest.mark.slow
def test_the_queue_is_finished_when_its_aggregator_has_committed_all_and_not_before(tmp_path: Path) -> None:
    queue = Queue(Setting(tmp_path, "process", 1, tmp_path))
    try:
        try:
            queue.start()
        except NotRunError as error:
            pytest.skip(f"the queue cannot be run here: {error}")
        _, aggregator = queue.servers() or []
        os.kill(aggregator, signal.SIGSTOP)
        writer = queue.place.open_writer(0)
        for number in range(20):
            writer.write(Result(0, number, 0, payload(0, number, 50)))
        writer.write_many([Result(0, number, 0, payload(0, number, 50)) for number in range(20, 30)])
        writer.close()
        assert [] == list(queue.read_back())
        finishing = threading.Thread(target=queue.finish)
        finishing.start()
        finishing.join(0.2)
        assert finishing.is_alive()
        os.kill(aggregator, signal.SIGCONT)
        finishing.join()
        assert RowCheck(30) == check_rows(queue.read_back(), [30], 50)
    finally:
        queue.stop()


@pytest.mark.slow
def test_a_server_of_the_users_is_used_and_left_as_it_was(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := cache / f"users-{uuid.uuid4().hex}").mkdir(mode=0o711)
    setting = Setting(folder, "process", 5, cache)
    postgres, queue = Postgres(setting), Queue(attrs.evolve(setting, folder=tmp_path))
    try:
        try:
            postgres.start()
            queue.start()
        except NotRunError as error:
            pytest.skip(f"no server can be run here: {error}")
        import psycopg

        server = connect(queue.place.url)
        os.kill((queue.servers() or [])[1], signal.SIGKILL)  # the aggregator: the server alone is the user's
        server.config_set("appendonly", "no")
        given = ["--postgres", postgres.place.conninfo, "--redis", queue.place.url, "--class", "power"]
        assert exits.DONE == command.main([*given, "--systems", "postgres", "queue", *SMALL])
        assert [True, True] == [
            line.endswith(" all |") and "|         - |" in line  # what their servers use is not ours to see
            for line in capsys.readouterr().out.splitlines()
            if "| 2 " in line
        ]
        assert {"appendonly": "no", "appendfsync": "everysec"} == server.config_get("appendonly", "appendfsync")
        assert 0 == server.dbsize()
        server.close()
        with psycopg.connect(postgres.place.conninfo) as connection:
            names = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%bench%'").fetchall()
        assert [] == names
    finally:
        postgres.stop()
        queue.stop()


# -- systems that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writer", "code", "shown"),
    others_slow(
        [
            (broken_systems.Lossy, exits.INCOMPLETE, r"[\d,]+ LOST"),
            (broken_systems.Doubling, exits.INCOMPLETE, r"[\d,]+ DOUBLED"),
            (broken_systems.Garbling, exits.INCOMPLETE, r"[\d,]+ CHANGED"),
            (broken_systems.Failing, exits.INCOMPLETE, "failed: .*the third row"),
            (broken_systems.Dying, exits.INCOMPLETE, "failed: an agent died"),
            (broken_systems.Busy, exits.DONE, "all"),
        ],
        [(broken_systems.Lossy, exits.INCOMPLETE, r"[\d,]+ LOST")],
    ),
)
def test_a_system_that_is_broken_is_shown_as_what_it_is(
    writer: Any, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SYSTEMS, "broken", broken_systems.entry(writer))
    assert code == command.main(["--systems", "broken", "sqlite-tuned", *SMALL])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "| broken" in line and "| 2 " in line]
    assert re.search(rf"\| +{shown} \|$", line), line
    (line,) = [line for line in lines if "SQLite, tuned" in line and "| 2 " in line]
    assert line.endswith(" all |")


@pytest.mark.slow
def test_a_system_that_fails_after_the_agents_are_done_has_failed_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise TimeoutError("not all is there")

    monkeypatch.setattr(Tuned, "finish", fail)
    assert exits.INCOMPLETE == command.main(["--systems", "sqlite-tuned", "edgeshard", *SMALL])
    first, second = [line for line in capsys.readouterr().out.splitlines() if "| 2 " in line]
    assert first.endswith("failed: TimeoutError: not all is there |")
    assert second.endswith(" all |")


@pytest.mark.slow
def test_an_agent_that_is_refused_tries_again_and_that_counts_into_its_commit(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setitem(SYSTEMS, "broken", broken_systems.entry(broken_systems.Busy))
    found = measured("broken", cache, Workload("process", 1, length_s=0.1))
    assert found.row_check.is_exact
    # the first row is not measured, and the last one may be refused just as the time is over
    assert found.refused in (found.rows + 1, found.rows + 2)


def test_rows_are_accounted_for_one_by_one() -> None:
    rows = [(agent, number, payload(agent, number, 20)) for agent in range(2) for number in range(5)]
    assert RowCheck(10) == check_rows(rows, [5, 5], 20)
    assert RowCheck(10, lost=1) == check_rows(rows[1:], [5, 5], 20)
    assert RowCheck(10, doubled=2) == check_rows([*rows, rows[3], rows[3]], [5, 5], 20)
    assert RowCheck(10, lost=1, doubled=1) == check_rows([*rows[:-1], rows[0]], [5, 5], 20)
    assert RowCheck(10, changed=1) == check_rows([(0, 0, payload(0, 1, 20)), *rows[1:]], [5, 5], 20)
    assert RowCheck(9, foreign=1) == check_rows(rows, [5, 4], 20)
    assert RowCheck(10, foreign=3) == check_rows([*rows, (2, 0, ""), (-1, 0, ""), (0, -1, "")], [5, 5], 20)


@pytest.mark.parametrize("length", [1, 5, 100, 1000, 10_000])
def test_a_payload_has_the_length_asked_for_and_is_another_for_each_row(length: int) -> None:
    made = {payload(agent, number, length) for agent in range(3) for number in range(100)}
    assert {length} == set(map(len, made))
    assert 300 == len(made) or length < 100


def test_times_are_told_by_how_many_took_no_longer() -> None:
    found = latencies([bytes(system_array(range(1, 501))), bytes(system_array(range(501, 1001)))])
    assert found is not None
    assert [501, 991, 1000, 1000] == [
        round(value * 1e9) for value in (found.p50_s, found.p99_s, found.p999_s, found.worst_s)
    ]
    assert latencies([b""]) is None


def system_array(values: range) -> bytes:
    return b"".join(value.to_bytes(8, sys.byteorder) for value in values)


# -- what is measured, and in which order -----------------------------------------------------------------------------


def test_the_systems_take_turns_and_each_begins_a_round() -> None:
    assert [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]] == [
        rotated("abc", turn) for turn in range(4)
    ]


def test_rounds_of_a_workload_come_together_and_a_missing_system_is_looked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    plan = Plan(2, dict.fromkeys([Workload("process", 1), Workload("process", 2)], ("queue", "postgres")))
    told: list[int] = []
    steps = list(trials.run_trials(plan, ServerAddresses(), None, lambda _, before: told.append(before)))
    expected = [("queue", 1), ("postgres", 1), ("postgres", 1), ("queue", 1)]
    assert [*expected, *((name, 2) for name, _ in expected)] == [(one.system, one.workload.agents) for one in steps]
    assert list(range(plan.trial_count)) == told
    assert all(one.not_run and one.row_check is None for one in steps)


def test_the_profiles_have_what_is_promised() -> None:
    full = list(full_workloads())
    for durability in ("process", "power"):
        ours = [one for one in full if one.durability == durability]
        assert {1, 4, 10, 16, 100} == {one.agents for one in ours if one.rate is None}
        assert {1, 4, 10, 16, 100} == {one.agents for one in ours if one.rate is not None}
        assert {1, 100} == {one.commit_rows for one in ours}
        assert {100, 1_000, 10_000} == {one.payload_bytes for one in ours}
    assert {"process", "power"} == {one.durability for one in short_workloads()}
    assert len(full) == len(set(full))


# -- what is shown ----------------------------------------------------------------------------------------------------


def lines() -> list[summary.Summary]:
    """Made-up lines of both classes, and of all kinds of outcome."""
    found = []
    classes: tuple[Durability, ...] = ("process", "power")
    for durability in classes:
        for agents in (1, 10):
            for number, name in enumerate(SYSTEMS):
                workload = Workload(durability, agents)
                figures = {
                    figure: Spread(1.0 + number, 0.5, 9.0) for figure in ("rows_per_s", "memory_bytes", "disk_bytes")
                }
                for part in ("p50", "p99", "p999", "worst"):
                    figures[f"commit_{part}_s"] = Spread(0.001 * agents, 0.001, 0.1)
                found.append(summary.Summary(workload, name, 2, figures, RowCheck(100, lost=number // 6)))
    not_run = summary.Summary(Workload("power", 10), "queue", 0, {}, RowCheck(0), "not run: <nothing> installed")
    return [one if one.system != "queue" else attrs.evolve(not_run, workload=one.workload) for one in found]


def test_two_classes_of_durability_are_never_in_one_table() -> None:
    by_kind = tables.by_kind(lines())
    assert 2 == len(by_kind)
    for kind, members in by_kind.items():
        assert {kind.durability} == {one.workload.durability for one in members}
    sections = list(markdown.result_sections(lines()))
    assert ["### process", "### power"] == [text.split(":")[0] for text in sections]
    for text in sections:
        assert 2 + 2 * len(SYSTEMS) == len(re.findall(r"^\|", text, re.MULTILINE))


def test_workloads_that_differ_in_more_than_the_agents_are_never_in_one_table() -> None:
    one = lines()[0]
    workloads = [
        attrs.evolve(one.workload, rate=5.0),
        attrs.evolve(one.workload, commit_rows=7),
        attrs.evolve(one.workload, payload_bytes=9),
        attrs.evolve(one.workload, durability="power"),
    ]
    others = [attrs.evolve(one, workload=workload) for workload in workloads]
    assert 5 == len(tables.by_kind([one, *others]))


def test_the_tables_are_aligned_and_say_what_was_lost_and_what_was_not_run() -> None:
    for text in markdown.result_sections(lines()):
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert 1 == len({len(row) for row in rows})
        assert 1 == len({row.count("|") for row in rows})
        assert any(row.endswith(" 1 LOST |") for row in rows)
        assert any("not run: <nothing> installed" in row for row in rows)


@pytest.mark.slow
def test_the_json_has_a_stable_shape_and_is_shown_again_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, html = tmp_path / "run.json", tmp_path / "run.html"
    assert exits.DONE == command.main(["--systems", "edgeshard", *SMALL, "--json", str(file)])
    before = capsys.readouterr().out
    run = json.loads(file.read_text())
    assert ["command", "costs", "curves", "format", "lines", "machine", "measurements", "systems"] == sorted(run)
    assert 1 == run["format"]
    (line,) = run["lines"]
    (one,) = run["measurements"]
    assert ["figures", "rounds", "rows", "system", "trouble", "workload"] == sorted(line)
    assert ["failure", "figures", "not_run", "round", "rows", "system", "workload"] == sorted(one)
    assert {name: figure["median"] for name, figure in line["figures"].items()} == one["figures"]
    assert {"acknowledged", "lost", "doubled", "changed", "foreign"} == set(one["rows"])
    assert attrs.asdict(Workload("process", 2, length_s=0.1)) == one["workload"]
    always = {"rows_per_s", "commit_p50_s", "commit_p99_s", "commit_p999_s", "commit_worst_s", "disk_bytes", "refused"}
    assert always <= set(one["figures"])
    assert exits.DONE == command.main(["--show", str(file), "--html", str(html)])
    assert before == capsys.readouterr().out
    assert "<svg" in html.read_text()


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "run.json")
    given = ["--systems", "sqlite-tuned", "sqlite-default", "--length", "0.1", "--agents", "1", "--json", file]
    with monkeypatch.context() as broken:
        calls: list[str] = []

        def measure_once(name: str, *rest: Any) -> Measurement:
            calls.append(name)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return measure(name, *rest)

        broken.setattr(trials, "measure", measure_once)
        assert exits.INTERRUPTED == command.main([*given, "--rounds", "2"])
    (first,) = json.loads(Path(file).read_text())["measurements"]
    assert exits.DONE == command.main([*given, "--rounds", "2", "--resume", file])
    again = json.loads(Path(file).read_text())["measurements"]
    expected = [("sqlite-tuned", 0), ("sqlite-default", 0), ("sqlite-default", 1), ("sqlite-tuned", 1)]
    assert expected == [(step["system"], step["round"]) for step in again]
    assert first == again[0]
    assert 4 == len({step["figures"]["rows_per_s"] for step in again})


TINY = Scale(
    rounds=1,
    payloads=(100, 1000),
    row_bytes=100_000,
    shards=(1, 3),
    master_rows=(500,),
    batch_rows=300,
    wakes=1,
    processes=(1, 3),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("write", {"shard.write": [100, 1000], "bare apsw": [100, 1000]}),
        ("merge", {"store.merge": [100, 1000], "INSERT ... SELECT": [100, 1000]}),
        ("shards", {"a merge of 300 rows": [1, 3], "a merge that finds nothing new": [1, 3]}),
        ("size", {"store.merge": [500]}),
        ("wake", {"until the row is readable": [0.1, 1.0]}),
        ("wear", {"wear='low'": [1, 3], "wear='normal'": [1, 3]}),
        ("turns", {"the median process": [1, 3], "the worst process": [1, 3]}),
    ],
)
def test_a_curve_has_a_figure_for_each_of_its_points(
    name: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", 0.1)  # for how long a shard has to rest until a merge believes that it does
    curve = CURVES[name](tmp_path, TINY)
    assert name == curve.name
    assert expected == {line: [x for x, _ in points] for line, points in curve.lines.items()}
    assert all(figure.median > 0 for points in curve.lines.values() for _, figure in points)
    assert [] == list(tmp_path.iterdir())
    shown = markdown.curve_section(curve)
    assert 2 + len(next(iter(expected.values()))) == shown.count("\n|")


def curve() -> Curve:
    return Curve(
        "merge",
        "A <merge>",
        "rows",
        "1/s",
        {
            "ours": [(1.0, Spread(2.0, 1.0, 3.0)), (10.0, Spread(4.0, 1.0, 9.0))],
            "peer": [(1.0, Spread(8.0, 8.0, 8.0)), (10.0, Spread(2.0, 2.0, 2.0))],
        },
    )


def test_numbers_are_written_as_people_write_them() -> None:
    assert ["0.1", "1", "100", "10,000,000"] == [units.number(number) for number in (0.1, 1, 100.0, 1e7)]
    assert ["8.4 µs", "26 µs", "1.5 ms", "999 ms", "2.0 s"] == [
        units.duration(seconds) for seconds in (8.4e-6, 26e-6, 1.5e-3, 0.999, 2)
    ]
    assert ["100 B", "1.5 KB", "40 MB", "2 GB"] == [units.size(count) for count in (100, 1_500, 40e6, 2e9)]


def test_a_curve_and_its_peer_are_shown_with_their_ratio_and_survive_being_saved() -> None:
    cells = [row.split("|")[1:-1] for row in markdown.curve_section(curve()).splitlines()[4:]]
    assert [["1", "2 (1 to 3)", "8 (8 to 8)", "0.25"], ["10", "4 (1 to 9)", "2 (2 to 2)", "2.00"]] == [
        [cell.strip() for cell in row] for row in cells
    ]
    run = json_file.Run(current_machine(), "a command", [], [Cost("import", "edgeshard", 1, {"cpu_s": 0.1})], [curve()])
    assert run == json_file.loads(json_file.dumps(run))


def test_a_file_that_is_no_run_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{}", "[]", "nonsense", '{"format": 2}', '{"format": 1}'):
        (tmp_path / "no.json").write_text(text)
        assert exits.FAILED == command.main(["--show", str(tmp_path / "no.json")])
        assert "not a run that this version saved" in capsys.readouterr().err
    assert exits.IO_ERROR == command.main(["--show", str(tmp_path / "none.json")])


def test_the_page_needs_nothing_from_elsewhere_and_shows_a_plot_for_each_question() -> None:
    text = html.page(current_machine(), "python -m edgeshard.bench --html <file>", lines(), [curve()])
    assert 2 * 4 + 1 == text.count("<svg")
    assert "A &lt;merge&gt;" in text
    assert [] == re.findall(r"<script|<link|<iframe|\bsrc\s*=|\bhref\s*=|@import|url\(", text)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses
    assert "not run: &lt;nothing&gt; installed" in text
    assert '<td class="wrong" colspan=1>1 LOST</td>' in text
    assert "<h1>How many rows per second can 1 to 10 agents store, " in text
    assert 2 * 4 + 1 == text.count("higher is better") + text.count("lower is better")
    assert "--html &lt;file&gt;" in text


def test_a_run_on_a_busy_machine_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    busy = attrs.evolve(current_machine(), load=5.0, processors=2)
    quiet = attrs.evolve(busy, load=0.1)
    assert (True, False) == (
        "NOT quiet" in markdown.report(busy, lines()),
        "NOT quiet" in markdown.report(quiet, lines()),
    )
    assert (True, False) == ("class=noisy" in html.page(busy, "", lines()), "class=noisy" in html.page(quiet, "", []))


# -- the costs that have a goal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure_cost", "figures", "other"),
    [
        (partial(many_shards.full_shards, shards=3, rows=20), {"rows_per_s", "cpu_s"}, {"rows_per_s"}),
        (partial(many_shards.live_shards, shards=3), {"wall_s", "cpu_s"}, None),
        (partial(many_shards.ended_agents, shards=3), {"wall_s", "cpu_s"}, None),
        (processes.import_cost, {"wall_s", "cpu_s", "memory_bytes"}, {"wall_s", "cpu_s", "memory_bytes"}),
        (processes.idle_merge, {"wall_s", "cpu_s"}, {"wall_s", "cpu_s"}),
        (processes.new_shard, {"wall_s", "cpu_s"}, None),
        (processes.existing_shard, {"wall_s", "cpu_s"}, None),
    ],
)
def test_a_cost_has_its_figures_in_each_round(
    measure_cost: Any, figures: set[str], other: set[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        figures, other = ({*one} - {"memory_bytes"} if one else None for one in (figures, other))
    monkeypatch.setattr(processes, "_REPEATS", 1)
    monkeypatch.setattr(processes, "_OPENINGS", 2)
    found = list(measure_cost(tmp_path, 2))
    assert {one.workload for one in found} < set(COSTS)
    ours = [one for one in found if one.contestant == OURS]
    others = [one for one in found if one.contestant != OURS]
    assert [0, 1] == [one.round_number for one in ours]
    assert ([0, 1] if other else []) == [one.round_number for one in others]
    assert all(set(one.figures) == figures for one in ours)
    assert all(set(one.figures) == other for one in others)
    assert all(value > 0 for one in found for value in one.figures.values())
    assert [] == list(tmp_path.iterdir())


def test_processes_that_are_measured_keep_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    environment = servers.python_environment()
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["SOMETHING_ELSE"] == "stays"


@pytest.mark.parametrize("transaction_rows", [1, 7, 20, 60, 1_000])
def test_the_bare_copy_copies_each_row_once(transaction_rows: int, tmp_path: Path) -> None:
    files = bare_copy.make_files(tmp_path, 3, 20, 50)
    target = tmp_path / "target.db"
    bare_copy.create_target(target)
    bare_copy.copy(target, files, transaction_rows)
    connection = Connection(str(target))
    found = connection.execute("SELECT id, source, value, text FROM sample ORDER BY id").fetchall()
    connection.close()
    assert [(1 + row, "inlet", row % 20 / 7, "p" * 50) for row in range(60)] == found


def test_the_second_copy_is_measured_in_each_round_and_once_in_a_run_that_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = Workload("process", 2, commit_rows=10, length_s=0.05)
    contests = {workload: ("sqlite-tuned", "sqlite-default"), attrs.evolve(workload, agents=1): ("sqlite-tuned",)}
    plan = Plan(2, contests, second_copies=(workload,))
    monkeypatch.setattr(command, "plan_from_options", lambda _: plan)
    monkeypatch.setattr(second_copy, "_MOST_ROWS", 50)
    first, second = str(tmp_path / "first.json"), str(tmp_path / "second.json")
    assert exits.DONE == command.main(["--json", first, "--dir", str(tmp_path)])
    costs = json_file.loads(Path(first).read_text()).costs
    label, name = workload_label(workload), second_copy.SECOND_COPY
    assert [(label, name, 0), (label, name, 1)] == [(one.workload, one.contestant, one.round_number) for one in costs]
    assert all(one.figures["rows_per_s"] > 0 for one in costs)
    monkeypatch.delattr(second_copy, "measure")
    assert exits.DONE == command.main(["--resume", first, "--json", second, "--dir", str(tmp_path)])
    assert costs == json_file.loads(Path(second).read_text()).costs
    assert {first, second} == set(map(str, tmp_path.iterdir()))
    capsys.readouterr()


def test_a_merge_that_copies_too_few_rows_is_no_measurement(tmp_path: Path) -> None:
    with LiveShards(tmp_path / "store", 2) as live:
        live.write(3, 10)
        with pytest.raises(RuntimeError, match="did not copy and truncate exactly 7 rows"):
            merge_once(tmp_path / "store", 7)
        live.write(1, 10)
        assert merge_once(tmp_path / "store", 2).wall_s > 0


def test_shards_that_cannot_be_opened_are_an_error_and_leave_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(RuntimeError, match="a process that holds shards has failed"):
        LiveShards(tmp_path / "store", 1).__enter__()
    assert "Error" in capfd.readouterr().err


# -- comparing with an earlier run ------------------------------------------------------------------------------------


def run_with(folder: Path, name: str, cpu_s: float, *, rounds: int = 3, **machine: Any) -> str:
    """Save a run with one made-up cost."""
    costs = [Cost("import", OURS, number, {"cpu_s": cpu_s + number / 1e6}) for number in range(rounds)]
    run = json_file.Run(attrs.evolve(current_machine(), **machine), name, [], costs, [])
    (folder / name).write_text(json_file.dumps(run))
    return str(folder / name)


@pytest.mark.parametrize(
    ("cpu_s", "rounds", "code", "said"),
    [
        (0.1, 3, exits.DONE, "None of 1 figures of edgeshard is worse"),
        (0.05, 3, exits.DONE, "None of 1 figures of edgeshard is worse"),
        (0.2, 3, exits.INCOMPLETE, "WORSE than the noise: 1 of 1 figures of edgeshard: import: processor time 0.50"),
        (0.2, 1, exits.FAILED, "No figure of edgeshard was judged"),
    ],
)
def test_a_saved_run_is_compared_with_another(
    cpu_s: float, rounds: int, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, now = run_with(tmp_path, "base.json", 0.1), run_with(tmp_path, "now.json", cpu_s, rounds=rounds)
    assert code == command.main(["--show", now, "--compare", base])
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_what_cannot_be_compared_is_refused_before_it_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "measure", None)
    base, elsewhere = run_with(tmp_path, "base.json", 0.1), run_with(tmp_path, "else.json", 0.1, processors=77)
    once = run_with(tmp_path, "once.json", 0.1, rounds=1)
    (tmp_path / "no.json").write_text("{}")
    for given, said in (
        (["--compare", base, *SMALL[:2], "--agents", "2"], "none of the workloads of this run"),
        (["--compare", base, *SMALL], "noise cannot be told from fewer than 3 rounds; use --rounds 3"),
        (["--compare", once, "--goals"], "it has only 1 rounds, which tell no noise; measure it with --rounds 3"),
        (["--compare", elsewhere, "--goals"], "it is from another machine: 77 processors"),
        (["--compare", str(tmp_path / "no.json"), "--goals"], "not a run that this version saved"),
        (["--compare", elsewhere, "--show", base], "it is from another machine: 77 processors"),
    ):
        assert exits.FAILED == command.main(given)
        error = capsys.readouterr().err
        assert said in error
        assert given[1] in error
    assert exits.IO_ERROR == command.main(["--compare", str(tmp_path / "none.json"), "--goals"])


@pytest.mark.slow
def test_the_goals_are_measured_and_compared_with_an_earlier_run_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_REPEATS", 1)
    monkeypatch.setattr(second_copy, "_MOST_ROWS", 100)
    for name in set(COSTS) - {"import", "new-shard"}:
        monkeypatch.delitem(COSTS, name)
    base = str(tmp_path / "base.json")
    assert exits.DONE == command.main(
        ["--goals", "--systems", "edgeshard", "sqlite-tuned", "--rounds", "1", "--json", base]
    )
    said = capsys.readouterr().out
    titles = {goal.title: goal.workload in COSTS or ":" in goal.workload for goal in GOALS}
    assert titles == {title: f"| {title} " in said for title in titles}
    assert len(BATCHES) == said.count("| rows/s, second copy alone ")
    assert exits.FAILED == command.main(["--show", base, "--compare", base])
    assert "No figure of edgeshard was judged" in capsys.readouterr().out.splitlines()[-1]


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_help_names_each_system_and_has_examples_that_parse() -> None:
    text = options.parser().format_help()
    examples = [line.split("  ")[0].strip() for line in re.findall(r"^  python -m edgeshard\.bench(.*)$", text, re.M)]
    assert len(examples) >= 5
    for example in examples:
        plan = options.plan_from_options(options.parser().parse_args(shlex.split(example)))
        assert plan.trial_count + len(plan.costs) + len(plan.curves) > 0
    for name in SYSTEMS:
        assert name in text


@pytest.mark.parametrize(
    "given",
    [
        ["--systems", "none"],
        ["--agents", "0"],
        ["--agents", "x"],
        ["--rate", "nan"],
        ["--length", "0"],
        ["--class", "a"],
        ["--goals", "--agents", "1"],
        ["--goals", "--length", "1"],
        ["--goals", "--full"],
    ],
)
def test_wrong_usage_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(given)
    assert exits.USAGE == raised.value.code


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert exits.CONFIGURATION == command.main(["--dir", str(tmp_path / "none")])


# -- nothing is left behind -------------------------------------------------------------------------------------------


def marked(mark: str) -> list[int]:
    """The processes that have a word in their environment: a command, and all that it started."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:  # it has ended
                continue
            if mark.encode() in environment:
                found.append(int(name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # of what it waits for, each may take minutes on a busy machine
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("queue", signal.SIGINT),
        ("postgres", signal.SIGINT),
        ("edgeshard", signal.SIGTERM),
        ("postgres", signal.SIGKILL),
        ("edgeshard", signal.SIGKILL),
    ],
)
def test_a_run_that_is_interrupted_leaves_no_process_and_no_file(
    name: str, number: signal.Signals, tmp_path: Path, cache: Path
) -> None:
    if sys.platform != "linux":
        pytest.skip(f"{sys.platform} has no /proc to look for processes in")
    if name != "edgeshard":
        measured(name, cache, Workload("process", 1, length_s=0.05))  # skips where it cannot be run
    mark = uuid.uuid4().hex
    given = ["--dir", str(cache), "--systems", name, "--agents", "3", "--length", "600", "--rounds", "1"]
    before = set(cache.iterdir())
    run = subprocess.Popen(
        [sys.executable, "-m", "edgeshard.bench", *given],
        cwd=PROJECT,
        env={**os.environ, "EDGESHARD_BENCH_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # the command, a server, the agents' parent, the agents
        wait_until(lambda: len(marked(mark)) >= 6 or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        time.sleep(0.2)
        run.send_signal(number)
        _, said = run.communicate(timeout=SOON_S)
        _assert_nothing_is_left(run.returncode, number, said, mark, cache, before)
    finally:
        for left in marked(mark):
            os.kill(left, signal.SIGKILL)
        run.wait()


def _assert_nothing_is_left(
    code: int, number: signal.Signals, said: str, mark: str, cache: Path, before: set[Path]
) -> None:
    if number == signal.SIGKILL:
        assert -signal.SIGKILL == code
    else:
        assert ({signal.SIGINT: 130, signal.SIGTERM: 143}[number], "") == (
            code,
            said.replace("edgeshard.bench: interrupted; nothing is left running\n", ""),
        )
        assert before == set(cache.iterdir())
        assert [] == marked(mark)
    wait_until(lambda: marked(mark) == [])


#: How long to wait for what comes within a second, unless the machine is busy with other things.
SOON_S = 240.0


def wait_until(condition: Any) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < SOON_S
        time.sleep(0.02)


# -- Turso ------------------------------------------------------------------------------------------------------------


def test_turso_says_that_it_refuses_a_second_process_and_its_threads_are_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("turso")
    assert exits.DONE == command.main(["--systems", "turso", "turso-threads", *SMALL])
    processes, threads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 ")]
    assert re.search(r"\| not run: a second process is refused \(pyturso [\d.]+\w*: \w+Error\) \|$", processes)
    assert threads.endswith(" all |")


def test_a_system_of_threads_counts_its_process_once(cache: Path) -> None:
    pytest.importorskip("turso")
    found = measured("turso-threads", cache, Workload("process", 3, length_s=LENGTH_S))
    assert found.used.cpu_s is None or found.used.cpu_s < 2 * found.total_s * (os.cpu_count() or 1)


@pytest.mark.parametrize(("cause", "is_busy"), [("Busy", True), ("Corrupt", False)])
def test_a_turso_writer_is_told_to_try_again_only_if_the_database_is_busy(
    cause: str, is_busy: bool, tmp_path: Path
) -> None:
    lib = pytest.importorskip("turso.lib")
    system = turso.with_threads(Setting(tmp_path, "process", 2, tmp_path))
    system.start()
    writer: Any = system.place.open_writer(0)

    class Refusing:
        in_transaction = False

        def execute(self, sql: str) -> None:
            try:
                raise getattr(lib, cause)("on purpose")
            except Exception as error:
                raise lib._map_turso_exception(error) from None

    connection, writer._connection = writer._connection, Refusing()
    with pytest.raises(BusyError if is_busy else lib.DatabaseError):
        writer.write(Result(0, 0, 0, "text"))
    connection.close()
