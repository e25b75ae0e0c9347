"""How long is an asyncio loop kept from its other tasks while it writes rows?

    python -m tests.benchmarks.bench_asyncio [--seconds N] [--rounds N] [--rate N] [--dir FOLDER]

A task asks the loop to wake it after a millisecond, again and again; how much later it wakes is the lag. Next to it, 20
tasks each write a row now and then, or do everything but that (none), and a merger watches the store in a thread of the
same process. What is compared takes turns, because other processes take processor time, too. It asserts no times.

lag         milliseconds: the median, 99 %, 99.9 %, and the longest
above none  how much longer 99.9 % are than without writes
rows/s      rows written; and how long the await of one took, in milliseconds: the median and 99 %
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

import attrs

import edgeshard

_TICK_S: Final = 0.001

_TASKS: Final = 20

_RECORD: Final = {"action": "opened", "door": 3, "note": "x" * 60}


@attrs.define
class Found:
    """What one way of writing did, in all rounds: lags and durations in seconds."""

    lags: list[float] = attrs.Factory(list)
    waits: list[float] = attrs.Factory(list)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_asyncio",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each turn takes (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="how many turns each has (default: 5)")
    parser.add_argument("--rate", type=float, default=300.0, help="rows a second to attempt (default: 300)")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args()
    print(f"{'':24}   lag: 50 %    99 %  99.9 %     max   above none    rows/s   50 %    99 %")
    durabilities: tuple[Literal["process", "power"], ...] = ("process", "power")
    for durability in durabilities:
        with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
            store = edgeshard.Store(Path(folder) / "data")
            with store.watching(), store.shard("server", durability=durability) as shard:
                asyncio.run(_compare(shard, durability, given.seconds, given.rounds, given.rate))
    return 0


async def _compare(shard: edgeshard.Shard, durability: str, seconds: float, rounds: int, rate: float) -> None:
    async def blocking(record: object) -> object:
        return shard.write(record)

    async def none(record: object) -> object:
        return record

    ways: dict[str, Callable[[object], Awaitable[object]]] = {"none": none, "awrite": shard.awrite, "write": blocking}
    found = {name: Found() for name in ways}
    for _ in range(rounds):
        for name, write in ways.items():
            await _measure(write, found[name], seconds, rate)
    least = _quantile(found["none"].lags, 0.999)
    for name, each in found.items():
        lags = "".join(f"{1e3 * _quantile(each.lags, share):8.2f}" for share in (0.5, 0.99, 0.999, 1.0))
        above = 1e3 * (_quantile(each.lags, 0.999) - least)
        waits = "".join(f"{1e3 * _quantile(each.waits, share):8.2f}" for share in (0.5, 0.99))
        print(
            f"{durability + ', ' + name:24}   {lags}   {above:10.2f}  {len(each.waits) / seconds / rounds:8.0f}{waits}"
        )


async def _measure(write: Callable[[object], Awaitable[object]], found: Found, seconds: float, rate: float) -> None:
    async def writer(number: int) -> None:
        pause_s = _TASKS / rate
        await asyncio.sleep(pause_s * number / _TASKS)
        while True:
            began = time.perf_counter()
            await write(_RECORD)
            found.waits.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, began + pause_s - time.perf_counter()))

    writers = [asyncio.create_task(writer(number)) for number in range(_TASKS)]
    ended = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ended:
        await asyncio.sleep(_TICK_S)
        found.lags.append(time.perf_counter() - began - _TICK_S)
    for task in writers:
        task.cancel()
    await asyncio.gather(*writers, return_exceptions=True)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    raise SystemExit(main())
