"""Run ``python -m edgeshard.merge``, which is the same as ``edgeshard merge``."""

from __future__ import annotations

from edgeshard.cli import main_of_merge, process

if __name__ == "__main__":
    process.run(main_of_merge)
