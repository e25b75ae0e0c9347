"""The time as text: right to the millisecond, in an order that is that of the texts, whatever the clock does."""

from __future__ import annotations

import datetime
import re
import time

import pytest

from edgeshard.records import now_text

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


class Wall:
    """A wall clock that shows what it is set to, in seconds since 1970."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(time, "time", wall)
    return wall


def as_time(text: str) -> float:
    assert FORM.fullmatch(text)
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("time_s", [0.0, 1.0, 1_000_000_000.0, 1_795_999_999.999999, 1_796_000_000.000001, -1.5, 2e11])
def test_the_text_is_the_time_to_the_millisecond(wall: Wall, time_s: float) -> None:
    wall.time_s = time_s
    assert -0.00001 < time_s - as_time(now_text.make_clock()()) < 0.00101


def test_the_text_is_never_older_than_a_millisecond_and_never_ahead(wall: Wall) -> None:
    clock = now_text.make_clock()
    texts = []
    for step_s in [0.0001] * 50 + [0.0009, 0.00105, 0.5, 1.0, 3600.0]:
        wall.time_s += step_s
        texts.append(clock())
        assert -0.00001 < wall.time_s - as_time(texts[-1]) < 0.00101
    assert texts == sorted(texts)
    assert 8 <= len(set(texts)) < 20


@pytest.mark.parametrize("back_s", [0.0000001, 0.0005, 1.0, 40 * 365 * 86400.0])
def test_a_clock_that_is_set_back_is_followed_at_once(wall: Wall, back_s: float) -> None:
    clock = now_text.make_clock()
    wall.time_s = 1_796_000_000.0
    clock()
    wall.time_s -= back_s
    assert -0.00001 < wall.time_s - as_time(clock()) < 0.00101


def test_two_clocks_are_independent(wall: Wall) -> None:
    one, other = now_text.make_clock(), now_text.make_clock()
    wall.time_s = 7.0
    assert one() == other() == "1970-01-01T00:00:07.000+00:00"
