"""A verified domain among failing servers: it stays verified as long as its name servers hold the record, and leaves
that state exactly when the policy says once they do not.

Each of the two with 10,000 sequences of faults under JOBSD_LONG=1, with 100 otherwise.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from jobs.dns.answer import Answer
from jobs.dns.policy import DomainPolicy
from tests.jobs.dns.storms import BEGAN, NO, RIGHT, Life, Rule, policy

pytestmark = pytest.mark.req("BJ-20")

SEQUENCES = 10_000 if os.environ.get("JOBSD_LONG") else 100
SHARES = 5
CHECKS = 30


def seeds(share: int) -> range:
    return range(share * SEQUENCES // SHARES, (share + 1) * SEQUENCES // SHARES)


@pytest.mark.parametrize("share", range(SHARES))
async def test_a_domain_whose_name_servers_hold_the_record_never_leaves_verified(share: int) -> None:
    for seed in seeds(share):
        dice = Random(seed)
        life = Life(dice, policy(dice))
        for _ in range(CHECKS):
            seen, step = await life.check()
            assert (life.memory.state, life.told) == ("verified", []), f"seed {seed}: {seen}"
            life.wait(step)


@pytest.mark.parametrize("share", range(SHARES))
async def test_one_whose_record_is_gone_leaves_it_exactly_when_the_policy_says(share: int) -> None:
    ends = set()
    for seed in seeds(share):
        dice = Random(-1 - seed)
        life = Life(dice, policy(dice))
        rule = Rule(life.policy)
        gone, back = dice.randint(0, 5), dice.choice((None, None, dice.randint(10, 100)))
        for number in range(150):
            if number == gone:
                life.truth = dice.choice(NO)
            if number == back:
                life.truth = RIGHT
            seen, step = await life.check()
            rule.sees(seen, life.now)
            assert (life.memory.state, life.told) == (rule.state, rule.told), f"seed {seed}, check {number}: {seen}"
            if rule.state == "expired" or (rule.state == "failed" and back is None):
                break
            life.wait(step)
        ends.add(life.memory.state)
    assert "failed" in ends


@pytest.mark.parametrize("no", NO, ids=["NXDOMAIN", "NODATA", "another value"])
async def test_without_faults_it_is_degraded_at_once_and_failed_after_five_days(no: Answer) -> None:
    """The numbers of the default policy, by the calendar."""
    life = Life(Random(1), DomainPolicy(), truth=no, changes=False)
    hours: dict[str, float] = {}
    while life.memory.state != "failed":
        _, step = await life.check()
        for event in (life.memory.state, *(f"told {notice}" for notice in life.told)):
            hours.setdefault(event, (life.now - BEGAN).total_seconds() / 3600)
        life.wait(step)
    assert hours["degraded"] == 0
    assert 24 <= hours["told degraded"] < 25.2
    assert 120 <= hours["failed"] < 121.2
    assert life.told == ["degraded", "failed"]
