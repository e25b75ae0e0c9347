"""Access modes: what edgeshard makes belongs to its owner alone."""

from typing import Final

FILE: Final = 0o600

FOLDER: Final = 0o700
