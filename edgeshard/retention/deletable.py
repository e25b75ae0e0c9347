"""Find out which seqs the rules allow to delete, because of who wrote them or who else holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeshard.format.ranges import Range
from edgeshard.master import receipts, streams
from edgeshard.master.receipts import Peer
from edgeshard.retention.peer_cache import PeerCache
from edgeshard.retention.rules import Rules
from edgeshard.sqlite import Connection

Seqs = Mapping[int, Sequence[Range]]


class DeletableSeqs:
    """The seqs that a prune by these rules may delete.

    Args:
        rules: the rules.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._of_unprotected: Seqs | None = None
        self._protected: set[int] | None = None
        self._held_by_peers = PeerCache(self._load_held_by_peers)

    def protected_streams(self, connection: Connection) -> set[int]:
        """Return the numbers of the streams of protected agents, as of the first call; see `read`."""
        if self._protected is None:
            self._protected = streams.numbers_of_agents(connection, self._rules.protected_agents)
        return self._protected

    def is_current(self, connection: Connection) -> bool:
        """Return whether what `read` returned last is as of the caller's transaction."""
        if self._rules.protected_agents or self._rules.peer_kinds is None:
            return True
        return self._held_by_peers.is_current(connection)

    def read(self, connection: Connection) -> Seqs | None:
        """Return the seqs by stream number, as of the caller's transaction, or None if all are deletable."""
        if self._rules.protected_agents:
            # read once: what agents deliver during the prune is the newest, and no rule with protected agents wants it
            if self._of_unprotected is None:
                self._of_unprotected = {
                    number: [Range(1, last_seq)]
                    for number, agent, last_seq in streams.last_seqs(connection)
                    if agent not in self._rules.protected_agents
                }
            return self._of_unprotected
        if self._rules.peer_kinds is None:
            return None
        return self._held_by_peers.read(connection)

    def _load_held_by_peers(self, connection: Connection, _: Sequence[Peer]) -> Seqs:
        numbers = streams.numbers_by_id(connection)
        held = receipts.held_elsewhere(connection, self._rules.peer_kinds or ())
        return {numbers[stream_id]: ranges for stream_id, ranges in held.items()}
