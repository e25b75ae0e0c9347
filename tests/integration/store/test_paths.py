"""A path that is not a store: every verb and every method of `Store` says what it is, and creates nothing."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.errors import ConfigurationError, EdgeshardError
from edgeshard.files import folders
from edgeshard.master import database
from edgeshard.merge import locks
from tests.support.forms import others_slow
from tests.support.processes import command

DSN = "postgresql://nobody@127.0.0.1:1/none"


@attrs.frozen
class Row:
    n: int


@attrs.frozen
class Place:
    """A folder of stores: data (which is whole), and whatever else a test puts there."""

    folder: Path

    @property
    def data(self) -> edgeshard.Store:
        return edgeshard.Store(self.folder / "data")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place as tests find it: one copy for all, because none may change it."""
    folder = tmp_path_factory.mktemp("place")
    store = edgeshard.Store(folder / "data")
    with store.shard("door") as shard:
        shard.write({"n": 1})
        store.merge(keep_empty=True)
        shard.write({"n": 2})
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Place:
    shutil.copytree(original, tmp_path / "place")
    return Place(tmp_path / "place")


def tree(folder: Path, *, times: bool = True) -> dict[str, object]:
    """All that is in a folder, byte for byte, and when it was changed.

    Without times also without SQLite's shared memory: whoever reads a WAL database changes that.
    """
    found: dict[str, object] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        item = path.lstat()
        if times or not path.name.endswith("-shm"):
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(item.st_mode) else ""
            found[str(path.relative_to(folder))] = (
                item.st_mode, item.st_ino, item.st_size, item.st_mtime_ns if times else 0, content,
            )  # fmt: skip
    return found


# -- columns: all methods and verbs -----------------------------------------------------------------------------------

#: Each calls one method with the store and a folder for new files.
METHODS: dict[str, Callable[[edgeshard.Store, Path], object]] = {
    "ensure_exists": lambda store, _: store.ensure_exists(),
    "merge": lambda store, _: store.merge(),
    "merge of sources": lambda store, out: store.merge([out.parent / "data" / "master.db"]),
    "merge, dry run": lambda store, _: store.merge(dry_run=True),
    "merge_now": lambda store, _: store.merge_now(),
    "disk_budget": lambda store, _: store.disk_budget(),
    "note_budget": lambda store, _: store.note_budget("100M"),
    "watcher": lambda store, _: store.watcher(),
    "query": lambda store, _: store.query("select 1"),
    "aquery": lambda store, _: asyncio.run(store.aquery("select 1")),
    "amerge": lambda store, _: asyncio.run(store.amerge()),
    "query, fresh": lambda store, _: store.query("select 1", fresh=True),
    "describe_query": lambda store, _: store.describe_query("select 1"),
    "query_rows": lambda store, _: store.query_rows("select 1"),
    "query_table": lambda store, _: store.query_table("select 1", colour=False, width=80, unicode=False),
    "read": lambda store, _: store.read(edgeshard.AgentData),
    "shell": lambda store, _: store.shell().__enter__(),
    "status": lambda store, _: store.status(),
    "activity": lambda store, _: store.activity(),
    "tables": lambda store, _: store.tables(),
    "verify": lambda store, _: store.verify(),
    "salvage": lambda store, out: store.salvage(out.parent / "data" / "shards" / "door.db"),
    "prune": lambda store, _: store.prune(keep_rows=0),
    "prune, dry run": lambda store, _: store.prune(keep_rows=0, dry_run=True),
    "prune, drop_table": lambda store, _: store.prune(table="agent_data", drop_table=True),
    "snapshot": lambda store, out: store.snapshot(out / "copy.db"),
    "restore": lambda store, out: store.restore(out.parent / "data" / "master.db"),
    "restore, dry run": lambda store, out: store.restore(out.parent / "data" / "master.db", dry_run=True),
    "export": lambda store, out: store.export(out / "bundle.db"),
    "ranges": lambda store, _: store.ranges(),
    "receipt": lambda store, out: store.receipt(out / "hub.json"),
    "rejected": lambda store, _: store.rejected(),
    "dismiss_rejected": lambda store, _: store.dismiss_rejected(why="a test"),
    "dismiss_rejected, dry run": lambda store, _: store.dismiss_rejected(why="a test", dry_run=True),
    "forget_peer": lambda store, _: store.forget_peer("aa" * 16),
    "accept_loss": lambda store, _: store.accept_loss(why="a test"),
    "erase": lambda store, _: store.erase("agent_data", "1"),
    "erase, dry run": lambda store, _: store.erase("agent_data", "1", dry_run=True),
    "clock": lambda store, _: store.clock(),
    "confirm_clock": lambda store, _: store.confirm_clock(),
    "push": lambda store, _: store.push(DSN),
    "push, dry run": lambda store, _: store.push(DSN, dry_run=True),
    "push_watcher": lambda store, _: store.push_watcher(DSN),
    "verify_against": lambda store, _: store.verify_against(DSN),
}

