"""A logging.Handler that sends the log records of many processes to one store.

python examples/log_handler.py [FOLDER]
"""

import logging
import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime

import edgeshard


@edgeshard.table(index=["level"])
@dataclass
class LogLine:
    at: datetime
    level: str
    logger: str
    message: str


class StoreHandler(logging.Handler):
    """Write each log record into the shard of this process, which is opened when the first one comes."""

    shard: edgeshard.Shard

    def __init__(self, store: edgeshard.Store) -> None:
        super().__init__()
        self.store, self.pid = store, 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.pid != os.getpid():  # also after a fork: the parent's shard is not ours
                self.shard, self.pid = self.store.shard(f"log-{os.getpid()}"), os.getpid()
            at = datetime.fromtimestamp(record.created, UTC)
            self.shard.write(LogLine(at, record.levelname, record.name, self.format(record)))  # with its traceback
        except Exception:  # a log record must not end the program that logs it
            self.handleError(record)


def work(number: int) -> None:
    log = logging.getLogger(f"worker.{number}")
    for step in range(50):
        log.info("step %d", step)
    log.error("worker %d ends", number)


if __name__ == "__main__":
    store = edgeshard.Store(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="edgeshard-log-"))
    logging.getLogger("worker").addHandler(StoreHandler(store))
    logging.getLogger("worker").setLevel(logging.INFO)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(work, range(8))
    store.merge()
    for row in store.query("SELECT level, count(*) AS lines FROM log_line GROUP BY level"):
        print(row.level, row.lines, "in", store.root)
