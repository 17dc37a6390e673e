"""Each hand-over asks for its turn first, and a relay that finds it too much is heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from jobs.email.address import mailbox
from jobs.email.decide import decide
from jobs.email.judge import judge
from jobs.email.relay import Mail
from jobs.email.reply import DeliveryReport
from jobs.email.settings import EmailSettings
from jobs.email.turns import Asker, Turns
from jobs.model import Snooze
from jobs.values import rate
from tests.jobs.email.mail import SECRETS, SENDER, message, only
from tests.jobs.email.peer import Peer

ASKER = Asker((7, 1), security=True)


class Giver:
    """Says these waits, then none."""

    def __init__(self, waits_s: Sequence[float] = (), *, has_rate: bool = True) -> None:
        self.waits_s = list(waits_s)
        self.has_rate = has_rate
        self.asked: list[tuple[str, Asker]] = []
        self.heard: list[tuple[str, str]] = []

    async def take(self, relay: str, asker: Asker, wait_s: float) -> float:
        self.asked.append((relay, asker))
        return self.waits_s.pop(0) if self.waits_s else 0.0

    def throttled(self, relay: str, age_s: float, said: str) -> bool:
        assert 0 <= age_s < 60
        self.heard.append((relay, said))
        return self.has_rate


async def sent(peer: Peer, giver: Giver, *, recipients: int = 1, **settings: object) -> DeliveryReport:
    turns = Turns()
    turns.serve(giver)
    out = Mail(EmailSettings(from_=SENDER, relays={"main": peer.settings(**settings)}), SECRETS, turns)
    one = message(to=tuple(f"u{n}@x.example" for n in range(recipients)))
    report = await out.send(one, one.recipients, mailbox(SENDER), "main", ASKER)
    await out.close()
    return report


async def test_every_turn_of_a_message_asks_and_says_for_whom() -> None:
    """Split by recipients_per_message it is several messages for the relay."""
    giver = Giver()
    async with Peer() as peer:
        await sent(peer, giver, recipients=120, recipients_per_message=50)
        assert len(peer.received) == 3
    assert giver.asked == [("main", ASKER)] * 3


async def test_without_a_turn_nothing_is_said_to_the_relay_about_the_message() -> None:
    giver = Giver([0.0, 40.0])
    async with Peer() as peer:
        report = await sent(peer, giver, recipients=2, recipients_per_message=1)
        assert len(peer.received) == peer.count("MAIL") == 1
    assert [(a.phase, a.fault) for a in report.answers] == [("final", None), ("queue", "rate")]
    assert report.after_s == 40


async def test_a_turn_is_taken_when_the_message_begins_and_not_while_it_waits_behind_another() -> None:
    """On a connection with one in front: a token that grows old before its MAIL would not be the one that counts."""
    seen: list[int] = []

    class Watching(Giver):
        async def take(self, relay: str, asker: Asker, wait_s: float) -> float:
            seen.append(peer.count("DATA"))
            return await super().take(relay, asker, wait_s)

    async with Peer(offers=["PIPELINING"]) as peer:
        turns = Turns()
        turns.serve(Watching())
        relay = peer.settings(rate=rate("5/s"), connections=1)
        out = Mail(EmailSettings(from_=SENDER, relays={"main": relay}), SECRETS, turns)
        letters = [message() for _ in range(3)]
        await asyncio.gather(*(out.send(one, one.recipients, mailbox(SENDER)) for one in letters))
        assert len(peer.received) == 3
        await out.close()
    assert seen == sorted(seen)
    assert all(begun >= before for before, begun in enumerate(seen)), "the one before it had been answered"


@pytest.mark.parametrize("has_rate", [True, False])
async def test_a_relay_that_throttles_is_slowed_or_closed_where_it_has_no_rate(*, has_rate: bool) -> None:
    giver = Giver(has_rate=has_rate)
    async with Peer({"MAIL": ["454 4.7.0 Throttling failure: Maximum sending rate exceeded."]}) as peer:
        report = await sent(peer, giver)
    (heard,) = giver.heard
    assert heard[0] == "main"
    assert "Maximum sending rate" in heard[1]
    assert report.slowed is has_rate
    verdicts = {only(report).recipient: judge(only(report))}
    outcome = decide(verdicts, attempt=1, after_s=report.after_s, asked_before=(), dice=0.5, slowed=report.slowed)
    assert isinstance(outcome, Snooze)
    assert 0 < outcome.after_s <= 600
    assert (outcome.lane_after_s is None) is has_rate


async def test_a_relay_whose_day_is_over_is_left_alone_until_the_next_begins() -> None:
    async with Peer({"MAIL": ["454 4.7.0 Throttling failure: Daily message quota exceeded."] * 2}) as peer:
        report = await sent(peer, Giver(), day_starts="06:30", messages_per_day=10)
        left_s = judge(only(report)).after_s
        expected_s = 86400 - (time.time() - 6.5 * 3600) % 86400
        assert left_s == pytest.approx(expected_s, abs=60)
        outcome = decide({"u0": judge(only(report))}, attempt=1, after_s=0.0, asked_before=(), dice=0.5)
        assert isinstance(outcome, Snooze)
        assert (outcome.lane_after_s, outcome.lane_cause) == (left_s, "quota")
        report = await sent(peer, Giver(), rate=rate("5/s"))
        assert judge(only(report)).after_s == 3600, "of any 24 hours: one message tries it each hour"
