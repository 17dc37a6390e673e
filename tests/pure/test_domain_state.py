"""What a check makes of a registered domain: verified is not left for a hiccup, and left when the policy says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.dns.policy import DomainPolicy
from jobs.dns.state import Memory, Notice, Seen, State, Step, Word, daily_s, next_state
from jobs.values import duration

pytestmark = pytest.mark.req("BJ-20")

POLICY = DomainPolicy()
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
GOOD, BAD, UNSURE, DISAGREE = (Seen(word=word) for word in ("good", "bad", "unsure", "disagree"))

slots = st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)
words = st.sampled_from(["good", "bad", "spreading", "disagree", "unsure"])
doubts = st.sampled_from(["spreading", "disagree", "unsure"])


def memory(state: State = "pending", slot: float = 0.5, **given: object) -> Memory:
    return replace(Memory(state=state, since=START, slot=slot), **given)  # type: ignore[arg-type]


class Life:
    """A domain that is checked when it wants to be; `at` is the time of its next check."""

    def __init__(self, state: State = "pending", slot: float = 0.5, policy: DomainPolicy = POLICY) -> None:
        self.memory = memory(state, slot)
        self.policy = policy
        self.at: datetime | None = START
        self.told: list[tuple[Notice, datetime]] = []

    def sees(self, word: Word) -> Step:
        assert self.at is not None
        step = next_state(self.memory, Seen(word=word), self.at, self.policy)
        if step.notice:
            self.told.append((step.notice, self.at))
        self.memory, self.at = step.memory, step.next_check_at
        return step

    @property
    def age_s(self) -> float:
        assert self.at is not None
        return (self.at - START).total_seconds()


def gaps(life: Life, word: Word, count: int) -> list[float]:
    """Minutes between so many checks."""
    found = []
    for _ in range(count):
        before = life.age_s
        life.sees(word)
        found.append(round((life.age_s - before) / 60, 1))
    return found


def test_a_new_domain_is_looked_at_often_then_hourly_then_daily_and_then_no_more() -> None:
    life = Life()
    assert gaps(life, "bad", 5) == [1, 2, 5, 10, 30]
    while life.age_s < 71 * HOUR:
        assert gaps(life, "bad", 1) == [60]
    life.sees("bad")
    while life.age_s < 29 * DAY:
        before = life.age_s
        life.sees("bad")
        assert life.age_s - before == (DAY if before >= 3 * DAY else HOUR)
    assert life.told == []
    while life.at is not None:
        assert life.age_s <= 30 * DAY
        life.sees("bad")
    assert life.memory.state == "expired"
    assert life.told == [("expired", START + timedelta(days=30))]


def test_a_verified_domain_whose_records_are_gone_is_told_after_a_day_and_let_go_after_five() -> None:
    life = Life("verified")
    assert life.sees("bad").memory.state == "degraded"
    while life.memory.state == "degraded":
        life.sees("bad")
    assert [(notice, (at - START) / timedelta(hours=1)) for notice, at in life.told] == [
        ("degraded", 24),
        ("failed", 120),
    ]
    assert life.memory.state == "failed"
    life.sees("good")
    assert (life.memory.state, [notice for notice, _ in life.told]) == ("verified", ["degraded", "failed", "verified"])


def test_who_was_told_nothing_is_told_nothing_of_its_end() -> None:
    life = Life("verified")
    for word in ("bad", "bad", "unsure", "bad", "good"):
        life.sees(word)
    assert (life.memory.state, life.told) == ("verified", [])


def test_the_first_verification_is_told_once() -> None:
    life = Life()
    life.sees("bad")
    life.sees("good")
    life.sees("good")
    assert [notice for notice, _ in life.told] == ["verified"]
    assert life.memory.verified_at == START + timedelta(minutes=1)


def test_what_could_not_be_told_is_asked_again_in_five_minutes_and_then_less_often() -> None:
    for state in ("pending", "verified", "degraded"):
        assert gaps(Life(state), "unsure", 7) == [5, 10, 20, 40, 60, 60, 60]
        assert gaps(Life(state), "disagree", 5) == [10, 20, 40, 60, 60]


def test_what_still_spreads_is_looked_at_when_caches_have_forgotten_and_not_before_the_step() -> None:
    soon, late = START + timedelta(seconds=20), START + timedelta(minutes=50)
    for at, expected in ((soon, START + timedelta(minutes=1)), (late, late)):
        seen = Seen(word="spreading", visible_by=at)
        assert next_state(memory(), seen, START, POLICY).next_check_at == expected
    verified = next_state(memory("verified"), Seen(word="spreading", visible_by=late), START, POLICY)
    assert (verified.memory.state, verified.next_check_at) == ("verified", late)


def test_an_outage_of_ours_counts_against_nobody() -> None:
    """Two checks that saw a mismatch, a week apart, are no week of mismatch."""
    life = Life("verified")
    life.sees("bad")
    life.at = START + timedelta(days=7)
    life.sees("bad")
    assert life.memory.state == "degraded"
    assert life.memory.mismatch_s == 2 * HOUR


def test_an_expired_domain_is_verified_by_a_check_that_somebody_asks_for() -> None:
    assert next_state(memory("expired"), BAD, START, POLICY).next_check_at is None
    step = next_state(memory("expired", noticed="expired"), GOOD, START, POLICY)
    assert (step.memory.state, step.notice) == ("verified", "verified")


@given(
    st.lists(doubts, min_size=1, max_size=300), slots, st.sampled_from(["pending", "verified", "degraded", "failed"])
)
def test_checks_that_cannot_tell_change_no_state_and_move_no_clock(seen: list[Word], slot: float, state: State) -> None:
    policy = replace(POLICY, give_up_after=duration("10000d"))
    life = Life(state, slot, policy)
    life.memory = replace(life.memory, mismatch_s=policy.fail_after - 1, mismatch_at=START - timedelta(minutes=5))
    for word in seen:
        step = life.sees(word)
        assert (step.memory.state, step.notice) == (state, None)
        assert step.memory.mismatch_s == policy.fail_after - 1
        assert step.next_check_at is not None


@given(st.lists(st.sampled_from(["good", "spreading", "disagree", "unsure"]), max_size=300), slots)
def test_a_domain_that_has_its_records_never_leaves_verified(seen: list[Word], slot: float) -> None:
    life = Life("verified", slot)
    for word in seen:
        assert life.sees(word).memory.state == "verified"
    assert life.told == []


@given(st.lists(words, max_size=400), slots, st.sampled_from(["pending", "verified"]))
def test_any_life_keeps_the_rules(seen: list[Word], slot: float, state: State) -> None:
    """Failed only after five days that were counted between mismatches; warned once a week at most; a way back is told
    if and only if trouble was; and the same check, made again, comes to the same."""
    life = Life(state, slot)
    counted_s, last_bad_at = 0.0, None
    for word in seen:
        if life.at is None:
            break
        at, before = life.at, life.memory
        step = life.sees(word)
        assert next_state(before, Seen(word=word), at, POLICY) == step
        if word == "bad":
            counted_s += min((at - last_bad_at).total_seconds(), 2 * HOUR) if last_bad_at else 0.0
        elif word == "good":
            counted_s = 0.0
        last_bad_at = at if word == "bad" else None
        left = before.state in ("verified", "degraded") and step.memory.state not in ("verified", "degraded")
        assert left == (before.state == "degraded" and word == "bad" and counted_s >= 5 * DAY)
        assert step.next_check_at is None or step.next_check_at > at
    warned = [at for notice, at in life.told if notice == "degraded"]
    assert all(b - a >= timedelta(days=7) for a, b in itertools.pairwise(warned))
    well = [notice == "verified" for notice, _ in life.told]
    assert not any(a and b for a, b in itertools.pairwise(well))
    if state == "verified":
        assert not well or not well[0]


def _ticks(slot: float, from_s: float, until_s: float) -> Iterable[float]:
    at = from_s
    while (at := daily_s(at, slot, DAY)) < until_s:
        yield at


@given(slots, st.floats(1.7e9, 1.9e9))
def test_a_verified_domain_is_looked_at_once_a_day_at_its_own_time(slot: float, from_s: float) -> None:
    """Also when somebody asked in between, or it was late: within a tenth of a day more."""
    ticks = list(_ticks(slot, from_s, from_s + 40 * DAY))
    assert 0.1 * DAY * 0.999 <= ticks[0] - from_s <= 1.1 * DAY * 1.001
    assert all(b - a == pytest.approx(DAY) for a, b in itertools.pairwise(ticks))
    assert daily_s(ticks[0] + 0.8 * DAY, slot, DAY) == ticks[1]


def test_a_million_verified_domains_make_no_herd() -> None:
    """The slow one of this file (a second and a half): with fewer domains chance alone makes larger minutes.  Half of
    them were verified in one minute."""
    dice, minutes = Random(20), [0] * 1440
    for n in range(1_000_000):
        at = daily_s(1.8e9 + (n & 1) * 30, dice.getrandbits(24) / 2**24, DAY)
        minutes[int(at // 60) % 1440] += 1
    assert max(minutes) <= 1.2 * 1_000_000 / 1440


def test_settings_that_contradict_themselves_are_refused() -> None:
    for wrong, said in (
        ({"warn_after": duration("6d")}, "warn_after"),
        ({"notify": ("sms",)}, "notify"),
        ({"first_steps": (duration("0"),)}, "first_steps"),
        ({"per_minute": 0}, "per_minute"),
    ):
        with pytest.raises(ValueError, match=said):
            DomainPolicy(**wrong)
