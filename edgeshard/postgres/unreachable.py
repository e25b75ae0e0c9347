"""Keep apart, during a push to a Citus cluster, the streams whose worker does not answer. Pure.

A worker has the rows of some streams, and nothing says beforehand which. When a chunk fails, half as many streams are
sent together, down to one, which is then left out. Each chunk that succeeds doubles the number again. Once all others
are pushed, one of the streams that were left out is tried again; if its worker answers, so are all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from edgeshard.master.streams import Stream
from edgeshard.postgres import plan
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.sqlstate import ServerError

#: More streams than a chunk has.
_ALL: Final = 1 << 32


@attrs.define
class UnreachableStreams:
    """The streams that are left out for the moment, and how many others to send together.

    Attributes:
        error: the last error of a worker, or None if none failed since the last attempt began.
        failures: how many attempts in a row ended with an error of a worker.
    """

    error: ServerError | None = None
    failures: int = 0
    _left_out: dict[bytes, None] = attrs.Factory(dict)
    _limit: int = _ALL
    _is_probe: bool = False

    def without(self, streams: Iterable[Stream]) -> list[Stream]:
        """Return the streams that are not left out."""
        return [stream for stream in streams if stream.stream_id not in self._left_out]

    def only(self, streams: Iterable[Stream]) -> list[Stream]:
        """Return the streams that are left out."""
        return [stream for stream in streams if stream.stream_id in self._left_out]

    def take(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Return the pieces of those streams that may be sent together: the first ones."""
        if self._limit == _ALL:
            return pieces
        first: dict[bytes, None] = {}
        for piece in pieces:
            if len(first) == self._limit:
                break
            first.setdefault(piece.stream.stream_id)
        return [piece for piece in pieces if piece.stream.stream_id in first]

    def add(self, chunk: Iterable[Piece], error: ServerError) -> None:
        """Handle a chunk that failed: send fewer streams together, or leave its only one out."""
        streams = plan.streams_in(chunk)
        self._limit = max(1, len(streams) // 2)
        self._is_probe = False
        self.error = error
        if len(streams) == 1:
            self._left_out[streams[0].stream_id] = None

    def succeed(self) -> None:
        """Handle a chunk that was sent."""
        if self._is_probe:
            self._left_out.clear()
        self._is_probe = False
        self._limit = min(2 * self._limit, _ALL)

    def begin_attempt(self) -> None:
        """Try one stream again."""
        self.failures += 1
        self.error = None
        if self._left_out:
            self._left_out.popitem()
            self._limit = 1
            self._is_probe = True
