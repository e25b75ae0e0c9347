"""Break a push in each way that would lose or double rows, and expect a test of pushes to fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.format.ranges import Range
from edgeshard.postgres import address, own_tables, plan, pusher
from edgeshard.postgres.sender import OutdatedRangesError, Sender, Sent
from edgeshard.postgres.target import Target

pytest.importorskip("psycopg")


from tests.integration.postgres import test_push as tests

pytestmark = pytest.mark.slow

# fixtures of the tests that are run here
proxy = tests.proxy


# -- mutants of a transaction -----------------------------------------------------------------------------------------


def write_ranges_after_rows(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """Write the ranges in a separate transaction after the rows."""
    with self.server.transaction():
        there = lock_and_compare(self, parts, held)
        counts = self.send_rows(parts, tables)
    with self.server.transaction():
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    return Sent(counts, now)


def write_ranges_before_rows(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """Write the ranges in a separate transaction before the rows."""
    with self.server.transaction():
        there = lock_and_compare(self, parts, held)
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    with self.server.transaction():
        counts = self.send_rows(parts, tables)
    return Sent(counts, now)


def do_not_compare_ranges(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """Assume that the server holds what the chunk was planned with."""
    with self.server.transaction():
        streams = plan.streams_in(parts)
        own_tables.lock_streams(self.server, streams)
        there = {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}
        counts = self.send_rows(parts, tables)
        now = plan.held_after(there, parts)
        own_tables.write_ranges(self.server, there, now)
    return Sent(counts, now)


def lock_and_compare(sender: Sender, parts: Sequence[Any], held: Any) -> dict[bytes, list[Range]]:
    """Lock the streams and compare their ranges, as the real code does."""
    streams = plan.streams_in(parts)
    there = own_tables.held(sender.server, own_tables.lock_streams(sender.server, streams))
    if there != {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}:
        raise OutdatedRangesError(there)
    return there


def keep_snapshot_open(self: Sender, parts: Sequence[Any], tables: Sequence[Any], held: Any) -> Sent:
    """Keep one snapshot of the master open for the whole transaction."""
    connection = self.master._connection
    connection.execute("BEGIN")
    sqlite.fetch(connection, "SELECT generation FROM _edgeshard_database")
    try:
        return SEND(self, parts, tables, held)
    finally:
        connection.execute("COMMIT")


SEND = Sender.send


# -- mutants of what is there -----------------------------------------------------------------------------------------


def do_not_lock_streams(server: Any, streams: Sequence[Any]) -> dict[bytes, str]:
    """Lock only streams that the server does not know yet."""
    for stream in streams:
        known = server.execute(
            "SELECT 1 FROM edgeshard_streams WHERE stream = $1", (own_tables._uuids([stream.stream_id])[0],)
        )
        if not known:
            LOCK(server, [stream])
    return {stream.stream_id: stream.agent_id for stream in streams}


LOCK = own_tables.lock_streams


def lock_streams_without_writing(server: Any, streams: Sequence[Any]) -> dict[bytes, str]:
    """Lock a stream's row without writing it."""
    with mock.patch.object(server, "execute_many"):
        return LOCK(server, streams)


def keep_what_was_known(self: Target, streams: Sequence[Any]) -> None:
    """After a lost connection, assume that the server holds what it held before."""
    held = dict(self.held)
    LEARN(self, streams)
    self.held.update(held)


LEARN = Target.update


def count_gaps_as_held(held: Any, parts: Sequence[Any]) -> dict[bytes, list[Range]]:
    """Count all rows up to the last pushed one as pushed, including rejected ones."""
    return {stream_id: [Range(1, ranges[-1].last)] for stream_id, ranges in AFTER(held, parts).items()}


AFTER = plan.held_after


def forget_while_unreachable(self: Target) -> Any:
    """Forget what PostgreSQL holds before it can be read again."""
    if self._server is None:
        self.held.clear()
    return CONNECTED(self)


CONNECTED = Target.connect


def divide_transactions(parts: Sequence[Any], room: int, transaction_at: Any) -> Any:
    """Divide a writer's transaction where the chunk is full."""
    return CUT(parts, room, None)


CUT = plan.take_chunk


def show_everything(said: Mapping[str, str]) -> str:
    """Show the whole DSN."""
    return " ".join(said.values())


def reject_only_the_row(piece: Any, row_id: int, transaction_at: Any) -> Any:
    """Leave out only the row, and not the writer's transaction."""
    return TRANSACTION_OF(piece, row_id, lambda _: None)


TRANSACTION_OF = plan.transaction_of


def do_not_sift(_: Any, __: Any, ___: Any, ____: Any, refused: Any) -> Any:
    """Raise what the server answered: the search for rows that do not fit reads the ranges, and recovers."""
    raise refused


DO_NOT_SIFT = (pusher, "sift", do_not_sift)

BOTH = {"inserts": False}
AFTER_COMMIT, BEFORE_COMMIT = {**BOTH, "moment": "after"}, {**BOTH, "moment": "before"}

#: For each mutant: what to replace with what, the test that must find it, and its arguments.
MUTANTS: dict[str, tuple[list[tuple[Any, str, Any]], Callable[..., None], dict[str, Any]]] = {
    "write ranges after the rows": (
        [(Sender, "send", write_ranges_after_rows)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        AFTER_COMMIT,
    ),
    "write ranges before the rows": (
        [(Sender, "send", write_ranges_before_rows)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        BEFORE_COMMIT,
    ),
    "neither read ranges again nor compare them": (
        [DO_NOT_SIFT, (Target, "update", keep_what_was_known), (Sender, "send", do_not_compare_ranges)],
        tests.test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing,
        AFTER_COMMIT,
    ),
    "do not compare ranges": (
        [DO_NOT_SIFT, (Sender, "send", do_not_compare_ranges)],
        tests.test_a_stream_that_comes_by_two_routes_at_once_arrives_once,
        BOTH,
    ),
    "do not lock streams": (
        [DO_NOT_SIFT, (own_tables, "lock_streams", do_not_lock_streams)],
        tests.test_a_stream_that_comes_by_two_routes_at_once_arrives_once,
        BOTH,
    ),
    "lock streams without writing them": (
        [DO_NOT_SIFT, (own_tables, "lock_streams", lock_streams_without_writing)],
        tests.test_a_server_that_reads_from_one_snapshot_a_transaction_gets_each_row_once,
        BOTH,
    ),
    "count rejected rows as pushed": (
        [(plan, "held_after", count_gaps_as_held)],
        tests.test_a_value_that_postgresql_cannot_hold_stays_behind_and_all_others_go,
        BOTH,
    ),
    "reject a row without its transaction": (
        [(plan, "transaction_of", reject_only_the_row)],
        tests.test_a_transaction_with_a_row_that_cannot_go_stays_behind_whole,
        BOTH,
    ),
    "divide a transaction": (
        [(plan, "take_chunk", divide_transactions)],
        tests.test_transactions_stay_whole_in_chunks_that_are_smaller,
        BOTH,
    ),
    "keep a snapshot of the master open while sending": (
        [(Sender, "send", keep_snapshot_open)],
        tests.test_a_push_waits_for_another_that_has_locked_the_stream,
        {},
    ),
    "forget what an unreachable server holds": (
        [(Target, "connect", forget_while_unreachable)],
        tests.test_a_server_that_is_away_does_not_make_the_master_forget_what_it_holds,
        {},
    ),
    "show the whole DSN": (
        [(address, "_display", show_everything)],
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
