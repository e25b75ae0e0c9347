"""Run ``python -m edgeshard``, which is the same as ``edgeshard``."""

from __future__ import annotations

import sys

from edgeshard.cli import main

if __name__ == "__main__":
    sys.exit(main())
