"""What is loaded, and when: little by an import, all that it needs by a shard, a watcher or a service, and no two versions."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import edgeshard
from edgeshard import handles, reports
from edgeshard import store as facade
from tests.support.processes import python
from tests.support.report_classes import report_classes
from tests.support.stores import new_store, numbers

PACKAGE = Path(edgeshard.__file__).parent

#: How long a test waits for what should come at once: the machine may be busy with other things.
SOON_S = 60.0

# -- what is loaded ---------------------------------------------------------------------------------------------------

_LOADED = "; import json, sys; print(json.dumps(sorted(set(sys.modules) - before)))"

#: Of a package of which little is loaded, what may be: types and defaults of arguments.
_LIGHT = {
    "edgeshard.merge.listener",
    "edgeshard.postgres.options",
    "edgeshard.retention.quantities",
    "edgeshard.shard.write_profile",
}

#: What most programs never use.
_HEAVY = {
    *("asyncio", "concurrent.futures", "html", "multiprocessing", "prometheus_client", "psycopg", "pygal", "sqlite3"),
    *("subprocess", "tempfile", "watchdog", "email", "importlib.metadata", "pydoc", "csv"),
}


def loaded_by(code: str, *arguments: object) -> set[str]:
    """Return the names of all modules that a program has loaded at its end, besides those of any program."""
    done = python(f"import sys; before = set(sys.modules); {code}{_LOADED}", *arguments)
    assert 0 == done.returncode, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def inside(modules: set[str], *packages: str) -> set[str]:
    """Return those of edgeshard's modules that are in these packages, except for their light ones."""
    prefixes = tuple(f"edgeshard.{package}." for package in packages)
    return {name for name in modules if name.startswith(prefixes)} - _LIGHT


def test_an_import_loads_what_a_store_needs_to_be_made() -> None:
    loaded = loaded_by("import edgeshard; edgeshard.Store('data')")
    others = ("cli", "bench", "exchange", "inspect", "master", "merge", "postgres", "retention", "shard", "sources")
    assert set() == inside(loaded, *others, "reports", "sqlite")
    assert set() == loaded & (_HEAVY | {"apsw", "argparse", "decimal", "difflib", "filelock", "hashlib", "uuid"})


def test_a_writer_loads_nothing_of_mergers_readers_and_commands(tmp_path: Path) -> None:
    code = (
        "import sys, edgeshard; shard = edgeshard.Store(sys.argv[1]).shard('a'); shard.write({'n': 1}); shard.close()"
    )
    loaded = loaded_by(code, tmp_path)
    assert set() == inside(loaded, "cli", "bench", "exchange", "inspect", "merge", "postgres", "retention")
    assert set() == loaded & (_HEAVY | {"argparse"})


def test_a_merge_that_finds_nothing_loads_nothing_of_writers_readers_and_other_commands(store: edgeshard.Store) -> None:
    store.init()
    code = "import sys; from edgeshard.cli import main_of_merge; main_of_merge(sys.argv[1:])"
    loaded = loaded_by(code, store.root)
    assert set() == inside(loaded, "bench", "exchange", "inspect", "postgres")
    assert {"edgeshard.shard.truncations"} == inside(loaded, "shard")
    assert {"merge", "once"} == {name.rpartition(".")[2] for name in inside(loaded, "cli")} & {
        path.stem
        for path in (PACKAGE / "cli").glob("*.py")
        if "\nSUMMARY = " in path.read_text() or path.stem == "once"
    }
    assert set() == loaded & (_HEAVY | {"bz2", "lzma", "shutil"})


# -- what loads nothing more ------------------------------------------------------------------------------------------

#: Everything that a shard does, and many of its errors; a list of what went otherwise than it should.
_WORK = """
import contextlib, gc, os, sys, threading
import edgeshard
from edgeshard import *
unexpected = []
@contextlib.contextmanager
def expecting(cls):
    try:
        yield
    except cls as error:
        assert str(error)
    except BaseException as error:
        unexpected.append(repr(error))
    else:
        unexpected.append(f"no {cls}")
def work(store, shard):
    for n in range(3):
        shard.write({"n": n})
        shard.write_many({"n": n} for n in range(10))
        with shard.transaction():
            shard.write({"n": n})
    with contextlib.suppress(OutOfDescriptorsError):
        shard.sync()
    with expecting(RecordError):
        shard.write({"n": float("nan")})
    with expecting(RecordError):
        shard.write({"n": object()})
    with expecting(TableError):
        shard.write(5)
    with expecting(ZeroDivisionError), shard.transaction():
        shard.write({"n": 1})
        1 / 0
    with expecting((ShardInUseError, OutOfDescriptorsError)):
        store.shard("a", wait=0)
    with expecting((QueryError, OutOfDescriptorsError)):
        shard.query("SELECT no_such FROM agent_data")
    with contextlib.suppress(OutOfDescriptorsError):
        assert shard.query("SELECT count(*) FROM agent_data")
    os.rename(shard.path, f"{shard.path}.away")
    with expecting(ShardPoisonedError):
        for _ in range(1_000_000):
            shard.write({"n": 1})
    shard.close()
    with expecting((ShardClosedError, ShardPoisonedError)):
        shard.write({"n": 1})
"""


