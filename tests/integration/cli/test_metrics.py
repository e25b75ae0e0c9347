"""The file for Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import time
from pathlib import Path

import attrs
import prometheus_client
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import edgeshard
from edgeshard.cli import verbs
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import AccessError, ConfigurationError, DiskFullError, StorageIOError
from edgeshard.reports import (
    BudgetStatus,
    ClockReport,
    Gap,
    MasterStatus,
    MergeReport,
    Problem,
    Quarantined,
    RowStates,
    ShardStatus,
    StatusReport,
)
from tests.support.processes import python


def samples(path: Path) -> dict[str, float]:
    """The samples of a file by name, those with labels by name and label."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {name: value for name, value in found.items() if not name.endswith("_created")}


def of_status(*ages: float | None) -> StatusReport:
    """A status of shards with two rows each, the oldest of these ages."""
    shards = tuple(
        ShardStatus(f"{n}.db", str(n), True, 2, age, oldest_is_bound=False, size_bytes=1, merged_at=None, reason="")
        for n, age in enumerate(ages)
    )
    states = RowStates(pending=2 * len(shards))
    return StatusReport(datetime.datetime.now(datetime.UTC), True, MasterStatus("master.db"), shards, states=states)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "edgeshard.prom"


def test_passes_add_up_and_gauges_are_those_of_the_last(path: Path) -> None:
    metrics = MetricsFile(path)
    before = time.time()
    aside = (Quarantined("a", "bad"), Quarantined("b", "bad"))
    metrics.count_pass(MergeReport(10, 7, 2, seconds=0.02, quarantined=aside, gaps=(Gap("a", "00", 1, 4),)))
    gaps = (Gap("a", "00", 1, 3), Gap("a", "00", 7, 7))
    metrics.count_pass(MergeReport(5, 3, 1, seconds=4.0, quarantined=aside[:1], gaps=gaps, missing_rows=9))
    metrics.write()
    found = samples(path)
    expected = {
        "edgeshard_passes_total": 2.0,
        "edgeshard_rows_merged_total": 15.0,
        "edgeshard_rows_truncated_total": 10.0,
        "edgeshard_shards_removed_total": 3.0,
        "edgeshard_failed_passes_total": 0.0,
        "edgeshard_pass_seconds_count": 2.0,
        "edgeshard_pass_seconds_sum": 4.02,
        "edgeshard_pass_seconds_bucket{le=0.025}": 1.0,
        "edgeshard_pass_seconds_bucket{le=+Inf}": 2.0,
        "edgeshard_quarantined_shards": 1.0,
        "edgeshard_missing_rows": 9.0,  # also those in gaps that the report does not list
    }
    assert expected == {name: found[name] for name in expected}
    assert before <= found["edgeshard_last_success_timestamp_seconds"] <= time.time()


def test_all_that_never_happened_is_there_as_0(path: Path) -> None:
    MetricsFile(path).write()
    assert {0.0} == set(samples(path).values())
    assert 12 <= len(samples(path))


def test_a_failure_is_counted_and_named_and_is_no_success(path: Path) -> None:
    metrics = MetricsFile(path)
    before = time.time()
    metrics.count_failure(DiskFullError("merge into", "master.db", "the disk is full"))
    metrics.count_failure(DiskFullError("merge into", "master.db", "the disk is full"))
    metrics.write()
    found = samples(path)
    assert (2.0, 0.0, 0.0) == tuple(
        found[f"edgeshard_{name}"] for name in ("failed_passes_total", "passes_total", "last_success_timestamp_seconds")
    )
    assert before <= found["edgeshard_last_failure_timestamp_seconds{error=DiskFullError}"] <= time.time()


def test_what_waits_is_that_of_the_last_status(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.measure(of_status(3.0, 70.5, None))
    metrics.write()
    found = samples(path)
    assert (6.0, 70.5) == (found["edgeshard_pending_rows"], found["edgeshard_oldest_pending_seconds"])
    metrics.measure(of_status())
    metrics.write()
    found = samples(path)
    assert (0.0, 0.0) == (found["edgeshard_pending_rows"], found["edgeshard_oldest_pending_seconds"])


def test_what_the_store_holds_and_what_is_wrong_is_measured(path: Path) -> None:
    metrics = MetricsFile(path)
    status = attrs.evolve(
        of_status(3.0, 700.0, None),
        master=MasterStatus("master.db", exists=True, size_bytes=4_096, wal_bytes=512, rows=7),
        budget=BudgetStatus(1_000, "error", limit_bytes=900, used_bytes=800, dropped_rows=0, is_full=True),
        clock=ClockReport(datetime.datetime.now(datetime.UTC), ahead_s=90_000.0, rows=5, awaits_confirmation=True),
        problems=(Problem("budget-full", "red", "full"), Problem("no-merger", "yellow", "none")),
    )
    metrics.measure(status)
    metrics.write()
    expected = {
        "pending_rows_by_age{le=60}": 2,
        "pending_rows_by_age{le=600}": 2,
        "pending_rows_by_age{le=3600}": 4,
        "pending_rows_by_age{le=+Inf}": 6,
        "problems{level=red}": 1,
        "problems{level=yellow}": 1,
        "master_bytes": 4_096,
        "master_wal_bytes": 512,
        "master_rows": 7,
        "shards": 3,
        "live_writers": 3,
        "budget_limit_bytes": 900,
        "budget_used_bytes": 800,
        "budget_full": 1,
        "clock_in_doubt": 1,
        "clock_ahead_seconds": 90_000,
    }
    found = samples(path)
    assert expected == {name: found[f"edgeshard_{name}"] for name in expected}
    metrics.measure(of_status())
    metrics.write()
    found = samples(path)
    gone = {name for name in expected if not name.startswith("live") and found[f"edgeshard_{name}"]}
    assert set() == gone


def test_a_real_merge_and_a_real_status_are_taken(store: edgeshard.Store, path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(3)])
        metrics = MetricsFile(path)
        metrics.measure(store.status())
        metrics.count_pass(store.merge())
        metrics.write()
    found = samples(path)
    assert (3.0, 3.0) == (found["edgeshard_pending_rows"], found["edgeshard_rows_merged_total"])


