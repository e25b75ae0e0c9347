"""Kill pushers and the PostgreSQL server for a long time; see `tests.crash.kills.pushers`.

python -m tests.campaigns.push_kills --kills 300 --seed 1
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.crash.kills.pushers import play
from tests.support.postgres_server import PgServer


def main() -> None:
    """Kill processes, account for every row, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.push_kills",
        description="Kill pushers and the server, and account for every row.",
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeshard-pg-") as folder:
        Path(folder).chmod(0o711)
        server = PgServer(Path(folder))
        try:
            print(play(server, options.kills, options.seed))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
