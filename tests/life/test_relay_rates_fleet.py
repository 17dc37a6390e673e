"""What a relay takes holds over all daemons, whatever is done to them: at its own door, where it counts."""

from __future__ import annotations

import signal
from time import monotonic
from typing import Any

import asyncpg
import pytest

from benchmarks.windows import most_within
from tests.jobs.email.peer import Peer
from tests.life.fleet import LONG, Fleet, empty, insert, until, until_sql

SLACK_S = 0.15 if LONG else 1.0
"""What may pass between a token's use and the moment at which the relay here reads MAIL: this machine is busy."""

USED = 0.85 if LONG else 0.3
"""Of a rate, at least."""

LETTER = {"to": "jane@x.example", "subject": "Hello", "text": "Hello.\n"}


async def due_now(pool: asyncpg.Pool) -> None:
    """What was put off comes again, and the daemons are told."""
    await pool.execute("update jobs set run_at = now() where gate = 'later'")
    await pool.execute("select pg_notify(left('jobsd:' || current_schema(), 63), 'control')")


class Doorkeeper(Peer):
    """A relay that looks at the clock at each MAIL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.times: list[float] = []

    async def _note(self) -> None:
        if self.commands and self.commands[-1].startswith("MAIL") and len(self.times) < self.count("MAIL"):
            self.times.append(monotonic())
        await super()._note()

    def config(self, **limits: Any) -> str:
        lines = "".join(f"{name} = {value!r}\n" for name, value in limits.items())
        return (
            '[email]\nfrom = "no-reply@shop.example"\n'
            f'[email.relays.main]\nhost = "127.0.0.1"\nport = {self.port}\ntls = "none"\n{lines}'
        )

    async def taken(self, count: int, fleet: Fleet) -> None:
        await until(
            lambda: len(self.received) >= count,
            lambda: f"{len(self.received)} of {count}; {[member.tail() for member in fleet.members]}",
        )


@pytest.mark.req("BJ-21")
async def test_no_window_has_more_than_the_rate_though_daemons_are_killed(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Two of them; one is killed and comes again, and nothing is lost or charged for waiting."""
    rate, rows = 20, 400 if LONG else 80
    async with Doorkeeper() as relay:
        config = relay.config(rate=f"{rate}/s")
        members = [await fleet.start(name, config) for name in "ab"]
        await insert(pool, "email", rows, LETTER)
        await relay.taken(rows // 4, fleet)
        await members[0].perish(pool)
        killed_at = monotonic()
        await fleet.start("a", config)
        await empty(pool)
        times = sorted(relay.times)
        assert len(times) >= rows
        for window_s in (0.5, 1.0, 2.0):
            assert most_within(times, window_s) <= rate * (max(1.0, window_s) + SLACK_S)
        assert (rows - 1) / rate / (times[-1] - times[0]) >= USED
        assert any(at > killed_at for at in times)
    assert await pool.fetchval("select count(*) from job_history where state = 'done'") == rows
    assert await pool.fetchval("select max(attempt) from job_history where crashes = 0") == 1


async def test_a_message_of_many_turns_counts_as_many_and_so_does_another_rate_at_once(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    async with Doorkeeper() as relay:
        daemon = await fleet.start("a", relay.config(rate="5/h", recipients_per_message=1))
        to = [f"u{n}@x.example" for n in range(4)]
        await insert(pool, "email", 2, {**LETTER, "to": to})
        await until_sql(pool, "select bool_and(state = 'ready' and (gate like 'limit:%' or run_at > now())) from jobs")
        assert 0 < relay.count("MAIL") <= 5
        daemon.config.write_text(relay.config(rate="500/s", recipients_per_message=1))
        daemon.signal(signal.SIGHUP)
        await daemon.said("config_reloaded")
        await due_now(pool)
        await empty(pool)
        assert sorted(r for received in relay.received for r in received.recipients) == sorted(to * 2)


@pytest.mark.req("BJ-21")
async def test_a_part_of_the_day_is_kept_for_security_mail(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Ordinary mail stops at its part, security mail goes on to the whole; what waits costs no attempt."""
    async with Doorkeeper() as relay:
        members = [await fleet.start(name, relay.config(messages_per_day=20)) for name in "ab"]
        await insert(pool, "email", 30, LETTER)
        await relay.taken(16, fleet)
        at_gates = "select count(*) = $2::int from jobs where state = 'ready' and gate = $1::text and attempt = 0"
        await until_sql(pool, at_gates, "limit:relay_ordinary:main:", 14)
        await insert(pool, "email", 6, {**LETTER, "security": True})
        await relay.taken(20, fleet)
        await until_sql(pool, at_gates, "limit:relay_day:main:", 2)
        await until_sql(pool, "select not exists (select from jobs where state = 'running')")
        await members[0].perish(pool)
        raised = relay.config(messages_per_day=30)
        await fleet.start("a", raised)
        members[1].config.write_text(raised)
        members[1].signal(signal.SIGHUP)
        await relay.taken(30, fleet)
        await until_sql(pool, "select count(*) = 6 and bool_and(gate like 'limit:relay_%' and attempt = 0) from jobs")
        assert relay.count("MAIL") == 30


@pytest.mark.req("BJ-21")
async def test_a_relay_that_throttles_is_sent_half_as_much_by_all(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Nothing is charged for it, its lane stays open, and what it refused comes again."""
    said = "454 4.7.0 Throttling failure: Maximum sending rate exceeded."
    async with Doorkeeper({"MAIL": [said] * 3}) as relay:
        members = [await fleet.start(name, relay.config(rate="100/s")) for name in "ab"]
        await insert(pool, "email", 30, LETTER)
        await relay.taken(20, fleet)
        share = await pool.fetchval("select min(share) from job_limits where name = 'relay:main'")
        assert 0.1 <= share <= 0.5
        told = [row for member in members for row in member.events("relay_throttled")]
        assert 1 <= len(told) <= 3
        assert not [row for member in members for row in member.events("lane_closed")]
        await until_sql(pool, "select count(*) = 3 from jobs where gate = 'later'")
        await due_now(pool)
        await empty(pool)
        assert len(relay.received) == 30
    assert await pool.fetchval("select max(attempt) from job_history") == 1
