"""``python -m edgeshard.merge``: the same as ``edgeshard merge``, for those who have only the interpreter."""

from __future__ import annotations

import sys

from edgeshard.cli import main_of_merge as main

if __name__ == "__main__":
    sys.exit(main())
