"""The short form of the campaign in kills.py."""

from __future__ import annotations

from kills import play


def test_every_acknowledged_row_survives_kills_of_writers_and_mergers() -> None:
    tally = play(rounds=3, rows=8_000, seed=20)
    assert tally.writers_killed == 3
    assert tally.mergers_killed > 0
    assert tally.rows > 60_000
