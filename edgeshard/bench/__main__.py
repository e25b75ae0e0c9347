"""Entry point of ``python -m edgeshard.bench``."""

from __future__ import annotations

import sys

from edgeshard.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