#: Methods that need no store: they make one, or say whether there is one, or have nothing to do with one.
WITHOUT_STORE = {
    "shard", "line_writer", "import_", "watching", "init", "exists", "has_shards", "has_master", "pushed_ranges",
}  # fmt: skip

#: The arguments of each verb, with ROOT for the path and OUT for a folder for new files.
VERBS: list[list[str]] = [
    ["merge", "ROOT"],
    ["merge", "ROOT", "-q", "--lock-wait", "1"],
    ["merge", "ROOT", "--dry-run"],
    ["merge", "ROOT", "--from", "OUT/../data/master.db"],
    ["merge", "ROOT", "--watch"],
    ["merge", "ROOT", "--max-bytes", "100M"],
    ["status", "ROOT"],
    ["tables", "ROOT"],
    ["status", "ROOT", "--watch"],
    ["status", "ROOT", "--html", "OUT/page.html"],
    ["verify", "ROOT"],
    ["query", "ROOT", "select 1"],
    ["query", "ROOT", "select 1", "--fresh"],
    ["shell", "ROOT", "select 1"],
    ["snapshot", "ROOT", "OUT/copy.db"],
    ["restore", "ROOT", "OUT/../data/master.db", "--yes"],
    ["restore", "ROOT", "OUT/../data/master.db", "--dry-run"],
    ["export", "ROOT", "OUT/bundle.db"],
    ["ranges", "ROOT"],
    ["receipt", "ROOT", "OUT/hub.json"],
    ["prune", "ROOT", "--keep-rows", "0"],
    ["prune", "ROOT", "--keep-rows", "0", "--dry-run"],
    ["prune", "ROOT", "--drop-table", "--table", "agent_data"],
    ["rejected", "ROOT"],
    ["rejected", "ROOT", "--dismiss", "--why", "a test"],
    ["forget-peer", "ROOT", "aa" * 16],
    ["accept-loss", "ROOT", "--why", "a test"],
    ["erase", "ROOT", "agent_data", "--where", "1"],
    ["clock", "ROOT"],
    ["clock", "ROOT", "--confirm"],
    ["push", "ROOT", DSN],
    ["push", "ROOT", DSN, "--watch"],
    ["salvage", "ROOT", "OUT/../data/shards/door.db"],
]

VERBS_WITHOUT_STORE = {"init", "write", "import", "help", "completion"}


def test_each_method_and_verb_is_in_the_tables() -> None:
    """Add a new one to the tables above: whatever reads or merges must refuse a path that is not a store."""
    public = {name for name, _ in inspect.getmembers(edgeshard.Store, callable) if not name.startswith("_")}
    assert public == {name.partition(",")[0].partition(" ")[0] for name in METHODS} | WITHOUT_STORE
    assert set(cli.verbs.VERBS) == {verb[0] for verb in VERBS} | VERBS_WITHOUT_STORE


# -- rows: kinds of paths ---------------------------------------------------------------------------------------------


def _folder(path: Path, *files: str) -> Path:
    path.mkdir()
    for name in files:
        (path / name).write_bytes(b"x")
    return path


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # an absolute path may be too long for a socket
    return path


