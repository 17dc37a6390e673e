"""Several relays: what one cannot take for reasons of its own goes through the next one, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jobs.email.judge import judge
from jobs.email.relay import Mail
from jobs.email.settings import EmailSettings, RelaySettings
from jobs.model import Dead, Done, Retry, Snooze
from jobs.values import rate
from tests.jobs.email.mail import PASSWORD, SECRETS, SENDER, Clock, only, send
from tests.jobs.email.peer import DROP, HANG, Peer
from tests.jobs.email.row import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Pool = asyncpg.Pool[asyncpg.Record]

Script = Mapping[str, Sequence[str]]


class Two:
    """`main`, and `backup` behind it."""

    def __init__(self, main: Peer, backup: Peer, clock: Clock, out: Mail) -> None:
        self.main = main
        self.backup = backup
        self.clock = clock
        self.out = out


@asynccontextmanager
async def two(main: Script | None = None, backup: Script | None = None, **given: object) -> AsyncIterator[Two]:
    """`given` are further settings of main; `offers` what the backup does."""
    clock = Clock()
    offers = given.pop("offers", ("SIZE 10000000", "8BITMIME", "SMTPUTF8"))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Peer(main, offers=["AUTH PLAIN"]))
        second = await stack.enter_async_context(Peer(backup, offers=offers))  # type: ignore[arg-type]
        settings = {"main": first.settings(fallback=("backup",), **given), "backup": second.settings()}
        out = Mail(EmailSettings(from_=SENDER, relays=settings), SECRETS, clock=clock)
        yield Two(first, second, clock, out)
        await out.close()


@pytest.mark.parametrize(
    "script",
    [{"GREETING": ["554 no"]}, {"GREETING": [DROP]}, {"EHLO": ["421 closing"]}, {"MAIL": ["421 closing"]},
     {"RCPT": ["421 4.7.0 too many"]}, {"DATA": ["421 closing"]}, {"AUTH": ["535 5.7.8 wrong"]},
     {"MAIL": ["530 5.7.0 log in"]}, {"MAIL": ["454 Throttling failure: Daily message quota exceeded."]}],
)  # fmt: skip
async def test_what_a_relay_cannot_take_goes_through_the_next_one(script: Script) -> None:
    login: dict[str, Any] = {"username": "shop", "password": PASSWORD} if "AUTH" in script else {}
    async with two(script, **login) as relays:
        report = await send(relays.out)
        assert (only(report).relay, judge(only(report)).code) == ("backup", "delivered")
        assert [(answer.relay, judge(answer).result) for answer in report.passed] == [("main", "deferred")]
        again = await send(relays.out)
        assert (only(again).relay, [answer.fault for answer in again.passed]) == ("backup", ["resting"])
        assert len(relays.backup.received) == 2
        relays.clock.now += 4000
        assert only(await send(relays.out)).relay == "main"


@pytest.mark.parametrize(
    ("script", "code"),
    [({"MAIL": ["550 5.1.8 bad sender"]}, "bad_sender"), ({"RCPT": ["550 5.1.1 no"]}, "bad_recipient"),
     ({"RCPT": ["450 greylisted"]}, "greylisted"), ({"DOT": ["554 5.7.1 spam"]}, "policy"),
     ({"DOT": [DROP]}, "lost_after_dot"), ({"DOT": ["421 closing"]}, "relay_closing"),
     ({"RCPT": [DROP]}, "connection_lost"),
     ({"MAIL": ["454 Throttling failure: Maximum sending rate exceeded."]}, "relay_throttled")],
)  # fmt: skip
async def test_what_concerns_the_message_or_may_have_been_taken_goes_nowhere_else(script: Script, code: str) -> None:
    async with two(script) as relays:
        assert judge(only(await send(relays.out))).code == code
        assert relays.backup.connections == 0


async def test_each_recipient_goes_his_own_way() -> None:
    script = {"RCPT TO:<a@x.example>": ["550 5.1.1 no"], "RCPT TO:<b@x.example>": ["421 closing"]}
    async with two(script) as relays:
        report = await send(relays.out, "a@x.example", "b@x.example", "c@x.example")
        assert [(a.relay, judge(a).code) for a in report.answers] == [
            ("main", "bad_recipient"), ("backup", "delivered"), ("backup", "delivered"),
        ]  # fmt: skip
        assert relays.backup.received[0].recipients == ("b@x.example", "c@x.example")


async def test_a_spare_relay_that_could_never_take_it_decides_nothing() -> None:
    async with two({"GREETING": ["421 closing"]}, offers=["SIZE 100"]) as relays:
        report = await send(relays.out)
        assert (only(report).relay, judge(only(report)).result, report.after_s) == ("main", "deferred", 10.0)


async def test_while_the_first_is_tried_again_the_others_do_not_wait_for_it() -> None:
    async with two({"GREETING": ["421 closing", HANG]}) as relays:
        await send(relays.out)
        relays.clock.now += 11
        probe = asyncio.ensure_future(send(relays.out))
        await relays.main.until(lambda: relays.main.connections == 2)
        reports = await asyncio.gather(*(send(relays.out) for _ in range(20)))
        assert {only(report).relay for report in reports} == {"backup"}
        assert relays.main.connections == 2
        probe.cancel()
        await asyncio.wait([probe])


async def test_when_all_fail_the_first_that_may_be_tried_again_says_when(pool: Pool) -> None:
    async with two({"GREETING": ["421 closing"]}, {"GREETING": ["421 closing"]}) as relays:
        relays.clock.now += 1
        row = Row(relays.out, pool)
        outcome = await row.run()
        assert isinstance(outcome, Snooze)
        assert (outcome.lane_fault, outcome.lane_after_s) == (True, 10.0)
        assert [(r["relay"], r["outcome"]) for r in row.records] == [("main", "deferred"), ("backup", "deferred")]


async def test_a_row_that_another_relay_took_is_done_and_its_way_is_in_the_log(pool: Pool) -> None:
    async with two({"GREETING": ["421 closing"]}) as relays:
        row = Row(relays.out, pool)
        assert isinstance(await row.run(), Done)
        assert [(r["relay"], r["outcome"]) for r in row.records] == [("main", "deferred"), ("backup", "delivered")]
        assert {r["message_id"] for r in row.records} == {row.records[0]["message_id"]}


async def test_a_spare_relays_own_rate_counts() -> None:
    async with Peer() as peer:
        settings = {
            "main": RelaySettings(host="127.0.0.1", port=1, tls="none", fallback=("backup",)),
            "backup": peer.settings(rate=rate("1/h")),
        }
        out = Mail(EmailSettings(from_=SENDER, relays=settings), SECRETS, clock=Clock())
        assert only(await send(out)).relay == "backup"
        outcome = await Row(out).run()
        assert isinstance(outcome, Snooze)
        assert (outcome.code, outcome.lane_fault) == ("relay_rate", None)
        await out.close()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"AUTH": ["535 5.7.8 wrong"] * 4}, "relay_auth"),
        ({"MAIL": ["454 Daily message quota exceeded"] * 4}, "relay_quota"),
    ],
)
async def test_an_operator_is_told_once_that_a_relay_is_off_and_once_that_it_is_back(
    pool: Pool, script: Script, code: str
) -> None:
    clock = Clock()
    async with Peer(script, offers=["AUTH PLAIN"]) as peer:
        relay = peer.settings(username="shop", password=PASSWORD)
        out = Mail(EmailSettings(from_=SENDER, relays={"main": relay}), SECRETS, clock=clock)
        row = Row(out, pool)
        outcomes = []
        for _ in range(6):
            outcomes.append(type(await row.run()))
            clock.now += 4000
        told = [(event, fields["relay"], fields["cause"]) for event, fields in row.log.events]
        assert told == [("email_relay_off", "main", code), ("email_relay_on", "main", code)]
        assert outcomes[0] is Snooze
        assert not {Dead, Retry}.intersection(outcomes)
        await out.close()
