"""The same storms through the wire: real servers that fail at random, in front of the whole of a check.

100 sequences with JOBSD_LONG=1, 3 otherwise.
"""

from __future__ import annotations

import base64
import os
from datetime import timedelta
from random import Random

import pytest

from jobs.dns.expectation import Expectation
from tests.jobs.dns.internet import Internet
from tests.jobs.dns.internet_checks import CHALLENGE, RECORD, SHOP, TOKEN, Checks, wait_s
from tests.jobs.dns.internet_faults import DENIALS, FAULTS, Fault
from tests.jobs.dns.internet_server import Server

pytestmark = pytest.mark.req("BJ-20")

SEQUENCES = 100 if os.environ.get("JOBSD_LONG") else 3
CHECKS = 6
KEY = base64.b64encode(bytes(range(160))).decode()
HASTY = {"timeout": 0.1, "tries": 1}
"""A server that answers late on a busy machine has one fault more."""

EXPECT = (
    TOKEN,
    Expectation(type="MX", value="mx.us.example"),
    Expectation(type="SPF", value="include:_spf.us.example"),
    Expectation(type="DKIM", value=KEY, name="s1"),
    Expectation(type="DMARC", value="quarantine", name="news"),
    Expectation(type="CNAME", value="edge.us.example", name="www"),
)
RECORDS = (
    "shop.test MX 10 mx.us.example.",
    'shop.test TXT "v=spf1 include:_spf.us.example -all"',
    "s1._domainkey.shop.test CNAME s1._domainkey.us.example.",
    '_dmarc.shop.test TXT "v=DMARC1; p=reject"',
    "www.shop.test CNAME edge.us.example.",
)
PLACES = (CHALLENGE, SHOP, "s1._domainkey.shop.test", "_dmarc.shop.test", "www.shop.test", "_spf.us.example")
AUTHORITIES: tuple[Fault, ...] = tuple(fault for fault in FAULTS if fault not in DENIALS)


def storm(dice: Random, servers: list[Server], faults: tuple[Fault, ...]) -> None:
    """Each server is well, or fails in some way, wholly or for one question.  An alias in a circle for one question is
    one into nowhere: whoever says that does not hold the record."""
    for_one = [fault for fault in faults if not fault.startswith("cname_")]
    for server in servers:
        server.heal()
        if dice.random() < 0.6:
            server.fault(dice.choice(faults))
        if dice.random() < 0.3:
            server.fault(dice.choice(for_one), name=dice.choice(PLACES), times=1)


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_a_good_domain_stays_verified_and_one_whose_record_is_gone_does_not(seed: int) -> None:
    dice = Random(seed)
    async with Internet() as internet:
        zone = await internet.zone(SHOP, servers=dice.randint(1, 3), signed=dice.random() < 0.3)
        checks = Checks(internet, zone)
        zone.add(RECORD, *RECORDS)
        us = await internet.zone("us.example")
        us.add('_spf.us.example TXT "v=spf1 ip4:192.0.2.0/24 -all"', f's1._domainkey.us.example TXT "v=DKIM1; p={KEY}"')
        assert (await checks.step(*EXPECT)).memory.state == "verified"
        checks.settings = HASTY
        for _ in range(CHECKS):
            storm(dice, list(zone.servers), AUTHORITIES)
            storm(dice, list(us.servers), AUTHORITIES)
            storm(dice, list(internet.resolvers), FAULTS)
            step = await checks.step(*EXPECT)
            assert (step.memory.state, step.notice) == ("verified", None), checks.said
            internet.clock.advance(wait_s(step, checks.now))
        internet.heal()
        zone.remove(CHALLENGE, "TXT")
        checks.settings = {}
        assert (await checks.step()).memory.state == "degraded"
        zone.add(RECORD)
        internet.clock.advance(timedelta(hours=1).total_seconds())
        assert (await checks.step()).memory.state == "verified"