#: Makes the path in the place; and what the message must contain, with PLACE for the place.
KINDS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "mistyped": (lambda at: at / "dta", ["there is no such folder. Did you mean PLACE/data?", "`edgeshard init PLACE/dta`"]),
    "mistyped case": (lambda at: at / "Data", ["Did you mean PLACE/data?"]),
    "mistyped folder above": (
        lambda at: at.parent / "plaec" / "data",
        ["there is no such folder: ", "plaec does not exist. Did you mean PLACE/data?"],
    ),
    "nothing like it": (lambda at: at / "zzz" / "q", ["there is no such folder: PLACE/zzz does not exist. An agent makes"]),
    "space in the name": (lambda at: at / "my store", ["`edgeshard init 'PLACE/my store'`"]),
    "its master": (lambda at: at / "data" / "master.db", ["it is the master of the store PLACE/data", "PLACE/data. Give the store's folder: PLACE/data"]),
    "its shards": (lambda at: at / "data" / "shards", ["it is the folder of the shards of the store PLACE/data"]),
    "its shards, with a slash": (lambda at: at / "data" / "shards" / ".", ["the folder of the shards of the store PLACE/data"]),
    "its shard": (lambda at: at / "data" / "shards" / "door.db", ["it is a shard of the store PLACE/data"]),
    "a missing shard": (
        lambda at: at / "data" / "shards" / "window.db",
        ["it does not exist, and would be a shard of the store PLACE/data"],
    ),
    "below a file of it": (lambda at: at / "data" / "master.db" / "x", ["there is no such folder"]),
    "the folder above": (lambda at: at, ["it is not a store", "Did you mean PLACE/data?"]),
    "a folder in the store": (lambda at: _folder(at / "data" / "x"), ["it is an empty folder", "Did you mean PLACE/data?"]),
    "empty": (lambda at: _folder(at / "new"), ["it is an empty folder, and not a store", "it is not mounted", "`edgeshard init PLACE/new`"]),
    "empty, with a near name": (lambda at: _folder(at / "data2"), ["it is an empty folder", "Did you mean PLACE/data?"]),
    "loose shards": (
        lambda at: _folder(at / "usb", "door.db", "door.db-wal", "window.db"),
        ["has no folder shards and no master.db, but databases: door.db, window.db", "PLACE/usb/door.db (Store.merge, `edgeshard merge`)"],
    ),
    "other files": (lambda at: _folder(at / "home", "x.txt"), ["it is not a store: it has no folder shards and no master.db. "]),
    "a file called shards": (lambda at: _folder(at / "odd", "shards"), ["it is not a store"]),
    "a file": (lambda at: _folder(at / "usb", "copy.db") / "copy.db", ["it is a file, and a store is a folder", "PLACE/usb/copy.db (Store.merge, `edgeshard merge`)"]),
    "a fifo": (lambda at: _fifo(at / "pipe"), ["it is not a folder"]),
    "a socket": (lambda at: _socket(at / "socket"), ["it is not a folder"]),
    "a dangling link": (
        lambda at: _link(at / "link", "/not/mounted/data"),
        ["PLACE/link: it is a symbolic link to /not/mounted/data, which does not exist. Mount the disk"],
    ),
    "a link to itself": (lambda at: _link(at / "link", "link"), ["it is a symbolic link that leads back to itself"]),
    "a link to another folder": (lambda at: _link(at / "link", str(_folder(at / "new"))), ["PLACE/new: it is an empty folder"]),
    "a link to the shards": (lambda at: _link(at / "link", "data/shards"), ["the folder of the shards of the store PLACE/data"]),
}  # fmt: skip


