"""Damage shards at random, merge them, and check that a merge never takes rows that were not written.

Real shards of several kinds are damaged in many ways, and each is merged together with a sound one. The worker is a
separate process (``python -m tests.support.damaged_shards SEED FIRST END``). A trial that takes longer than a minute is
a hang, and ends it; if it dies by itself, that is a crash.

A seed damages the same places in the same way each time. (Only the salts of SQLite's WALs differ from run to run.)
"""

from __future__ import annotations

import datetime
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import apsw
import attrs

import edgeshard
from edgeshard.sqlite import quote
from tests.support.hostile_shards import remade
from tests.support.project import PROJECT
from tests.support.stores import contradictions

TRIAL_TIMEOUT_S = 60.0

#: Outcomes that a damaged file must never have.
FAULTS = ("crash", "hang", "error", "sound one not merged", "master unsound", "invented rows", "doubled rows")

Rows = dict[tuple[str, int], tuple[Any, ...]]


@attrs.frozen
class Sample:
    """A row with a column of each storage class."""

    name: str
    value: float
    count: int
    raw: bytes
    maybe: str | None = None


@attrs.frozen
class Image:
    """A shard before it is damaged: its file, its WAL, and the rows ever written to it, by address."""

    kind: str
    database: bytes
    log: bytes
    rows: Rows


# -- shards that are to be damaged ------------------------------------------------------------------------------------


def images(seed: int) -> list[Image]:
    """Create shards of all kinds."""
    rng = random.Random(seed)
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda zone: now), UTC=datetime.UTC)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("edgeshard.shard.shard.secrets.token_bytes", rng.randbytes),
        mock.patch("edgeshard.shard.inserts.time.time", partial(rng.uniform, 1.7e9, 1.8e9)),
        mock.patch("edgeshard.shard.shard.datetime", clock),
    ):
        return [_image(Path(folder) / kind.__name__, kind, rng) for kind in KINDS]


def _image(root: Path, kind: Callable[[edgeshard.Store, random.Random], edgeshard.Shard], rng: random.Random) -> Image:
    store = edgeshard.Store(root)
    shard = kind(store, rng)
    path = Path(shard.path)
    log = path.with_name(path.name + "-wal")
    found = path.read_bytes(), log.read_bytes() if log.exists() else b""
    shard.close()
    store.merge()
    return Image(kind.__name__, *found, rows_of(store))


