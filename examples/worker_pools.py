"""Workers of multiprocessing.Pool and ProcessPoolExecutor write, forked or spawned: each opens a shard when it starts.

python examples/worker_pools.py [FOLDER] [--start fork|spawn]
"""

import argparse
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import edgeshard

WORKERS, TASKS = 4, 200


@dataclass
class Square:
    pool: str
    number: int
    square: int


shard: edgeshard.Shard  # of this worker; the parent has none


def open_shard(folder: str) -> None:
    """Open this worker's shard; both pools call it once in each worker, after the fork."""
    global shard
    shard = edgeshard.Store(folder).shard(f"worker-{os.getpid()}")


def work(pool: str, number: int) -> None:
    shard.write(Square(pool, number, number * number))  # committed when it returns, even if the worker is then killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=None)
    parser.add_argument("--start", choices=("fork", "spawn"), default="spawn")
    options = parser.parse_args()
    folder = options.folder or tempfile.mkdtemp(prefix="edgeshard-pools-")
    context = multiprocessing.get_context(options.start)

    with context.Pool(WORKERS, open_shard, (folder,)) as pool:
        pool.starmap(work, [("Pool", number) for number in range(TASKS)])
    with ProcessPoolExecutor(WORKERS, context, open_shard, (folder,)) as executor:
        list(executor.map(work, ["ProcessPoolExecutor"] * TASKS, range(TASKS)))

    store = edgeshard.Store(folder)
    store.merge()
    for row in store.query("SELECT pool, count(DISTINCT number) AS tasks FROM square GROUP BY pool"):
        print(f"{row.pool}: {row.tasks} tasks")
    print("the store is", folder)


if __name__ == "__main__":
    main()