def test_an_open_shard_loads_nothing_more(tmp_path: Path) -> None:
    code = f"""{_WORK}
store = edgeshard.Store(sys.argv[1])
shard = store.shard("a")
before = set(sys.modules)
work(store, shard)
print(unexpected, sorted(set(sys.modules) - before))
"""
    assert "[] []\n" == python(code, tmp_path).stdout


def test_a_shard_works_and_fails_as_it_should_while_no_file_can_be_opened(tmp_path: Path) -> None:
    code = f"""{_WORK}
import resource
store = edgeshard.Store(sys.argv[1])
shard = store.shard("a")
shard.write({{"n": 0}})
used = len(os.listdir("/dev/fd")) - 1
resource.setrlimit(resource.RLIMIT_NOFILE, (used, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
work(store, shard)
print(unexpected)
"""
    done = python(code, tmp_path)
    assert "[]\n" == done.stdout, done.stderr


def test_a_watcher_that_is_open_loads_nothing_more(tmp_path: Path) -> None:
    code = """
import sys, threading, time
import edgeshard
store = edgeshard.Store(sys.argv[1], prune={"keep_rows": 5}, max_bytes="1M", on_full="drop-oldest")
store.init()
with store.shard("a") as shard, store.watching(interval=0.01, rescan=0.1):
    before = set(sys.modules)
    for n in range(1_500):
        try:
            shard.write({"n": n, "text": "x" * 1_000})
        except edgeshard.DiskBudgetError:
            time.sleep(0.01)
    with open(f"{store.root}/shards/bad.db", "wb") as file:
        file.write(b"x" * 5_000)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        time.sleep(0.1)
    print(sorted(name for name in set(sys.modules) - before if name.startswith("edgeshard")))
"""
    done = python(code, tmp_path / "data")
    assert (0, "[]\n") == (done.returncode, done.stdout), done.stderr


# -- upgrades ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a copy of the package, which can be upgraded and removed."""
    folder = tmp_path / "site"
    # with the compiled modules, but for one that another process is just writing
    shutil.copytree(PACKAGE, folder / "edgeshard", ignore=shutil.ignore_patterns("docs", "bench", "*.pyc.*"))
    return folder


def upgrade(site: Path) -> None:
    """Install a later version."""
    constants = site / "edgeshard/format/constants.py"
    text = constants.read_text()
    constants.unlink()
    constants.write_text(text.replace(f'VERSION = "{edgeshard.__version__}"', 'VERSION = "99.0.0"'))


def remove(site: Path) -> None:
    """Uninstall the package."""
    shutil.rmtree(site)


