"""500 rows and a relay with every bad habit at once: nothing is lost, and only what was in doubt comes twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg
import pytest

from jobs.email.relay import Mail
from jobs.model import Dead, Done, Outcome
from tests.jobs.email.mail import Clock, mail
from tests.jobs.email.peer import DROP, PIPELINING, RESET, TAKEN, Peer, Received
from tests.jobs.email.row import Row

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

SEED = 5
ROWS = 250
AT_ONCE = 25

HABITS = {
    "GREETING": [DROP, "421 4.3.2 busy", "554 5.3.2 no"],
    "EHLO": [DROP, "421 4.3.2 busy"],
    "MAIL": [DROP, RESET, "421 4.3.2 closing", "451 4.3.0 later", "what", "250 ok\r\n250 ok", "250 ok\r\n550 5.1.1 no"],
    "RCPT": [DROP, RESET, "421 4.7.0 closing", "450 4.2.1 later", "450 Greylisted", "250 ok\r\n550 5.1.1 no",
             "250 ok\r\n250 ok"],
    "DATA": [DROP, RESET, "421 4.3.2 closing", "451 4.3.0 later", "what", "354 go on\r\n250 taken"],
    "DOT": [DROP, RESET, TAKEN, TAKEN, "what", "421 4.3.2 closing", "451 4.3.0 later", "250 taken\r\n250 taken",
            "250 taken\r\n550 5.1.1 no"],
    "RSET": [DROP, "421 4.4.2 idle too long"],
}  # fmt: skip


@dataclass
class Mood:
    """Bad one time in `one_in`.  It says more than it was asked once in a while only: two such replies in one message
    can look like a refusal, and nobody could tell."""

    dice: random.Random
    one_in: int
    done: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    believed_at: int = 0

    def __call__(self, step: str) -> str | None:
        self.asked += 1
        habits = HABITS.get(step)
        if habits is None or self.dice.randrange(self.one_in):
            return None
        habit = self.dice.choice(habits)
        if "\r\n" in habit:
            if self.asked < self.believed_at:
                return None
            self.believed_at = self.asked + 60
        self.done[f"{step} {habit}"] += 1
        return habit


def rows(out: Mail, pool: Pool, dice: random.Random) -> Iterator[Row]:
    for number in range(1, ROWS + 1):
        to = [f"r{number}-{n}@x.example" for n in range(dice.choice([1, 1, 2, 3]))]
        yield Row(out, pool, job_id=number, to=to, subject=f"row {number}")


async def to_its_end(row: Row, clock: Clock) -> Outcome:
    """As a daemon would, whatever it is told to wait for."""
    for _ in range(200):
        outcome = await row.run()
        if isinstance(outcome, Done | Dead):
            return outcome
        clock.now += 7.0
    raise AssertionError("a row came to no end")


def subject(received: Received) -> str:
    [line] = [line for line in received.wire.split(b"\r\n") if line.startswith(b"Subject: ")]
    return line.removeprefix(b"Subject: ").decode()


def message_id(received: Received) -> bytes:
    [line] = [line for line in received.wire.split(b"\r\n") if line.startswith(b"Message-ID: ")]
    return line


@pytest.mark.req("BJ-21")
@pytest.mark.parametrize("offers", [PIPELINING, PIPELINING[:3]], ids=["pipelined", "plain"])
async def test_nothing_is_lost_and_only_what_was_in_doubt_comes_twice(pool: Pool, offers: tuple[str, ...]) -> None:
    dice, clock = random.Random(SEED), Clock()
    mood = Mood(random.Random(SEED + 1), 12)
    async with Peer(offers=offers, mood=mood) as peer:
        out = mail(peer.settings(connections=4, messages_per_connection=30), clock=clock)
        waiting = list(rows(out, pool, dice))
        ended: dict[str, tuple[Row, Outcome]] = {}

        async def work(turns: Iterator[Row]) -> None:
            for row in turns:
                ended[f"row {row.id}"] = (row, await to_its_end(row, clock))

        turns = iter(waiting)
        await asyncio.gather(*(work(turns) for _ in range(AT_ONCE)))
        await out.close()
    served = Counter((subject(r), recipient) for r in peer.received for recipient in r.recipients)
    ids: dict[str, set[bytes]] = {}
    for received in peer.received:
        ids.setdefault(subject(received), set()).add(message_id(received))
    doubted = {
        row["recipient"]
        for row in await pool.fetch("select distinct recipient from email_deliveries where outcome = 'unknown'")
    }

    assert sum(mood.done.values()) > ROWS / 5
    assert len(ended) == ROWS
    for name, (row, outcome) in ended.items():
        for recipient in row.args["to"]:
            times = served[name, recipient]
            if isinstance(outcome, Done):
                assert times >= 1, (name, recipient, "is lost")
            assert times <= (2 if recipient in doubted else 1), (name, recipient, times)
        if isinstance(outcome, Dead):  # twice in doubt, and nothing else: no reply to a message of ours was a refusal
            assert outcome.code.endswith(("_after_dot", "unknown_before")), (name, outcome.code, outcome.reason)
    assert all(len(found) == 1 for found in ids.values())
    assert {recipient for (name, recipient), _ in served.items() if recipient not in ended[name][0].args["to"]} == set()
