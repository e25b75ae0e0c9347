"""Break a push in each way that would lose or double rows, and expect a test of pushes to fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.format.ranges import Range
from edgeshard.postgres import address, own_tables, plan, rejects
from edgeshard.postgres.sender import OutdatedRangesError, Sender, Sent
from edgeshard.postgres.target import Target

pytest.importorskip("psycopg")


from tests.integration.postgres import test_push as tests

pytestmark = pytest.mark.slow

# fixtures of the tests that are run here
proxy = tests.proxy


# -- mutants of a transaction -----------------------------------------------------------------------------------------


def ranges_after_the_rows(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """The ranges are written in a transaction of their own, after the rows'."""
    with self.server.transaction():
        there = lock_and_compare(self, parts, held)
        counts = self.send_rows(parts, tables)
    with self.server.transaction():
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    return Sent(counts, now)


def ranges_before_the_rows(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """The ranges are written in a transaction of their own, before the rows'."""
    with self.server.transaction():
        there = lock_and_compare(self, parts, held)
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    with self.server.transaction():
        counts = self.send_rows(parts, tables)
    return Sent(counts, now)


def ranges_not_compared(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """What is there is believed to be what was planned with."""
    with self.server.transaction():
        streams = plan.streams_in(parts)
        own_tables.lock_streams(self.server, streams)
        there = {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}
        counts = self.send_rows(parts, tables)
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    return Sent(counts, now)


def lock_and_compare(sender: Sender, parts: Sequence[Any], held: Any) -> dict[bytes, list[Range]]:
    """As the real one does."""
    streams = plan.streams_in(parts)
    there = own_tables.held(sender.server, own_tables.lock_streams(sender.server, streams))
    if there != {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}:
        raise OutdatedRangesError(there)
    return there


def the_master_is_held(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """One snapshot of the master lasts for the whole transaction."""
    connection = self.master._connection
    connection.execute("BEGIN")
    sqlite.fetch(connection, "SELECT generation FROM edgeshard_database")
    try:
        return SEND(self, parts, tables, held)
    finally:
        connection.execute("COMMIT")


SEND = Sender.send


# -- mutants of what is there -----------------------------------------------------------------------------------------


def streams_not_locked(server: Any, streams: Sequence[Any]) -> dict[bytes, str]:
    """Who knows a stream already locks it not."""
    for stream in streams:
        known = server.execute(
            "SELECT 1 FROM edgeshard_streams WHERE stream = $1", (own_tables._uuids([stream.stream_id])[0],)
        )
        if not known:
            LOCK(server, [stream])
    return {stream.stream_id: stream.agent_id for stream in streams}


LOCK = own_tables.lock_streams


def streams_locked_and_not_written(server: Any, streams: Sequence[Any]) -> dict[bytes, str]:
    """A stream's row is locked, and not written where it does not change."""
    with mock.patch.object(server, "execute_many"):
        return LOCK(server, streams)


def nothing_learnt_anew(self: Target, streams: Sequence[Any]) -> None:
    """After a connection is lost, what is there is believed to be what it was."""
    held = dict(self.held)
    LEARN(self, streams)
    self.held.update(held)


LEARN = Target.update


def holes_are_held(held: Any, parts: Sequence[Any]) -> dict[bytes, list[Range]]:
    """All up to the last row that was pushed counts as pushed, also what was held back."""
    return {stream_id: [Range(1, ranges[-1].last)] for stream_id, ranges in AFTER(held, parts).items()}


AFTER = plan.held_after


def forgotten_while_away(self: Target) -> Any:
    """What PostgreSQL holds is forgotten before it can be asked again."""
    if self._server is None:
        self.held.clear()
    return CONNECTED(self)


CONNECTED = Target.connect


def divided(parts: Sequence[Any], room: int, transaction_at: Any) -> Any:
    """A writer's transaction is divided where the chunk is full."""
    return CUT(parts, room, None)


CUT = plan.take_chunk


def all_of_it_shown(said: Mapping[str, str]) -> str:
    """The whole DSN is shown."""
    return " ".join(said.values())


def refused_alone(origin: Any, refusals: Any, error: Any) -> Any:
    """The row alone stays behind, and not the writer's transaction."""
    with mock.patch.object(type(origin), "transaction_at", return_value=None):
        return REFUSAL_OF(origin, refusals, error)


REFUSAL_OF = rejects.reject_row

BOTH = {"inserts": False}
AFTER_COMMIT, BEFORE_COMMIT = {**BOTH, "moment": "after"}, {**BOTH, "moment": "before"}

#: What is broken -> what replaces what, the test that finds it, and its arguments.
MUTANTS: dict[str, tuple[list[tuple[Any, str, Any]], Callable[..., None], dict[str, Any]]] = {
    "ranges after the rows": (
        [(Sender, "send", ranges_after_the_rows)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        AFTER_COMMIT,
    ),
    "ranges before the rows": (
        [(Sender, "send", ranges_before_the_rows)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        BEFORE_COMMIT,
    ),
    "ranges neither read anew nor compared": (
        [(Target, "update", nothing_learnt_anew), (Sender, "send", ranges_not_compared)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        AFTER_COMMIT,
    ),
    "ranges not compared": (
        [(Sender, "send", ranges_not_compared)],
        tests.test_a_stream_that_comes_by_two_routes_at_once_arrives_once,
        BOTH,
    ),
    "streams not locked": (
        [(own_tables, "lock_streams", streams_not_locked)],
        tests.test_a_stream_that_comes_by_two_routes_at_once_arrives_once,
        BOTH,
    ),
    "streams locked and not written": (
        [(own_tables, "lock_streams", streams_locked_and_not_written)],
        tests.test_a_server_that_reads_from_one_snapshot_a_transaction_gets_each_row_once,
        BOTH,
    ),
    "held-back rows counted as pushed": (
        [(plan, "held_after", holes_are_held)],
        tests.test_a_value_that_postgresql_cannot_hold_stays_behind_and_all_others_go,
        BOTH,
    ),
    "a transaction divided where a row is refused": (
        [(rejects, "reject_row", refused_alone)],
        tests.test_a_transaction_with_a_row_that_cannot_go_stays_behind_whole,
        BOTH,
    ),
    "a transaction divided": (
        [(plan, "take_chunk", divided)],
        tests.test_transactions_stay_whole_in_chunks_that_are_smaller,
        BOTH,
    ),
    "the master held while the network is waited for": (
        [(Sender, "send", the_master_is_held)],
        tests.test_a_push_waits_for_another_that_has_locked_the_stream,
        {},
    ),
    "a receipt of nothing while the server is away": (
        [(Target, "connect", forgotten_while_away)],
        tests.test_a_server_that_is_away_does_not_make_the_master_forget_what_it_holds,
        {},
    ),
    "all of a DSN shown": (
        [(address, "_display", all_of_it_shown)],
        tests.test_each_failure_has_its_exit_code_and_shows_no_password,
        {},
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mutant_is_found_by_its_test(mutant: str, request: pytest.FixtureRequest) -> None:
    replaced, test, arguments = MUTANTS[mutant]
    names = test.__code__.co_varnames[: test.__code__.co_argcount]
    given = {name: request.getfixturevalue(name) for name in names if name not in arguments}
    with pytest.raises((AssertionError, EdgeshardError)):
        for owner, name, replacement in replaced:
            given_back = mock.patch.object(owner, name, replacement)
            given_back.start()
        try:
            test(**given, **arguments)
        finally:
            mock.patch.stopall()
