"""What a daemon does with what is in its hand: when it uses, asks and gives back."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.limits import Bucket
from daemon.slices import ASK_EVERY_S, IDLE_S, PAUSE_MAX_S, Hand, Leased, Return

TENTHS = Bucket("l", "", 0.1, 10, None)
SINGLE = Bucket("l", "", 0.1, 1, None)
PLACES = Bucket("l", "", None, None, 8)


def tokens(count: int, from_s: float = 1000.0, **more: Any) -> Leased:
    """Told at 1000 s by the database's clock."""
    given = {"places": 0, "rivals": 0, "lot": None, "retry_s": None, "late_s": 0.9, **more}
    return Leased(at_s=1000.0, froms=(from_s,), counts=(count,), **given)


def places(count: int, rivals: int = 0) -> Leased:
    return Leased(count, rivals, 1000.0, (), (), 0.0, None, None)


def hand(bucket: Bucket, leased: Leased, received: float = 5.02) -> Hand:
    """Asked at 5 s of its own clock."""
    found = Hand(bucket)
    found.take_in((9, leased.places), leased, 5.0, received)
    return found


def test_a_token_is_used_neither_before_its_time_nor_after_it_whatever_the_network_took() -> None:
    """The database's moment lies between 5.00 and 5.02: not before the later, not after the earlier of both."""
    mine = hand(TENTHS, tokens(1, 1000.05))
    assert [mine.usable(at) for at in (5.06, 5.071, 5.94)] == [0, 1, 1]
    assert mine.usable(5.96) == 0


def test_tokens_ripen_one_by_one_and_go_void_one_by_one() -> None:
    mine = hand(TENTHS, tokens(5, late_s=0.3))
    assert [mine.usable(at) for at in (5.01, 5.021, 5.13, 5.29, 5.37, 5.42, 5.59, 5.71)] == [0, 1, 2, 3, 3, 3, 2, 0]
    assert mine.tokens() == 0


def test_what_is_spent_is_gone_oldest_first() -> None:
    mine = hand(TENTHS, tokens(5))
    mine.spend(2, 5.13)
    assert mine.usable(5.13) == 0
    assert mine.usable(5.23) == 1
    (rest,) = mine.going_back(5.23, waited_for=True, all_of_it=True)
    assert rest.from_s == pytest.approx(1000.2)
    assert rest.count == 3
    assert not mine


def test_a_lot_is_told_of_at_once_and_rather_late_than_early() -> None:
    """The database answered somewhere from 5.00 to 5.02, so that it was 1000.38 to 1000.40 there at 5.40."""
    mine = hand(SINGLE, tokens(1, lot=7, late_s=1.0))
    assert not mine.going_back(5.1, waited_for=True)
    mine.spend(1, 5.4)
    (told,) = mine.going_back(5.41, waited_for=True)
    assert (told.lot, told.used) == (7, 1)
    assert told.last_s == pytest.approx(1000.40)
    assert not mine


def test_a_lot_that_went_void_is_told_to_be_unused() -> None:
    mine = hand(SINGLE, tokens(1, lot=7, late_s=0.3))
    assert mine.usable(5.4) == 0
    assert [(piece.lot, piece.used) for piece in mine.going_back(5.4, waited_for=True)] == [(7, 0)]


def test_when_work_runs_out_tokens_go_back_soon() -> None:
    mine = hand(TENTHS, tokens(3))
    assert not mine.going_back(5.1, waited_for=False)
    assert mine.next_at(5.1, waited_for=False) == pytest.approx(5.02 + IDLE_S)
    assert [piece.count for piece in mine.going_back(5.13, waited_for=False)] == [3]


def test_while_rows_wait_a_token_of_the_future_is_kept_for_its_time() -> None:
    mine = hand(TENTHS, tokens(1, 1000.5))
    assert not mine.going_back(5.4, waited_for=True)
    assert mine.next_at(5.4, waited_for=True) <= 5.53
    assert not mine.going_back(5.55, waited_for=True)
    assert mine.going_back(5.53 + IDLE_S, waited_for=True), "rows wait, but nobody has a slot for them"


def test_a_slice_grows_while_all_of_it_is_used_and_shrinks_when_some_comes_back() -> None:
    bucket = Bucket("l", "", 0.001, 1000, None)
    mine, now, asked = Hand(bucket), 5.0, []
    for _ in range(9):
        now += 1
        asked.append(mine.wish(now)[0])
        mine.take_in((asked[-1], 0), tokens(asked[-1], 999.5), now, now)
        mine.spend(mine.usable(now), now)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    mine.take_in((100, 0), tokens(100), now, now)
    mine.spend(1, now)
    assert mine.going_back(now + 0.2, waited_for=False)
    assert mine.wish(now + 2)[0] <= 256


def test_nobody_asks_before_there_can_be_something_nor_again_at_once() -> None:
    mine = hand(TENTHS, tokens(0, retry_s=0.3), received=5.0)
    assert mine.wish(5.29) == (0, 0)
    assert mine.wish(5.29, short=5) == (0, 0)
    assert mine.wish(5.31) == (1, 0)
    mine = hand(TENTHS, tokens(1), received=5.0)
    mine.spend(1, 5.0)
    assert mine.wish(5.0 + ASK_EVERY_S / 2) == (0, 0)
    assert mine.wish(5.0 + ASK_EVERY_S / 2, short=3) == (3, 0), "rows in hand do not wait"
    assert mine.wish(5.0 + ASK_EVERY_S) == (2, 0)


def test_the_pause_grows_while_places_are_refused() -> None:
    mine, now, pauses = Hand(PLACES), 5.0, []
    for _ in range(4):
        mine.take_in((0, 1), places(0), now, now)
        pauses.append(mine.next_at(now, waited_for=True) - now)
        now += 1
    assert pauses == pytest.approx([2 * ASK_EVERY_S, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S])


def test_a_place_is_used_again_without_a_trip_unless_somebody_waits_or_has_not_been_asked_for_long() -> None:
    mine = hand(PLACES, places(1))
    mine.spend(1, 5.03)
    mine.freed(5.05)
    assert not mine.going_back(5.05, waited_for=True)
    assert mine.usable(5.05) == 1
    assert mine.going_back(5.01 + IDLE_S, waited_for=True) == [Return(PLACES, places=1)]
    contended = hand(PLACES, places(1, rivals=2))
    contended.spend(1, 5.03)
    contended.freed(5.05)
    assert contended.going_back(5.05, waited_for=True) == [Return(PLACES, places=1)]


def test_an_attempt_needs_both_a_token_and_a_place() -> None:
    both = Bucket("l", "", 0.1, 10, 3)
    mine = hand(both, tokens(5, 999.5, places=3), received=5.0)
    assert mine.usable(5.0) == 3
    mine.spend(3, 5.0)
    assert mine.usable(5.0) == 0
    mine.freed(5.0)
    assert mine.usable(5.0) == 1
