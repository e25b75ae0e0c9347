"""Run ``python -m edgeshard``, which is the same as ``edgeshard``."""

from __future__ import annotations

from typing import NoReturn

from edgeshard.cli import main, process


def run() -> NoReturn:
    """Run ``edgeshard VERB ...`` as this process."""
    process.run(main)


if __name__ == "__main__":
    run()
