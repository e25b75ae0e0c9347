"""The process of a command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import NoReturn

from edgeshard.cli import exits, output


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its exit code."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while modules are loaded: a verb that runs catches it, and says more
        output.print_error("edgeshard: interrupted")
        sys.exit(exits.INTERRUPTED)
    finally:
        gc.freeze()  # or Python looks for cycles in all that ends now: an eighth of a merge that finds nothing