def test_metrics_follow_the_conventions_of_prometheus(path: Path) -> None:
    MetricsFile(path).write()
    families = {family.name: family for family in text_string_to_metric_families(path.read_text())}
    own = {name for name in families if not name.endswith("_created")}
    assert all(name.startswith("edgeshard_") and families[name].documentation for name in own)
    assert {"counter", "gauge", "histogram"} == {families[name].type for name in own}


def test_two_files_share_no_metrics_and_the_registry_of_the_process_has_none(tmp_path: Path) -> None:
    one, other = MetricsFile(tmp_path / "one.prom"), MetricsFile(tmp_path / "other.prom")
    one.count_pass(MergeReport(rows=5))
    one.write()
    other.write()
    assert 5.0 == samples(tmp_path / "one.prom")["edgeshard_rows_merged_total"]
    assert 0.0 == samples(tmp_path / "other.prom")["edgeshard_rows_merged_total"]
    assert b"edgeshard" not in prometheus_client.generate_latest()


def test_nothing_is_written_before_write_and_nothing_is_left_beside_the_file(path: Path) -> None:
    metrics = MetricsFile(path)
    assert [] == list(path.parent.iterdir())
    metrics.write()
    assert [path] == list(path.parent.iterdir())


def test_a_reader_that_has_the_old_file_open_reads_all_of_it(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.write()
    with path.open() as reader:
        metrics.count_pass(MergeReport(rows=1))
        metrics.write()
        assert "edgeshard_rows_merged_total 0.0\n" in reader.read()
    assert "edgeshard_rows_merged_total 1.0\n" in path.read_text()


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder"):
        MetricsFile(tmp_path / "no" / "edgeshard.prom")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        MetricsFile(tmp_path / "file" / "edgeshard.prom")
    with pytest.raises(ConfigurationError, match="it is a folder"):
        MetricsFile(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_at_once(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(AccessError, match=str(small_disk / "edgeshard.prom")):
        MetricsFile(small_disk / "edgeshard.prom")


def test_a_full_disk_is_our_error_and_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "edgeshard.prom"
    metrics = MetricsFile(path)
    metrics.write()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(DiskFullError) as caught:
        metrics.write()
    assert str(path) == caught.value.path
    assert 0.0 == samples(path)["edgeshard_passes_total"]
    assert ["edgeshard.prom", "large"] == sorted(os.listdir(small_disk))


def test_a_folder_that_goes_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    metrics = MetricsFile(tmp_path / "folder" / "edgeshard.prom")
    (tmp_path / "folder").rmdir()
    with pytest.raises(StorageIOError, match=r"edgeshard\.prom"):
        metrics.write()


def test_without_the_extra_the_error_says_what_to_install(path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['prometheus_client'] = None\n"
        "from edgeshard.errors import ConfigurationError\n"
        "from edgeshard.cli.metrics import MetricsFile\n"
        "try:\n"
        "    MetricsFile(sys.argv[1])\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    done = python(code, path)
    assert (0, "", True) == (done.returncode, done.stderr, "pip install 'edgeshard[metrics]'" in done.stdout)


def test_the_package_imports_neither_the_client_nor_charts() -> None:
    code = (
        "import sys, edgeshard, edgeshard.cli.metrics, edgeshard.cli, edgeshard.charts\n"
        "print({'prometheus_client', 'pygal'} & set(sys.modules))"
    )
    assert "set()\n" == python(code).stdout


# -- what the guide and the alert rules name --------------------------------------------------------------------------

DOCS = Path(edgeshard.__file__).parent / "docs"


def names_of(path: Path) -> set[str]:
    """The names of the metrics of a file, with the suffixes of counters and histograms."""
    metrics = MetricsFile(path)
    metrics.measure(of_status(3.0))
    metrics.count_failure(StorageIOError("merge into", "master.db", "no"))
    metrics.write()
    return {name.partition("{")[0] for name in samples(path)}


def test_each_metric_is_in_the_guide_and_the_guide_has_no_other(path: Path) -> None:
    named = set(re.findall(r"\bedgeshard_[a-z_]+[a-z]\b", (DOCS / "monitoring.md").read_text()))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names_of(path) if "pass_seconds" in name}
    assert names_of(path) - named == {f"edgeshard_pass_seconds_{suffix}" for suffix in ("count", "sum")}
    assert named - names_of(path) == families


def test_the_alert_rules_are_valid_and_name_metrics_that_exist(path: Path) -> None:
    (group,) = yaml.safe_load((DOCS / "alert-rules.yml").read_text())["groups"]
    names = names_of(path)
    for rule in group["rules"]:
        assert (
            {"alert", "expr", "labels", "annotations"}
            <= rule.keys()
            <= {"alert", "expr", "labels", "annotations", "for"}
        )
        used = set(re.findall(r"\bedgeshard_[a-z_]+\b", rule["expr"]))
        assert used
        assert used <= names
        assert {"summary", "description"} == rule["annotations"].keys()
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["expr"].count("(") == rule["expr"].count(")")
    assert len(group["rules"]) == len({rule["alert"] for rule in group["rules"]})


def test_the_verbs_that_the_alert_rules_advise_exist() -> None:
    named = set(re.findall(r"`edgeshard ([a-z-]+)", (DOCS / "alert-rules.yml").read_text()))
    assert named
    assert named <= set(verbs.VERBS)
