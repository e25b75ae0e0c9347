"""Run ``python -m edgeshard.merge``, which is the same as ``edgeshard merge``."""

from __future__ import annotations

import sys

from edgeshard.cli import main_of_merge as main

if __name__ == "__main__":
    sys.exit(main())
