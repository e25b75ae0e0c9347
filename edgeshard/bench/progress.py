"""Show the progress of a run on the terminal."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.trials import Trial

_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """A line on the terminal that says what is being measured; silent if the stream is not a terminal.

    Args:
        stream: where to show it.
        total: number of trials and curves of the run.
        is_quiet: show nothing.
    """

    def __init__(self, stream: TextIO, total: int, *, is_quiet: bool) -> None:
        self._stream = stream
        self._total = total
        self._is_shown = stream.isatty() and not is_quiet
        self._began = time.monotonic()

    def show_trial(self, trial: Trial, completed: int) -> None:
        """Show the trial that begins now."""
        self.show(f"{SYSTEMS[trial.system].title}, {trial.workload.durability}, {trial.workload}", completed)

    def show(self, text: str, completed: int) -> None:
        """Show what begins now, after `completed` other measurements."""
        if self._is_shown:
            line = f"{completed + 1} of {self._total}{self._remaining(completed)}: {text}"
            self._write(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])

    def _remaining(self, completed: int) -> str:
        if not completed:
            return ""
        seconds = (time.monotonic() - self._began) / completed * (self._total - completed)
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"

    def clear(self) -> None:
        """Clear the line."""
        if self._is_shown:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
