"""Twenty processes write at the same time, each into its own shard; one merge brings the rows together.

python examples/twenty_workers.py [FOLDER]
"""

import multiprocessing
import sys
import tempfile

import edgeshard


def work(folder: str, number: int) -> None:
    with edgeshard.Store(folder).shard(f"worker-{number:02}") as shard:  # in the child: a shard must not cross a fork
        for step in range(100):
            shard.write({"step": step})  # committed when it returns


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="edgeshard-twenty-")
    workers = [multiprocessing.Process(target=work, args=(folder, number)) for number in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store = edgeshard.Store(folder)
    store.merge()
    (count,) = store.query("SELECT count(*) AS rows, count(DISTINCT agent_id) AS workers FROM agent_data")
    print(f"{count.rows} rows of {count.workers} workers in {store.master_path}")