def _expected(texts: list[str], place: Place) -> list[str]:
    return [text.replace("PLACE", str(place.folder)) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_no_method_takes_a_path_that_is_not_a_store_and_none_creates_anything(kind: str, place: Place) -> None:
    make, texts = KINDS[kind]
    out = _folder(place.folder / "out")
    (out / "hub.json").write_text(place.data.ranges().to_json())
    path = make(place.folder)
    before = tree(place.folder.parent)
    for name, call in METHODS.items():
        with pytest.raises(ConfigurationError) as caught:
            call(edgeshard.Store(path), out)
        for text in _expected(texts, place):
            assert text in str(caught.value), name
        assert before == tree(place.folder.parent), name
    assert (False, False) == (edgeshard.Store(path).exists(), edgeshard.Store(path).has_master())
    assert before == tree(place.folder.parent)


@pytest.mark.parametrize("kind", KINDS)
def test_no_verb_takes_a_path_that_is_not_a_store_and_none_creates_anything(
    kind: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    make, texts = KINDS[kind]
    out = _folder(place.folder / "out")
    (out / "hub.json").write_text(place.data.ranges().to_json())
    path = make(place.folder)
    before = tree(place.folder.parent)
    for verb in VERBS:
        arguments = [each.replace("ROOT", str(path)).replace("OUT", str(out)) for each in verb]
        code = cli.main(arguments)
        shown = capsys.readouterr()
        assert (78, "", 1) == (code, shown.out, shown.err.count("\n")), (verb, shown.err)
        for text in _expected(texts, place):
            assert text in shown.err, verb
        assert before == tree(place.folder.parent), verb


@pytest.mark.parametrize("given", [".", "./", "../shards", "../../data/shards/"])
def test_a_relative_path_is_judged_by_where_it_leads(place: Place, given: str) -> None:
    done = command("merge", given, cwd=place.data.root / "shards")
    assert (78, "") == (done.returncode, done.stdout)
    assert f"it is the folder of the shards of the store {place.data.root}" in done.stderr


def test_several_stores_that_may_be_meant_are_named(place: Place) -> None:
    for name in ("data1", "data2", "other"):
        edgeshard.Store(place.folder / name).init()
    with pytest.raises(ConfigurationError) as caught:
        edgeshard.Store(place.folder / "data3").merge()
    named = str(caught.value).partition("Did you mean ")[2].partition("?")[0].split(" or ")
    assert {str(place.folder / name) for name in ("data", "data1", "data2")} == set(named)


@pytest.mark.slow
def test_a_store_that_may_not_be_looked_into_is_a_matter_of_permissions(place: Place) -> None:
    place.data.root.chmod(0)
    before = tree(place.folder) if os.geteuid() == 0 else None
    arguments = [sys.executable, "-m", "edgeshard"]
    if os.geteuid() == 0:  # may read what nobody may, unless these rights are given up
        arguments = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *arguments]
    try:
        for verb in (["merge"], ["verify"], ["init"], ["prune", "--keep-rows", "0"], ["push", DSN]):
            done = subprocess.run(
                [*arguments, verb[0], place.data.root, *verb[1:]], capture_output=True, text=True, check=False
            )
            assert (77, "") == (done.returncode, done.stdout), done.stderr
            assert "permission denied" in done.stderr
    finally:
        if before is not None:
            assert before == tree(place.folder)
        place.data.root.chmod(0o700)


# -- stores with a part that is not where it should be ----------------------------------------------------------------


def _move_master_and_link(store: edgeshard.Store) -> None:
    elsewhere = _folder(store.root.with_name("elsewhere"))
    shutil.move(store.master_path, elsewhere / "master.db")
    store.master_path.symlink_to(elsewhere / "master.db")


def _replace_master_by_folder(store: edgeshard.Store) -> None:
    store.master_path.unlink()
    store.master_path.mkdir()


def _replace_master_by_fifo(store: edgeshard.Store) -> None:
    store.master_path.unlink()
    os.mkfifo(store.master_path)


@pytest.mark.parametrize(
    ("break_master", "text"),
    [
        (_move_master_and_link, "master.db: it is a symbolic link to PLACE/elsewhere/master.db, and those are not followed"),
        (_replace_master_by_folder, "master.db: it is a folder, and the master is a database"),
        (_replace_master_by_fifo, "master.db: it is not a regular file, and the master is a database"),
    ],
)  # fmt: skip
def test_a_master_that_is_not_a_file_has_a_message_of_its_own(
    break_master: Callable[[edgeshard.Store], None], text: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _folder(place.folder / "out")
    (out / "hub.json").write_text(place.data.ranges().to_json())
    break_master(place.data)
    before = tree(place.folder)
    for name, call in METHODS.items():
        if name in ("ensure_exists", "note_budget", "disk_budget", "watcher", "push_watcher", "salvage"):
            continue
        with pytest.raises(EdgeshardError) as caught:
            result = call(edgeshard.Store(place.data.root), out)
            list(result) if inspect.isgenerator(result) else None
        assert isinstance(caught.value, ConfigurationError), (name, caught.value)
        if not name.startswith("restore"):  # it replaces the master, and says what to do with what is in its place
            assert text.replace("PLACE", str(place.folder)) in str(caught.value), name
        assert before == tree(place.folder), name
    for verb in (["merge"], ["status"], ["verify"], ["prune", "--keep-rows", "0"], ["query", "select 1"]):
        code = cli.main([verb[0], str(place.data.root), *verb[1:]])
        assert (78, True) == (code, text.replace("PLACE", str(place.folder)) in capsys.readouterr().err), verb
        assert before == tree(place.folder), verb


def test_a_folder_of_shards_on_a_disk_that_is_not_mounted_is_not_taken_for_an_empty_one(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(place.data.root / "shards", place.folder / "disk")
    (place.data.root / "shards").symlink_to(place.folder / "disk")
    assert 1 == place.data.status().pending_rows
    shutil.move(place.folder / "disk", place.folder / "unmounted")
    before = tree(place.folder, times=False)
    text = f"shards: it is a symbolic link to {place.folder / 'disk'}, which does not exist"
    attempts: list[Callable[[], object]] = [
        place.data.merge, lambda: place.data.merge(dry_run=True), place.data.merge_now, place.data.status,
        lambda: place.data.shard("door"), place.data.watcher().open, lambda: place.data.watching().__enter__(),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(ConfigurationError, match="which does not exist") as caught:
            attempt()
        assert text in str(caught.value)
        assert before == tree(place.folder, times=False)
    assert 78 == cli.main(["merge", str(place.data.root)])
    assert 78 == cli.main(["status", str(place.data.root)])
    capsys.readouterr()
    assert place.data.verify().ok  # the master is there
    assert before == tree(place.folder, times=False)


@pytest.mark.parametrize("links", [{"shards": "shards"}, {"shards": "other", "other": "shards"}], ids=["one", "two"])
def test_a_folder_of_shards_that_is_a_link_back_to_itself_is_refused(
    links: dict[str, str], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    root = place.data.root
    shutil.rmtree(root / "shards")
    for name, target in links.items():
        (root / name).symlink_to(target)
    before = tree(place.folder, times=False)
    text = f"{root / 'shards'}: it is a symbolic link that leads back to itself; correct it (`ln -sfn FOLDER {root / 'shards'}`)"
    attempts: list[Callable[[], object]] = [
        place.data.merge, lambda: place.data.merge(dry_run=True), place.data.merge_now, place.data.status,
        place.data.has_shards, lambda: place.data.shard("door"), lambda: place.data.shard("door", durability="power"),
        place.data.watcher().open, lambda: place.data.watching().__enter__(),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(ConfigurationError) as caught:
            attempt()
        assert text in str(caught.value)
        assert before == tree(place.folder, times=False)
    for verb in (["merge", root], ["merge", root, "--watch"], ["status", root], ["write", root, "door", "{}"]):
        code = cli.main(list(map(str, verb)))
        shown = capsys.readouterr()
        assert (78, True, 1) == (code, text in shown.err, shown.err.count("\n")), (verb, shown.err)
        assert before == tree(place.folder, times=False)


def test_a_store_may_be_given_by_a_link_and_may_keep_its_shards_elsewhere(place: Place) -> None:
    link = _link(place.folder / "link", "data")
    assert 1 == edgeshard.Store(link).merge().rows


# -- a folder of shards on another disk -------------------------------------------------------------------------------


def _listed_by_shell(store: edgeshard.Store) -> str:
    out = io.StringIO()
    with store.shell() as shell:
        shell.stdout = out
        shell.process_command(".shards")
        shell.process_sql("select count(*) from agent_data")
    return out.getvalue()


def _replaced_and_back(store: edgeshard.Store, out: Path) -> object:
    store.snapshot(out / "copy.db")
    store.merge()
    return attrs.evolve(store.restore(out / "copy.db"), replaced=""), store.merge().rows, store.status()


def _watched(store: edgeshard.Store) -> object:
    with store.watching(), store.shard("door") as shard:
        shard.write({"n": 3})
    return store.status()


#: What only a store with something in its shards shows, in addition to `METHODS`.
ON_SHARDS: dict[str, Callable[[edgeshard.Store, Path], object]] = {
    "erase of what is pending": lambda store, _: store.erase("agent_data", "data ->> 'n' > 1"),
    "erase of what is pending, dry run": lambda store, _: store.erase("agent_data", "data ->> 'n' > 1", dry_run=True),
    "shell, .shards": lambda store, _: _listed_by_shell(store),
    "import of a shard": lambda store, _: store.import_(store.root / "shards" / "door.db"),
    "import of a shard, dry run": lambda store, _: store.import_(store.root / "shards" / "door.db", dry_run=True),
    "restore of a snapshot": _replaced_and_back,
    "salvage of a shard": lambda store, _: (store.salvage(store.root / "shards" / "door.db"), store.status()),
    "merge of a shard": lambda store, _: store.merge([store.root / "shards" / "door.db"]),
    "merge of a shard, dry run": lambda store, _: store.merge([store.root / "shards" / "door.db"], dry_run=True),
    "merge within a budget": lambda store, _: edgeshard.Store(store.root, max_bytes="100M").merge(),
    "prune after a merge": lambda store, _: (store.merge(), store.prune(keep_rows=0), store.prune(forget_after=0)),
    "has_shards": lambda store, _: (store.has_shards(), store.exists(), store.init(), store.status()),
    "watching": lambda store, _: _watched(store),
}


def _shown(result: object, folder: Path) -> str:
    """Return a result without what differs from call to call: times, random ids, and where the folder is."""
    if inspect.isgenerator(result):
        result = list(result)
    text = result if isinstance(result, str) else repr(result)
    text = text.replace(str(folder / "disk"), "PLACE/data/shards").replace(str(folder), "PLACE")
    text = re.sub(r"datetime\.datetime\([^)]*\)+|\b\d+\.\d+(e-\d+)?\b|\b\d+ ?(ms|s|us)\b", "TIME", text)
    text = re.sub(r"[ ─]+", " ", text)  # columns are as wide as what is in them
    text = re.sub(r"today_bytes=\d+, bytes=\d+", "BYTES", text)  # the kernel counts what the process writes
    return re.sub(r"\b[0-9a-f]{32,64}\b|0x[0-9a-f]+|\.[0-9a-f]{8,16}\b|\d+-\d+-\d+T[\d:.+Z-]+", "ID", text)


def _outcome(call: Callable[[], object], folder: Path) -> str:
    try:
        return _shown(call(), folder)
    except EdgeshardError as error:
        return _shown(f"{type(error).__name__}: {error}", folder)


def _link_shards(place: Place) -> None:
    shutil.move(place.data.root / "shards", place.folder / "disk")
    (place.data.root / "shards").symlink_to(place.folder / "disk")


@pytest.fixture
def twins(original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Place]:
    """Two copies of the place; the shards of the second one are on another disk."""
    folder = tmp_path_factory.mktemp("t")  # reports shorten long paths
    plain, linked = (Place(folder / name / "p") for name in ("a", "b"))
    for place in (plain, linked):
        shutil.copytree(original, place.folder)
        out = _folder(place.folder / "out")
        (out / "hub.json").write_text(place.data.ranges().to_json())
    _link_shards(linked)
    return plain, linked


@pytest.mark.parametrize("name", others_slow([*METHODS, *ON_SHARDS], ON_SHARDS))
def test_a_store_with_linked_shards_does_what_any_store_does(name: str, twins: tuple[Place, Place]) -> None:
    call = (METHODS | ON_SHARDS)[name]
    plain, linked = (_outcome(partial(call, place.data, place.folder / "out"), place.folder) for place in twins)
    assert plain == linked
    states = [place.data.status().states for place in twins if place.data.has_master()]
    assert states[0] == states[-1]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "--watch" not in verb], ids=" ".join)  # those that end
def test_a_verb_does_the_same_with_linked_shards(
    verb: list[str],
    twins: tuple[Place, Place],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # lines with paths do not break
    found = []
    for place in twins:
        given = {"ROOT": str(place.data.root)}
        arguments = [given.get(word, word.replace("OUT", str(place.folder / "out"))) for word in verb]
        code = cli.main(arguments)
        printed = capsys.readouterr()
        found.append((code, _shown(printed.out, place.folder), _shown(printed.err, place.folder)))
    assert found[0] == found[1]


def test_a_shard_that_is_not_mounted_keeps_its_stream(place: Place) -> None:
    place.data.merge(keep_empty=True)
    with place.data.shard("window") as shard:  # the highest number stays
        shard.write({"n": 1})
    place.data.merge()
    _link_shards(place)
    shutil.move(place.folder / "disk", place.folder / "unmounted")
    assert 3 == place.data.prune(keep_rows=0).rows
    retired = "select sum(streams) from _edgeshard_retirements"
    assert [(None,)] == place.data.query(retired)
    shutil.move(place.folder / "unmounted", place.folder / "disk")
    place.data.merge()
    place.data.prune(shrink=True)
    assert [(1,)] == place.data.query(retired)


# -- a store without a master -----------------------------------------------------------------------------------------


@pytest.fixture
def unmerged(tmp_path: Path) -> edgeshard.Store:
    """A store to which an agent has written, before the first merge."""
    store = edgeshard.Store(tmp_path / "data")
    with store.shard("door") as shard:
        shard.write({"n": 1})
    return store


def test_reading_a_store_that_was_never_merged_finds_nothing_and_creates_nothing(unmerged: edgeshard.Store) -> None:
    before = tree(unmerged.root, times=False)
    assert [] == unmerged.query("select * from agent_data")
    assert [] == list(unmerged.read(edgeshard.AgentData))
    assert [] == list(unmerged.read(Row))
    assert [("n",)] == list(unmerged.query_rows("select 1 as n where false"))
    with unmerged.shell() as shell:
        assert shell.db.execute("select count(*) from agent_data").fetchall() == [(0,)]
    assert 1 == unmerged.status().pending_rows
    assert 0 == unmerged.prune(keep_rows=0).rows
    assert 0 == unmerged.prune(keep_rows=0, dry_run=True).rows
    assert 1 == unmerged.merge(dry_run=True).rows
    assert before == tree(unmerged.root, times=False)


@pytest.mark.parametrize(
    "sql", ["insert into agent_data(data) values ('{}')", "create table t(x)", "drop table agent_data"]
)
def test_a_query_before_the_first_merge_only_reads(unmerged: edgeshard.Store, sql: str) -> None:
    with pytest.raises(edgeshard.QueryError, match="A query only reads"):
        unmerged.query(sql)


@pytest.mark.parametrize("method", ["verify", "snapshot", "export", "ranges"])
def test_what_is_about_the_master_says_that_there_is_none_yet(
    unmerged: edgeshard.Store, tmp_path: Path, method: str
) -> None:
    before = tree(tmp_path)
    with pytest.raises(ConfigurationError, match=r"there is no master yet; Store\.merge makes it \(`edgeshard merge"):
        METHODS[method](unmerged, tmp_path)
    assert before == tree(tmp_path)


# -- read-only media --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["verify", "status", "merge", "init", "ranges"])
def test_on_a_read_only_medium_a_mistyped_path_says_the_same(small_disk: Path, verb: str) -> None:
    edgeshard.Store(small_disk / "data").init()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = command(verb, small_disk / "dta")
    if verb == "init":
        assert (77, "") == (done.returncode, done.stdout)
        assert "read-only medium" in done.stderr
    else:
        assert (78, "") == (done.returncode, done.stdout)
        assert f"Did you mean {small_disk / 'data'}?" in done.stderr


def test_a_store_on_a_read_only_medium_can_be_read_and_is_not_merged(small_disk: Path) -> None:
    edgeshard.Store(small_disk / "other").init()
    store = edgeshard.Store(small_disk / "data")
    store.root.mkdir()
    edgeshard.Store(small_disk / "other").snapshot(store.master_path)  # a WAL database needs a folder it can write to
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert [] == store.query("select * from agent_data")
    assert store.verify().ok
    assert 0 == len(store.status().shards)
    with pytest.raises(edgeshard.EdgeshardError, match="read-only"):
        store.merge()


# -- writers and init -------------------------------------------------------------------------------------------------


def test_writers_and_watching_make_the_store(tmp_path: Path) -> None:
    with edgeshard.Store(tmp_path / "a" / "b").shard("door") as shard:
        shard.write({"n": 1})
    assert edgeshard.Store(tmp_path / "a" / "b").merge().rows == 1
    watched = edgeshard.Store(tmp_path / "watched", max_bytes="100M")
    with watched.watching(), watched.shard("door") as shard:
        shard.write({"n": 1})
    assert [(1,)] == watched.query("select count(*) as rows from agent_data")


def test_a_program_may_merge_a_store_that_agents_have_just_made(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    with store.shard("door"):
        assert 0 == store.merge().rows


def test_a_budget_does_not_make_a_store_of_a_mistyped_path(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "typo", max_bytes="100M")
    for attempt in (store.merge, store.merge_now, store.verify, store.watcher):
        with pytest.raises(ConfigurationError, match="no such folder"):
            attempt()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("root", ["data", "a/b/data", "empty", "mount"])
def test_init_makes_a_store_that_every_verb_takes(tmp_path: Path, root: str) -> None:
    _folder(tmp_path / "empty")
    _folder(_folder(tmp_path / "mount") / "lost+found")
    made = command("init", tmp_path / root)
    assert (0, f"made the store {tmp_path / root}\n", "") == (made.returncode, made.stdout, made.stderr)
    store = edgeshard.Store(tmp_path / root)
    assert [] == store.query("select * from agent_data")
    assert store.verify().ok
    assert {} == dict(store.ranges().streams)
    assert 0 == store.merge().rows
    before = tree(tmp_path)
    again = command("init", tmp_path / root)
    assert (0, f"{tmp_path / root} is a store already; nothing was changed\n") == (again.returncode, again.stdout)
    assert before == tree(tmp_path)


def test_a_dry_run_of_init_makes_nothing(place: Place) -> None:
    before = tree(place.folder)
    report = edgeshard.Store(place.folder / "new").init(dry_run=True)
    assert (True, True) == (report.created, report.dry_run)
    assert "would make the store" in command("init", place.folder / "new", "--dry-run").stdout
    assert not place.data.init(dry_run=True).created
    assert before == tree(place.folder)


@pytest.mark.parametrize(
    "kind",
    ["its master", "its shards", "its shard", "a missing shard", "a file", "a fifo", "a dangling link", "a link to itself",
     "a link to the shards"],
)  # fmt: skip
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_init_refuses_what_cannot_be_a_store(
    kind: str, options: list[str], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    make, texts = KINDS[kind]
    path = make(place.folder)
    before = tree(place.folder)
    assert 78 == cli.main(["init", str(path), *options])
    shown = capsys.readouterr()
    assert _expected(texts, place)[0] in shown.err
    assert "Choose another path" in shown.err
    assert before == tree(place.folder)


def test_an_init_that_was_killed_is_completed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = edgeshard.Store(tmp_path / "data")

    class KilledError(Exception):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    steps = ((folders, "make_folder"), (locks, "merge_lock"), (database, "ensure_master"))
    for module, name in steps:
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(module, name, killed)
            store.init()
    store.init()
    assert store.merge().complete
    assert store.verify().ok


def test_a_service_makes_the_store_only_if_told_to(tmp_path: Path) -> None:
    done = command("merge", tmp_path / "data", "--init")
    assert (2, True) == (done.returncode, "--init: requires --watch" in done.stderr)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeshard", "merge", tmp_path / "data", "--watch", "--init", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not edgeshard.Store(tmp_path / "data").exists():
            assert process.poll() is None
        with edgeshard.Store(tmp_path / "data").shard("door") as shard:
            shard.write({"n": 1})
        assert process.stdout is not None
        assert '"rows": 1' in process.stdout.readline()
    finally:
        process.terminate()
        assert 0 == process.wait(60)
        process.communicate()
