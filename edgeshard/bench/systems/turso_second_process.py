"""Open a Turso database that another process has open: ``python -m edgeshard.bench.systems.turso_second_process PATH``.

It prints the class of the error that it gets, or nothing.
"""

from __future__ import annotations

import sys

import turso


def _main(path: str) -> None:
    try:
        turso.connect(path).close()
    except turso.Error as error:
        sys.stdout.write(type(error).__name__)


if __name__ == "__main__":
    _main(sys.argv[1])