def program(site: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that uses the copy of the package."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def after(change: Callable[[Path], None], site: Path, code: str, root: Path) -> str:
    """Return what a program prints whose first `input()` returns after the package was changed."""
    with program(site, "-c", f"import sys, edgeshard; assert 'site/' in edgeshard.__file__\n{code}", root) as running:
        assert running.stdout is not None
        assert "ready\n" == running.stdout.readline()
        change(site)
        printed, said = running.communicate("go\n", timeout=SOON_S)
    assert 0 == running.returncode, said
    return printed


@pytest.mark.parametrize("change", [upgrade, remove])
def test_a_first_use_after_an_upgrade_is_refused_and_what_is_loaded_still_works(
    change: Callable[[Path], None], site: Path, store: edgeshard.Store
) -> None:
    code = """
store = edgeshard.Store(sys.argv[1])
shard = store.shard("a")
input(print("ready", flush=True) or "")
shard.write({"n": 1})
for use in (store.merge, store.verify, store.status, lambda: edgeshard.MergeReport, lambda: store.query("SELECT 1")):
    try:
        use()
    except edgeshard.UpgradedError as error:
        assert "restart the process" in str(error)
    else:
        print("not refused", use)
shard.close()
"""
    assert "" == after(change, site, code, store.root)
    assert not store.has_master()
    store.merge()
    assert [1] == numbers(store)


@pytest.mark.parametrize("change", [upgrade, remove])
def test_a_program_that_loaded_all_goes_on_after_an_upgrade(
    change: Callable[[Path], None], site: Path, store: edgeshard.Store
) -> None:
    code = """
edgeshard.load_all()
before = set(sys.modules)
store = edgeshard.Store(sys.argv[1])
input(print("ready", flush=True) or "")
with store.shard("a") as shard:
    shard.write({"n": 1})
print(store.merge().rows, store.verify().rows, store.prune(keep_rows=0).rows, store.status().pending_rows)
store.snapshot(f"{sys.argv[1]}/copy.db")
store.activity(), store.tables(), store.clock(), store.ranges()
print([name for name in set(sys.modules) - before if name.startswith("edgeshard")])
"""
    assert "1 1 1 0\n[]\n" == after(change, site, code, store.root)


def test_the_same_version_that_is_installed_again_is_no_upgrade(site: Path, store: edgeshard.Store) -> None:
    def reinstall(site: Path) -> None:
        constants = site / "edgeshard/format/constants.py"
        text = constants.read_text()
        constants.unlink()
        constants.write_text(text)

    code = """
store = edgeshard.Store(sys.argv[1])
input(print("ready", flush=True) or "")
store.init()
print(store.merge().rows)
"""
    assert "0\n" == after(reinstall, site, code, store.root)


@contextlib.contextmanager
def service(site: Path, log: list[str], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a command that keeps running; end it with SIGTERM, which it must end with 0. Its log goes to `log`."""
    with program(site, "-m", "edgeshard", *arguments) as running:
        try:
            yield running
            running.send_signal(signal.SIGTERM)
            _, said = running.communicate(timeout=SOON_S)
            assert 0 == running.returncode, said
            assert "upgraded" not in said
            log.append(said)
        finally:
            running.kill()


def soon(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def merged(store: edgeshard.Store) -> int:
    """Return how many rows the master has."""
    return len(numbers(store)) if store.has_master() else 0


def test_a_service_goes_on_after_the_package_is_removed(site: Path, store: edgeshard.Store) -> None:
    services, asked = site / "edgeshard/cli/services.py", site.parent / "summarise"
    old, new = "if lately.seconds < SUMMARY_EVERY_S:", f"if not os.path.exists({str(asked)!r}):"
    assert old in services.read_text()
    services.write_text(services.read_text().replace(old, new))
    store.init()
    log: list[str] = []
    with store.shard("a") as shard, service(site, log, "merge", store.root, "--watch", "--interval", "0.05") as running:
        shard.write({"n": 1})
        soon(lambda: merged(store) == 1)
        remove(site)
        asked.touch()  # for a summary the service looks at the shards
        (store.root / "shards/bad.db").write_bytes(b"x" * 5_000)
        shard.write({"n": 2})
        running.send_signal(signal.SIGHUP)
        soon(lambda: merged(store) == 2)
    assert "pending" in log[0]


def test_a_page_that_is_kept_is_kept_after_the_package_is_removed(site: Path, store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    page = site.parent / "status.html"
    with service(site, [], "status", store.root, "--html", page, "--every", "0.2"):
        soon(page.exists)
        remove(site)
        store.merge()
        (store.root / "shards/bad.db").write_bytes(b"x" * 5_000)
        soon(lambda: "bad.db" in page.read_text())
        shutil.rmtree(store.root)
        soon(lambda: "bad.db" not in page.read_text())


# -- first uses -------------------------------------------------------------------------------------------------------


def test_threads_may_use_all_for_the_first_time_together(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge()
    code = """
import sys, threading
import edgeshard
store = edgeshard.Store(sys.argv[1])
def write():
    with store.shard(threading.current_thread().name) as shard:
        shard.write({"n": 1})
uses = [store.status, store.verify, store.activity, store.tables, store.clock, store.ranges, write,
    lambda: store.merge(dry_run=True), lambda: store.query("SELECT 1"), lambda: store.prune(keep_rows=5, dry_run=True),
    lambda: edgeshard.MergeReport, lambda: edgeshard.table, lambda: edgeshard.Rows, edgeshard.load_all]
failed, together = [], threading.Barrier(2 * len(uses))
def run(use):
    together.wait()
    try:
        use()
    except BaseException as error:
        failed.append((use, repr(error)))
threads = [threading.Thread(target=run, args=[use]) for use in 2 * uses]
sys.setswitchinterval(1e-5)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failed)
"""
    done = python(code, store.root)
    assert "[]\n" == done.stdout, done.stderr


def test_a_first_use_may_come_after_a_fork_without_a_working_directory_and_at_exit(store: edgeshard.Store) -> None:
    store.init()
    code = """
import atexit, os, shutil, sys, tempfile
import edgeshard
store = edgeshard.Store(sys.argv[1])
atexit.register(lambda: print(os.getpid() == parent, type(store.status()).__name__, flush=True))
parent = os.getpid()
folder = tempfile.mkdtemp()
os.chdir(folder)
shutil.rmtree(folder)
if os.fork():
    os.wait()
"""
    done = python(code, store.root)
    assert "False StatusReport\nTrue StatusReport\n" == done.stdout, done.stderr


def test_a_report_can_be_unpickled_where_nothing_is_loaded() -> None:
    for cls in report_classes():
        assert cls is pickle.loads(pickle.dumps(cls))
    sent = pickle.dumps(edgeshard.MergeReport(rows=3, gaps=(edgeshard.Gap("a", "00", 1, 2),)))
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).rows)"
    assert "3\n" == python(code, sent.hex()).stdout


# -- what people and tools see ----------------------------------------------------------------------------------------


def test_help_shows_all_public_names_with_their_types() -> None:
    shown = python("import edgeshard; help(edgeshard); help(edgeshard.Store)").stdout
    for name in {*edgeshard.__all__} - {"__version__"}:
        assert name in shown
    assert "class Shard" in shown
    assert "MergeReport'" in shown
    assert "def table" in shown or "table(" in shown


def test_all_names_are_there() -> None:
    code = "from edgeshard import *; import edgeshard; print(sorted(set(edgeshard.__all__) - set(globals())))"
    assert "[]\n" == python(code).stdout
    assert set(edgeshard.__all__) | {"Row", "Rows"} <= set(dir(edgeshard))
    for module in (edgeshard, reports, handles, facade):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'no_such'"):
            _ = module.no_such


def declared(module: ModuleType) -> dict[str, str]:
    """Return what a module imports only for type checkers: the names, and where they are from."""
    tree = ast.parse(inspect.getsource(module))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("module", [edgeshard, reports, handles, facade], ids=lambda module: module.__name__)
def test_type_checkers_know_the_names_that_are_loaded_later(module: ModuleType) -> None:
    names = dict(module._MODULES)
    known = {name: source for name, source in declared(module).items() if name in names or module is not facade}
    assert known.keys() == names.keys()
    for name, source in known.items():
        assert getattr(sys.modules.get(source) or __import__(source, fromlist=[name]), name) is getattr(module, name)


def functions() -> list[Callable[..., Any]]:
    """Return all functions and methods that users call."""
    classes = [edgeshard.Store, edgeshard.Shard, edgeshard.AsyncWrite, facade.MergeListener, facade.PushListener]
    methods = [value for cls in classes for name, value in vars(cls).items() if not name.startswith("_")]
    plain = [getattr(value, "__func__", getattr(value, "fget", value)) for value in methods]
    made = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
    return [edgeshard.table, edgeshard.load_all, *filter(inspect.isfunction, plain), *made]


@pytest.mark.parametrize("function", functions(), ids=lambda function: function.__qualname__)
def test_types_of_arguments_and_results_can_be_resolved(function: Callable[..., Any]) -> None:
    hints = typing.get_type_hints(function)
    assert hints.keys() <= {*inspect.signature(function).parameters, "return"}


@pytest.mark.parametrize("cls", report_classes(), ids=lambda cls: cls.__name__)
def test_types_of_the_fields_of_reports_can_be_resolved(cls: type) -> None:
    assert typing.get_type_hints(cls)


def test_hints_name_the_classes_themselves() -> None:
    assert edgeshard.MergeReport is typing.get_type_hints(edgeshard.Store.merge)["return"]
    assert edgeshard.Shard is typing.get_type_hints(edgeshard.Store.shard)["return"]


def test_a_class_of_records_may_be_declared_before_anything_else_is_used(tmp_path: Path) -> None:
    code = """
import sys, attrs, edgeshard
@edgeshard.table(key="name")
@attrs.frozen
class Setting(edgeshard.AgentData if False else object):
    name: str
    value: int
store = edgeshard.Store(sys.argv[1])
with store.shard("a") as shard:
    shard.write(Setting("x", 1))
store.merge()
print(list(store.read(Setting)))
"""
    done = python(code, tmp_path)
    assert "[Setting(name='x', value=1)]\n" == done.stdout, done.stderr
    assert new_store(tmp_path).has_master()
