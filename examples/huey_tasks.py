"""Tasks of huey in four worker processes, each with a shard. In Celery, worker_process_init is the hook to open it.

python examples/huey_tasks.py [FOLDER]
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from huey import SqliteHuey

import edgeshard

if "TASKS_FOLDER" not in os.environ:  # the consumer gets it from this program
    os.environ["TASKS_FOLDER"] = os.path.abspath((sys.argv[1:] or [tempfile.mkdtemp(prefix="edgeshard-huey-")])[0])
FOLDER = Path(os.environ["TASKS_FOLDER"])
FOLDER.mkdir(parents=True, exist_ok=True)
huey = SqliteHuey(filename=str(FOLDER / "queue.db"))  # the queue is huey's own; the results go to the store
store = edgeshard.Store(FOLDER / "data")
shard: edgeshard.Shard


@dataclass
class Result:
    number: int
    square: int


@huey.on_startup()  # type: ignore[untyped-decorator]  # runs in each worker, after the fork
def open_shard() -> None:
    global shard
    shard = store.shard(f"worker-{os.getpid()}")


@huey.task()  # type: ignore[untyped-decorator]
def square(number: int) -> None:
    shard.write(Result(number, number * number))  # committed when it returns


def main() -> None:
    for number in range(100):
        square(number)
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "huey_tasks.huey", "-w", "4", "-k", "process", "-q"]
    with store.watching(), subprocess.Popen(command, cwd=Path(__file__).parent) as consumer:
        while huey.pending_count() and consumer.poll() is None:
            time.sleep(0.05)
        consumer.send_signal(signal.SIGINT)  # it finishes the tasks that have begun
    (count,) = store.query("SELECT count(*) AS rows, count(DISTINCT number) AS tasks FROM result")
    print(f"{count.rows} rows of {count.tasks} tasks in {store.root}")


if __name__ == "__main__":
    import huey_tasks  # huey knows a task by its module, which has this name in the workers

    huey_tasks.main()
