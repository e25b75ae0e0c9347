"""Kill pushers and the PostgreSQL server, and cut connections, for a long time; see `tests.crash.kills`.

python -m tests.campaigns.push_kills --kills 480 --cuts 2000 --seed 1
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from tests.crash.kills import push_cuts, pushers
from tests.support.postgres_server import PgServer


def main() -> None:
    """Kill processes, cut connections, account for every row, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.push_kills",
        description="Kill pushers and the server, or cut their connections, and account for every row.",
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cuts", type=int, default=0, help="how often to cut a connection, at least")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    show = partial(print, flush=True)  # what was done so far, because a campaign takes long
    with tempfile.TemporaryDirectory(prefix="edgeshard-pg-") as folder:
        Path(folder).chmod(0o711)
        server = PgServer(Path(folder))
        try:
            if options.kills:
                pushers.play(server, options.kills, options.seed, progress=show)
            if options.cuts:
                push_cuts.play(server, options.cuts, options.seed, progress=show)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
