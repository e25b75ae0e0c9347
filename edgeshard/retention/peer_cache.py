"""Keep what peers hold while a prune works, and read it again once another receipt arrived.

A receipt that arrives in the middle of a prune may say that a peer holds less than before. Reading all receipts in each
transaction would take longer than the transaction, and longer with every gap. So they are read before the master is
locked, and then only the list of peers is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from edgeshard.master import receipts
from edgeshard.master.receipts import Peer
from edgeshard.sqlite import Connection

_T = TypeVar("_T")


@attrs.define
class PeerCache(Generic[_T]):
    """A value computed from the receipts of all peers.

    Attributes:
        load: computes it from the master and its peers.
    """

    load: Callable[[Connection, Sequence[Peer]], _T]
    _peers: list[Peer] | None = None
    _value: _T | None = None

    def is_current(self, connection: Connection) -> bool:
        """Return whether the value is as of the caller's transaction: no receipt has arrived since it was read."""
        return self._value is not None and receipts.peers(connection) == self._peers

    def read(self, connection: Connection) -> _T:
        """Return the value as of the caller's transaction, which is best a short read."""
        peers = receipts.peers(connection)
        if self._value is None or peers != self._peers:
            self._peers, self._value = peers, self.load(connection, peers)
        return self._value
