"""The reason that somebody gives for what cannot be undone: it is recorded in the master."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgeshard.errors import ConfigurationError, quoted

_CHARS_MAX: Final = 1_000

#: What SQLite cannot store in a text.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def checked(given: object, action: str, path: Path) -> str:
    """Return the reason that a caller gave.

    Args:
        given: what should be a text.
        action: what the caller does, for the message.
        path: the master.

    Raises:
        ConfigurationError: it is no text, empty, too long, or contains half of a surrogate pair.
    """
    if isinstance(given, str) and given.strip() and len(given) <= _CHARS_MAX and not _SURROGATE.search(given):
        return given
    cause = f"why must be a text of 1 to {_CHARS_MAX:,} characters, for those who read the report later"
    raise ConfigurationError(action, path, f"{cause}, got {quoted(given)}")