def _dicts(rng: random.Random, count: int, payload_bytes: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {"n": n, "payload": rng.randbytes(payload_bytes // 2).hex()}


def live_log(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard with all rows in the WAL."""
    shard = store.shard("bad")
    for record in _dicts(rng, 120, 80):
        shard.write(record)
    return shard


def closed(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard with all rows in the file, and no WAL."""
    with store.shard("bad") as shard:
        shard.write_many(_dicts(rng, 200, 80))
    return shard


def both(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard with the rows of one stream in the file, and those of another in the WAL."""
    closed(store, rng)
    shard = store.shard("bad")
    for record in _dicts(rng, 60, 80):
        shard.write(record)
    return shard


def truncated(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard that was truncated by a merge, and written to afterwards."""
    closed(store, rng)
    store.merge(keep_empty=True)
    shard = store.shard("bad")
    for record in _dicts(rng, 60, 80):
        shard.write(record)
    shard.close()
    return shard


def several_tables(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard with rows of two tables with columns of all types, in transactions."""
    with store.shard("bad") as shard:
        for n, record in enumerate(_dicts(rng, 40, 40)):
            with shard.transaction():
                shard.write(record)
                shard.write(Sample(f"sample {n}", rng.random(), rng.getrandbits(40), rng.randbytes(24), None))
                shard.write(Sample("x" * n, -rng.random(), -n, b"", rng.randbytes(8).hex()))
    return shard


def overflow(store: edgeshard.Store, rng: random.Random) -> edgeshard.Shard:
    """Create a shard with rows larger than a page."""
    with store.shard("bad") as shard:
        shard.write_many(_dicts(rng, 12, 9_000))
    return shard


KINDS = (live_log, closed, both, truncated, several_tables, overflow)


def rows_of(store: edgeshard.Store) -> Rows:
    """Return the table and values of each row of a master, by address, as the stream's agent wrote them.

    Raises:
        AssertionError: two rows have one address.
    """
    connection = apsw.Connection(str(store.master_path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        streams = dict(connection.execute("select stream_no, hex(stream_id) from _edgeshard_streams"))
        found: Rows = {}
        listed = connection.execute("select table_name, column_name from _edgeshard_columns order by 1, 2").fetchall()
        for table in sorted({str(name) for name, _ in listed}):
            columns = [str(column) for name, column in listed if name == table]
            # as bytes: a text may no longer be UTF-8
            values = ", ".join(f"typeof({quote(column)}), cast({quote(column)} as blob)" for column in columns)
            for number, seq, *row in connection.execute(f"select _stream, _seq, {values} from {quote(table)}"):
                address = (str(streams[number]), int(seq))
                if address in found:
                    raise AssertionError(f"{address} is doubled")
                # a column that another version added says nothing about this row
                given = [(c, *row[2 * i : 2 * i + 2]) for i, c in enumerate(columns) if row[2 * i] != "null"]
                found[address] = (table, *given)
        return found
    finally:
        connection.close()


# -- damage -----------------------------------------------------------------------------------------------------------


def _flip(content: bytes, rng: random.Random, low: int = 0, high: int | None = None) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[rng.randrange(low, high or len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    length = rng.randint(1, min(4096, len(content) - start))
    if rng.random() < 0.5:  # a sector
        start, length = start // 512 * 512, 512
    filling = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return (content[:start] + filling + content[start + length :])[: len(content)]


def _pages(content: bytes) -> list[bytes]:
    return [content[start : start + 1024] for start in range(0, len(content), 1024)]


Files = tuple[bytes, bytes]
Damage = Callable[[Image, list[Image], random.Random], Files]


def flipped_bits(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Flip bits anywhere in the file."""
    return _flip(image.database, rng), image.log


def flipped_bits_of_the_log(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Flip bits anywhere in the WAL."""
    return (image.database, _flip(image.log, rng)) if image.log else flipped_bits(image, others, rng)


def flipped_bits_of_the_header(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Flip bits in the first hundred bytes."""
    return _flip(image.database, rng, high=100), image.log


def flipped_bits_of_the_schema(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Flip bits in the rest of the first page."""
    return _flip(image.database, rng, 100, 1024), image.log


def overwritten(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Overwrite some bytes, or a sector, with zeros, ones or noise."""
    return _overwrite(image.database, rng), image.log


def overwritten_log(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Do the same in the WAL."""
    return (image.database, _overwrite(image.log, rng)) if image.log else overwritten(image, others, rng)


def cut(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Cut the end of the file off."""
    length = rng.randrange(1, len(image.database))
    return image.database[: length // 1024 * 1024 if rng.random() < 0.5 else length] or b"S", image.log


def cut_log(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Cut the end of the WAL off, or remove it."""
    return (image.database, image.log[: rng.randrange(len(image.log))]) if image.log else cut(image, others, rng)


def grown(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Append bytes to the file."""
    return image.database + rng.choice((bytes, rng.randbytes))(rng.choice((1, 512, 1024, 65536))), image.log


def swapped_pages(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Swap two pages."""
    pages = _pages(image.database)
    one, other = rng.sample(range(len(pages)), 2)
    pages[one], pages[other] = pages[other], pages[one]
    return b"".join(pages), image.log


def doubled_page(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Write a page to the place of another as well."""
    pages = _pages(image.database)
    one, other = rng.sample(range(len(pages)), 2)
    pages[one] = pages[other]
    return b"".join(pages), image.log


def page_of_another_shard(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Replace a page by one of another file."""
    pages = _pages(image.database)
    pages[rng.randrange(len(pages))] = rng.choice(_pages(rng.choice(others).database))
    return b"".join(pages), image.log


def log_of_another_shard(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Replace the WAL by that of another file."""
    return image.database, rng.choice([other.log for other in others if other.log])


def file_of_another_shard(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Replace the file by another, and keep the WAL."""
    return rng.choice(others).database, image.log


def zero_length(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Empty the file."""
    return b"", image.log if rng.random() < 0.5 else b""


def foreign(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Replace the file by another program's database, or by none; with the WAL, or without."""
    connection = apsw.Connection(":memory:")
    connection.execute("create table t(x, y); insert into t values (1, 'x'), (2, zeroblob(9000))")
    if rng.random() < 0.5:
        connection.pragma("application_id", 0x65646765)
        connection.pragma("user_version", 1)
    content = rng.choice((connection.serialize("main"), rng.randbytes(9_000), b"not a database\n" * 99))
    connection.close()
    return content, image.log if rng.random() < 0.5 else b""


def utf16(image: Image, others: list[Image], rng: random.Random) -> Files:
    """Change the encoding of the database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy"
        path.write_bytes(image.database)
        if image.log:
            path.with_name("copy-wal").write_bytes(image.log)
        remade(path, encoding=rng.choice(("UTF-16le", "UTF-16be")))
        return path.read_bytes(), b""


#: Each way, with how often it is taken.
WAYS: dict[Damage, int] = {
    flipped_bits: 6, flipped_bits_of_the_log: 3, flipped_bits_of_the_header: 1, flipped_bits_of_the_schema: 1,
    overwritten: 3, overwritten_log: 2, cut: 2, cut_log: 2, grown: 1, swapped_pages: 2, doubled_page: 2,
    page_of_another_shard: 2, log_of_another_shard: 2, file_of_another_shard: 1, zero_length: 1, foreign: 1, utf16: 1,
}  # fmt: skip


# -- a trial ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Trial:
    """The outcome of one damaged shard."""

    number: int
    kind: str
    way: str
    outcome: str
    told: bool = False
    detail: str = ""


class Campaign:
    """What all trials of a seed share."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._folder = folder
        self._images = images(seed)
        store = edgeshard.Store(folder / "template")
        store.init()
        with store.shard("good") as shard:
            shard.write_many({"n": n} for n in range(5))

    def play(self, number: int) -> Trial:
        """Damage a shard, and merge it together with a sound one."""
        rng = random.Random(f"{self._seed} {number}")
        image = rng.choice(self._images)
        others = [other for other in self._images if other is not image]
        (way,) = rng.choices([*WAYS], [*WAYS.values()])
        content, log = way(image, others, rng)
        root = self._folder / f"trial-{number}"
        shutil.copytree(self._folder / "template", root)
        for suffix, data in (("", content), ("-wal", log)):
            if data or not suffix:
                (root / "shards" / f"bad.db{suffix}").write_bytes(data)
        written = {address: row for each in self._images for address, row in each.rows.items()}
        try:
            outcome, told, detail = _merged(edgeshard.Store(root), image, written)
        except Exception as error:
            outcome, told, detail = "error", False, f"{type(error).__name__}: {error}"
        shutil.rmtree(root)
        return Trial(number, image.kind, way.__name__, outcome, told, detail)


def _merged(store: edgeshard.Store, image: Image, written: Rows) -> tuple[str, bool, str]:
    """Merge; return the outcome, whether the merge reported a fault, and with which words."""
    report = store.merge()
    again = store.merge()
    told = bool(report.quarantined or report.gaps)
    detail = "; ".join(item.reason for item in report.quarantined)
    verified = store.verify()
    if wrong := contradictions(verified):
        return "master unsound", told, "; ".join(map(str, wrong))
    if again.rows and not told:
        return "error", told, f"a second merge found {again.rows} more rows"
    found = rows_of(store)
    good = sorted(row for row in found.values() if ("agent_id", "text", b"good") in row)
    if len(good) != 5:
        return "sound one not merged", told, detail
    rows = {address: row for address, row in found.items() if ("agent_id", "text", b"good") not in row}
    invented = rows.keys() - written.keys()
    altered = [address for address in rows.keys() & written.keys() if rows[address] != written[address]]
    if invented:
        return "invented rows", told, f"{len(invented)}: {[rows[address] for address in list(invented)[:1]]!r:.400}"
    if altered:
        one = altered[0]
        return "altered rows", told, f"{len(altered)} of {len(rows)}: {rows[one]!r:.300} was {written[one]!r:.300}"
    lacking = image.rows.keys() - rows.keys()
    if not rows:
        return "no row", told, detail
    return ("some rows" if lacking else "all rows"), told, detail


# -- the campaign -----------------------------------------------------------------------------------------------------


def work(seed: int, numbers: Iterable[int]) -> None:
    """Work as the worker: print a line when a trial begins, and one when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(seed, Path(folder))
        for number in numbers:
            print(json.dumps(attrs.asdict(campaign.play(number))), flush=True)


def play(seed: int, numbers: list[int]) -> Iterator[Trial]:
    """Play trials in a worker process, and replace the worker if it dies or hangs."""
    while numbers:
        command = [
            sys.executable,
            "-m",
            "tests.support.damaged_shards",
            str(seed),
            str(numbers[0]),
            str(numbers[-1] + 1),
        ]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdout=-1, stderr=errors, cwd=PROJECT) as worker,
        ):
            assert worker.stdout is not None
            while numbers:
                ready, _, _ = select.select([worker.stdout], [], [], TRIAL_TIMEOUT_S)
                line = worker.stdout.readline() if ready else b""
                if not line.endswith(b"\n"):
                    break
                yield Trial(**json.loads(line))
                numbers = numbers[1:]
            worker.kill()
            code = worker.wait()
            errors.seek(0)
            if numbers:
                detail = f"exit code {code}: {errors.read()[-800:].decode(errors='replace')}"
                yield Trial(numbers[0], "", "", "crash" if ready else "hang", detail=detail)
                numbers = numbers[1:]


def table(trials: Iterable[Trial]) -> str:
    """Format counts by kind of damage and outcome; "told" means quarantined, or reported as a gap."""
    counts: Counter[tuple[str, str]] = Counter()
    ways: Counter[str] = Counter()
    for trial in trials:
        counts[trial.way, f"{trial.outcome}, {'told' if trial.told else 'not told'}"] += 1
        ways[trial.way] += 1
    outcomes = sorted({outcome for _, outcome in counts})
    lines = [["damage", "trials", *outcomes]]
    lines += [[way, str(ways[way]), *(str(counts[way, outcome]) for outcome in outcomes)] for way in sorted(ways)]
    totals = [sum(counts[way, outcome] for way in ways) for outcome in outcomes]
    lines.append(["all", str(sum(ways.values())), *map(str, totals)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    work(int(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
